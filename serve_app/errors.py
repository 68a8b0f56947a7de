"""Errors as JSON with stable codes, and a limit on uploads that holds while they are read."""

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
"""HTTP status of an error code; every other refusal of the input is 422."""

CODE_OF_STATUS = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}


class ServiceError(CodedError):
    """The service cannot take a request: ``not_ready``, ``busy``, ``no_images`` or ``too_many_images``."""


class UploadLimit:
    """ASGI middleware: a body of more than ``limit`` bytes ends with 413, before it is read where its length is
    announced, else as soon as the limit is passed."""

    def __init__(self, app: ASGIApp, limit: int):
        self._app, self._limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a ``receive`` that counts."""
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
    """Make every error of the application a JSON body ``{"error": {"code", "message"}}``."""

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
        return error_response(
            500, "internal", "the report could not be written; the service's log says why"
        )


def error_response(status: int, code: str, message: str) -> JSONResponse:
    """The JSON of an error."""
    body = ErrorResponse(error=ErrorDetail(code=code, message=message)).model_dump()
    return JSONResponse(body, status, headers={"Retry-After": "2"} if status == 503 else None)
