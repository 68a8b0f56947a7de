"""Errors as JSON with stable codes, and a limit on the size of uploads."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lmrrg.errors import CodedError
from lmrrg.imaging.radiograph import ImageError
from serve_app.schemas import ErrorDetail, ErrorResponse

STATUS = {
    "too_large": 413,
    "not_an_image": 415,
    "unsupported_transfer_syntax": 415,
    "decoder_memory": 413,
    "decoder_busy": 503,
    "not_ready": 503,
    "busy": 503,
}
"""HTTP status by error code; every other input error has 422."""

CODE_OF_STATUS = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}
"""Error code of an HTTP status that the web framework raises by itself."""


class ServiceError(CodedError):
    """A request that the service cannot take.

    Its codes are ``not_ready``, ``busy``, ``no_images``, ``too_many_images``, ``mixed_study`` and
    ``duplicate_image``.
    """


class UploadLimit:
    """ASGI middleware that answers 413 to a request body of more than ``limit`` bytes.

    A body whose length is announced is refused before it is read, any other one as soon as it
    passes the limit.
    """

    def __init__(self, app: ASGIApp, limit: int):
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a ``receive`` that counts the bytes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > self._limit:
            await error_response(413, "too_large", self._message)(scope, receive, send)
            return
        await self._app(scope, self._counting(receive), send)

    @property
    def _message(self) -> str:
        return f"the upload is larger than {self._limit >> 20} MB"

    def _counting(self, receive: Receive) -> Receive:
        # The announced length may be missing or wrong, so what really arrives is counted too.
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise HTTPException(413, self._message)
            return message

        return counted


def install(api: FastAPI) -> None:
    """Turn every error of the application into a JSON body ``{"error": {"code", "message"}}``."""

    @api.exception_handler(ImageError)
    @api.exception_handler(CodedError)
    async def refused(request: Request, error: Any) -> JSONResponse:
        return error_response(
            STATUS.get(error.code, 422), error.code, str(error).removeprefix(f"{error.code}: ")
        )

    @api.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        # Names of the fields only: the values are what somebody typed about a patient.
        fields = ", ".join(sorted({str(problem["loc"][-1]) for problem in error.errors()}))
        return error_response(422, "invalid_request", f"missing or invalid: {fields}")

    @api.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        return error_response(
            error.status_code, CODE_OF_STATUS.get(error.status_code, "http_error"), error.detail
        )

    @api.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        # The message of an unexpected error may contain report text or paths.
        return error_response(
            500, "internal", "the report could not be written; the service's log says why"
        )


def error_response(status: int, code: str, message: str) -> JSONResponse:
    """Return the HTTP response of an error."""
    body = ErrorResponse(error=ErrorDetail(code=code, message=message)).model_dump()
    return JSONResponse(body, status, headers={"Retry-After": "2"} if status == 503 else None)
