"""The page for people: upload films, read the report."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

PAGE = Path(__file__).parents[1] / "page" / "index.html"
# The page loads nothing from other servers, and no other site can embed it.
PAGE_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src data: blob:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page() -> APIRouter:
    """Return the route of the page."""
    router = APIRouter()

    @router.get("/", response_class=HTMLResponse)
    async def index() -> HTMLResponse:
        """Return the upload page."""
        return HTMLResponse(
            PAGE.read_text(encoding="utf-8"), headers={"Content-Security-Policy": PAGE_POLICY}
        )

    return router
