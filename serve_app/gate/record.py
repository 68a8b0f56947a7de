"""Count and record requests: numbers and names of keys, nothing that a patient could be in."""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from serve_app.routes import PATHS

logger = logging.getLogger("ray.serve")

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60)


@dataclass
class Exchange:
    """One request and its answer, as they are recorded."""

    route: str
    method: str
    key: str | None = None
    """Name of the API key."""
    status: int = 499  # as web servers record a client that went away
    code: str = ""
    """Of the error; empty for none."""
    received: int = 0
    """Bytes of the request's body."""
    sent: int = 0
    """Bytes of the answer's body."""
    is_read: bool = False
    """Whether the whole body has come."""


class Records:
    """Writes the audit lines of one gate and counts for its ``/metrics``.

    Args:
        audit_log: file for the lines; None: Ray Serve's log.
    """

    def __init__(self, audit_log: Path | None):
        self._file: IO[str] | None = None
        if audit_log is not None:
            audit_log.parent.mkdir(parents=True, exist_ok=True)
            # Only the service's own user may read who asked for reports, and when.
            self._file = os.fdopen(
                os.open(audit_log, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600), "a"
            )
        # A registry of its own: the process of the proxy has Ray's metrics in the global one.
        registry = self._registry = CollectorRegistry()
        self._requests = Counter(
            "lmrrg_requests", "Requests.", ["route", "status", "code"], registry=registry
        )
        self._seconds = Histogram(
            "lmrrg_request_seconds",
            "Seconds from the head of a request to its whole answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._bytes = Counter("lmrrg_upload_bytes", "Bytes of request bodies.", registry=registry)
        self._losses = Counter(
            "lmrrg_replica_losses", "Requests whose replica died.", registry=registry
        )
        self.open = Gauge("lmrrg_open_requests", "Requests without an answer.", registry=registry)

    def count_loss(self) -> None:
        """Count a request whose replica died."""
        self._losses.inc()

    def metrics(self) -> bytes:
        """Return the counts in Prometheus' text format."""
        return generate_latest(self._registry)

    def write(self, exchange: Exchange, seconds: float) -> None:
        """Record a request that has ended."""
        self._requests.labels(exchange.route, exchange.status, exchange.code).inc()
        self._seconds.labels(exchange.route).observe(seconds)
        self._bytes.inc(exchange.received)
        line = json.dumps(
            {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                **asdict(exchange),
                "ms": round(seconds * 1000),
            }
        )
        if self._file is None:
            logger.info("audit %s", line)
        else:
            self._file.write(line + "\n")
            self._file.flush()


def route_of(path: str) -> str:
    """Return the route of a path; one that is none of ours may hold anything, so it is not kept."""
    return path if path in PATHS else "other"


def clock() -> float:
    """Return seconds that only grow."""
    return time.monotonic()
