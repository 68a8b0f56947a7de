"""Errors as JSON with stable codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from lmrrg.errors import CodedError
from lmrrg.imaging.radiograph import ImageError
from serve_app.schemas import ErrorDetail, ErrorResponse, FileError

STATUS = {
    "bad_form": 400,
    "bad_image_url": 400,
    "bad_request": 400,
    "greedy_only": 400,
    "no_streaming": 400,
    "bad_host": 400,
    "unauthorized": 401,
    "cross_site": 403,
    "unknown_model": 404,
    "upload_timeout": 408,
    "too_large": 413,
    "too_many_parts": 413,
    "bad_charset": 415,
    "not_an_image": 415,
    "unsupported_transfer_syntax": 415,
    "decoder_memory": 413,
    "not_acceptable": 406,
    "decoder_busy": 503,
    "not_ready": 503,
    "busy": 503,
    "replica_lost": 503,
    "engine_broken": 503,
    "engine_stuck": 503,
    "too_many_uploads": 429,
    "rate_limited": 429,
    "timeout": 504,
}
"""HTTP status by error code; every other input error has 422."""

CODE_HEADER = "X-Error-Code"
"""Header of every error's response with its code."""

CODE_OF_STATUS = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}
"""Error code of an HTTP status that the web framework raises by itself."""


class ServiceError(CodedError):
    """A request that the service cannot take.

    Its codes are those of :data:`STATUS` that are not of images, ``no_images``,
    ``too_many_images``, ``mixed_study`` and ``duplicate_image``.
    """


class FilesRefused(CodedError):
    """Files of an upload that are refused, by their index; the code is that of the first.

    Files are named by their numbers, because a file name may contain a patient's name.
    """

    def __init__(self, refused: Mapping[int, ImageError]):
        index, first = next(iter(refused.items()))
        super().__init__(first.code, f"image {index + 1}: {_message(first)}")
        self.files = [
            FileError(index=index, code=error.code, message=_message(error))
            for index, error in refused.items()
        ]


def install(api: FastAPI) -> None:
    """Turn every error of the application into a JSON body ``{"error": {"code", "message"}}``."""

    @api.exception_handler(ImageError)
    @api.exception_handler(CodedError)
    async def refused(request: Request, error: Any) -> JSONResponse:
        return coded_response(error)

    @api.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        # Names of the fields only: the values are what somebody typed about a patient.
        fields = ", ".join(sorted({str(problem["loc"][-1]) for problem in error.errors()}))
        return error_response(422, "invalid_request", f"missing, unknown or invalid: {fields}")

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


def coded_response(error: CodedError | ImageError) -> JSONResponse:
    """Return the HTTP response of a coded error."""
    files = error.files if isinstance(error, FilesRefused) else None
    return error_response(STATUS.get(error.code, 422), error.code, _message(error), files)


def error_response(
    status: int, code: str, message: str, files: list[FileError] | None = None
) -> JSONResponse:
    """Return the HTTP response of an error."""
    detail = ErrorDetail(code=code, message=message, files=files)
    body = ErrorResponse(error=detail).model_dump(exclude_none=True)
    headers = {CODE_HEADER: code}
    if status in (429, 503, 504):
        headers["Retry-After"] = "2"
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body, status, headers=headers)


def _message(error: CodedError) -> str:
    return str(error).removeprefix(f"{error.code}: ")
