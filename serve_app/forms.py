"""Read multipart forms in linear time, with limits on everything that a client can multiply.

The parser of the web framework takes one step of Python for each line break in a file, which may be
made of nothing else: seconds during which nobody else is answered.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile

from serve_app.errors import ServiceError

MAX_PARTS = 32
"""Most files and fields of one form."""
_LONGEST_HEAD = 8192
_LONGEST_FIELD = 1 << 20


class FormRoute(APIRoute):
    """Route whose forms are read by :func:`parse_form`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of the route (FastAPI)."""
        handle = super().get_route_handler()

        async def with_form(request: Request) -> Response:
            read = _FormRequest(request.scope, request.receive)
            # Here, because FastAPI gives every error of `form` the same code.
            await read.parse()
            return await handle(read)

        return with_form


class _FormRequest(Request):
    """Request whose form has been read."""

    _parsed: FormData

    async def parse(self) -> None:
        kind, options = parse_options_header(self.headers.get("content-type"))
        is_form = kind == b"multipart/form-data"
        boundary = options.get(b"boundary", b"")
        self._parsed = parse_form(await self.body(), boundary) if is_form else FormData()

    async def form(self, **limits: Any) -> FormData:  # type: ignore[override]
        return self._parsed


def parse_form(body: bytes, boundary: bytes) -> FormData:
    """Return the fields (text) and files of a form, in their order (RFC 7578).

    Raises:
        ServiceError: ``bad_form`` or ``too_many_parts``.

    >>> body = b'--x\\r\\nContent-Disposition: form-data; name="a"\\r\\n\\r\\n1\\r\\n--x--\\r\\n'
    >>> parse_form(body, b"x")
    FormData([('a', '1')])
    """
    # The first delimiter may stand at the very start, without a line break before it. Behind the
    # last one, the rest stays in one piece.
    sections = (b"\r\n" + body).split(b"\r\n--" + boundary, maxsplit=MAX_PARTS + 2)
    parts: list[tuple[str, UploadFile | str]] = []
    for section in sections[1:]:
        if section.startswith(b"--"):
            return FormData(parts)
        if len(parts) == MAX_PARTS:
            raise ServiceError("too_many_parts", f"more than {MAX_PARTS} files and fields")
        parts.append(_part(section))
    raise ServiceError("bad_form", "the form does not end with its boundary")


def _part(section: bytes) -> tuple[str, UploadFile | str]:
    """Return name and content of one part, which begins behind its delimiter.

    Raises:
        ServiceError: ``bad_form``.
    """
    end = section.find(b"\r\n\r\n", 0, _LONGEST_HEAD)
    if not section.lstrip(b" \t").startswith(b"\r\n") or end < 0:
        raise ServiceError("bad_form", "a part of the form has no proper head")
    headers = _headers(section[:end])
    _, options = parse_options_header(headers.get("content-disposition"))
    content = section[end + 4 :]
    if b"name" not in options:
        raise ServiceError("bad_form", "a part of the form has no name")
    try:
        name = options[b"name"].decode()
        if b"filename" not in options:
            if len(content) > _LONGEST_FIELD:
                raise ServiceError("bad_form", "a text of the form is longer than 1 MB")
            return name, content.decode()
        filename = options[b"filename"].decode(errors="replace")
    except UnicodeDecodeError:
        raise ServiceError("bad_form", "a text of the form is not utf-8") from None
    return name, UploadFile(
        io.BytesIO(content), size=len(content), filename=filename, headers=headers
    )


def _headers(head: bytes) -> Headers:
    """Return the headers of a part; lines without a colon are left out."""
    pairs = [line.partition(b":") for line in head.split(b"\r\n")]
    return Headers(raw=[(name.strip().lower(), value.strip()) for name, _, value in pairs if name])
