"""The page for people: read films beside the report that the model wrote."""

from __future__ import annotations

import asyncio
import io
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
from fastapi import APIRouter, HTTPException, Response
from fastapi import Path as Place
from fastapi.responses import HTMLResponse
from PIL import Image

from lmrrg.data.phantom.drawn.findings import draw_phantom, sample_findings

FOLDER = Path(__file__).parents[1] / "page"
# Read at start: a request names one of these, never a path.
_FILES = {path.name: path.read_bytes() for path in sorted(FOLDER.iterdir()) if path.is_file()}
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
# The page loads nothing from other servers and runs no script but its own files.
PAGE_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data: blob:; style-src 'self'; "
    "script-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
EXAMPLES = 4
"""Number of synthetic films that the page offers."""
_EXAMPLE_SIDE = 1024


def page() -> APIRouter:
    """Return the routes of the page."""
    router = APIRouter()

    @router.get("/", response_class=HTMLResponse)
    async def index() -> Response:
        """Return the page."""
        return _file("index.html")

    @router.get("/page/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        """Return a script or the style sheet of the page."""
        return _file(name)

    @router.get("/page/examples/{number}.png", include_in_schema=False)
    async def example(number: Annotated[int, Place(ge=1, le=EXAMPLES)]) -> Response:
        """Return a synthetic film."""
        return Response(await asyncio.to_thread(_example, number), media_type="image/png")

    return router


def _file(name: str) -> Response:
    """Return a file of the page.

    Raises:
        HTTPException: 404, the page has no such file.
    """
    if name not in _FILES:
        raise HTTPException(404)
    kind = _TYPES[Path(name).suffix]
    return Response(_FILES[name], media_type=kind, headers={"Content-Security-Policy": PAGE_POLICY})


@cache
def _example(number: int) -> bytes:
    """Draw a phantom, and return it as an 8-bit PNG."""
    streams = np.random.default_rng(number).spawn(3)
    findings = sample_findings(streams[2])
    film, _ = draw_phantom(streams[0], findings, _EXAMPLE_SIDE, patient=streams[1])
    stored = io.BytesIO()
    Image.fromarray(np.uint8(255 * film)).save(stored, "PNG")
    return stored.getvalue()
