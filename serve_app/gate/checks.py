"""Check what the head of a request says, before its body is read or its effect begins."""

from __future__ import annotations

from urllib.parse import urlsplit

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers

from serve_app.errors import ServiceError
from serve_app.gate.settings import is_loopback

_UTF8 = ("utf-8", "utf8")
_LONGEST_BOUNDARY = 70  # RFC 2046, 5.1.1
_MOST_JSON_VALUES = 100_000


def check_content_type(headers: Headers) -> None:
    """Check the type of the body.

    Decoding with a charset that somebody else chooses may take quadratic time (``punycode``).

    Raises:
        ServiceError: ``bad_charset``, or ``bad_form`` (several types, or no boundary).
    """
    stated = headers.getlist("content-type")
    if len(stated) > 1:
        raise ServiceError("bad_form", "the request has more than one Content-Type")
    kind, options = parse_options_header(stated[0] if stated else None)
    # The library skips RFC 2231's way to write a parameter in parts, which others may follow.
    if stated and "charset*" in stated[0].lower():
        raise ServiceError("bad_charset", "the only charset is utf-8, written charset=utf-8")
    charset = options.get(b"charset", b"utf-8").decode("latin-1").strip().lower()
    if charset not in _UTF8:
        raise ServiceError("bad_charset", "the only charset is utf-8")
    if kind == b"multipart/form-data":
        boundary = options.get(b"boundary", b"")
        if not 0 < len(boundary) <= _LONGEST_BOUNDARY:
            raise ServiceError("bad_form", "the form's boundary must have 1 to 70 characters")


def check_json(headers: Headers, body: bytes) -> None:
    """Check that a JSON body is no heap of small values, which would take seconds to read.

    Raises:
        ServiceError: ``too_many_parts``.
    """
    if headers.get("content-type", "").partition(";")[0].strip().lower().endswith("json"):
        # Each value but the first follows one of these. Base64 has none of them.
        values = sum(body.count(mark) for mark in (b",", b"[", b"{"))
        if values > _MOST_JSON_VALUES:
            raise ServiceError("too_many_parts", f"more than {_MOST_JSON_VALUES} JSON values")


def check_host(headers: Headers, allowed: tuple[str, ...]) -> None:
    """Check by which name the service is called, and that no page of another site calls it.

    A page elsewhere can make a browser inside the hospital send requests, under a name that its own
    DNS points to this service.

    Raises:
        ServiceError: ``bad_host`` or ``cross_site``.
    """
    host = _host_name(headers.get("host", ""))
    if not _is_allowed(host, allowed):
        raise ServiceError("bad_host", "this host name is not one of serve.allowed_hosts")
    origin = headers.get("origin")
    if origin is None:
        return
    calling = urlsplit(origin).hostname or ""
    if calling != host and not _is_allowed(calling, allowed):
        raise ServiceError("cross_site", "pages of other sites may not call this service")


def _is_allowed(host: str, allowed: tuple[str, ...]) -> bool:
    return is_loopback(host) or host in (name.lower() for name in allowed)


def _host_name(host: str) -> str:
    """Return the name in a Host header, without port.

    >>> _host_name("Reports.example:8000"), _host_name("[::1]:8000")
    ('reports.example', '::1')
    """
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
