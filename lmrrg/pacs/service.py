"""Ask the report service for a report over HTTP."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from lmrrg.config.watch import WatchConfig
from lmrrg.errors import CodedError

_LATER = frozenset({401, 403, 404, 408, 429})
"""Statuses below 500 that say nothing about the films: settings or load, so it is tried again."""


class ServiceDown(CodedError):
    """No report now; the code is the service's own, or ``service_down``."""


class FilmsRefused(CodedError):
    """The service will never write a report of these films; the code is the service's own."""


class ReportService:
    """A client of ``POST /v1/reports``."""

    def __init__(self, watch: WatchConfig) -> None:
        headers = {"Accept": "application/json"}
        if watch.api_key_file is not None:
            key = watch.api_key_file.read_text(encoding="utf-8").strip()
            headers["Authorization"] = f"Bearer {key}"
        self._client = httpx.Client(
            base_url=watch.service, headers=headers, timeout=watch.report_timeout_s
        )

    def report(self, paths: Sequence[Path], key: str) -> dict[str, Any]:
        """Return the answer about the films.

        Args:
            paths: the films of one study.
            key: of the study. With a hash of the files it is the request's key: a report that is
                asked for twice is written once, and films that come back with another file header
                (archives write their own) are no other request under an old key.

        Raises:
            ServiceDown: try again later.
            FilmsRefused: there will be no report.
        """
        # No file names: they may hold a patient's name.
        films = [path.read_bytes() for path in paths]
        files = [("files", ("film.dcm", film)) for film in films]
        headers = {"Idempotency-Key": f"{key}-{_digest(films)}"}
        try:
            answer = self._client.post("/v1/reports", files=files, headers=headers)
            body = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise ServiceDown("service_down", f"no answer: {type(error).__name__}") from error
        if answer.status_code == httpx.codes.OK and isinstance(body, dict):
            return body
        code, message = _error(body)
        if answer.status_code in _LATER or answer.is_server_error or not answer.is_client_error:
            raise ServiceDown(code, message)
        raise FilmsRefused(code, message)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _digest(films: Sequence[bytes]) -> str:
    parts = b"".join(hashlib.sha256(film).digest() for film in films)
    return hashlib.sha256(parts).hexdigest()[:32]


def _error(body: Any) -> tuple[str, str]:
    try:
        return str(body["error"]["code"]), str(body["error"]["message"])
    except (KeyError, TypeError):
        return "service_down", "the answer is none of the report service"
