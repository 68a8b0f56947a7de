"""Health checks."""

from __future__ import annotations

from fastapi import APIRouter

from serve_app.schemas import Health
from serve_app.service import Service, errors


def health(service: Service) -> APIRouter:
    """Return the routes that say whether the service lives and can write reports."""
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> Health:
        """Answer while the process is alive."""
        return Health(status="alive")

    @router.get("/readyz", responses=errors(503))
    async def readyz() -> Health:
        """Answer 200 once the model is loaded and has written a first report."""
        service.writer.check_ready()
        return Health(status="ready")

    return router
