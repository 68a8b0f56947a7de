"""``POST /v1/films``: the pixels of a film as the reading page shows them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Form, Response, UploadFile
from pydantic import ConfigDict, Field

from lmrrg.imaging.radiograph import Radiograph, resize
from serve_app.forms import FormRoute
from serve_app.schemas import Schema
from serve_app.service import Service, errors

LONGEST_SIDE = 4096
"""Pixels; a larger film is made smaller, because the answer is held in memory as a whole."""
_WHITE = 65535
_PIXELS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"application/octet-stream": {}},
        "description": "16-bit pixels by rows, the low byte first, bone bright; X-Film-Rows and "
        "X-Film-Columns have the size, X-Film-View the view",
    }
}


class FilmForm(Schema):
    """The form: one film."""

    model_config = ConfigDict(extra="forbid")

    file: UploadFile = Field(description="a DICOM, PNG or JPEG image")


def films(service: Service) -> APIRouter:
    """Return the route that decodes a film for the page; nothing of it is kept."""
    router = APIRouter(route_class=FormRoute)

    @router.post(
        "/v1/films",
        response_class=Response,
        responses=_PIXELS | errors(413, 415, 422, 500, 503),
    )
    async def decode_film(
        form: Annotated[FilmForm, Form(media_type="multipart/form-data")],
    ) -> Response:
        """Decode a film at its full size, up to 4,096 pixels a side."""
        with service.writer.queue_slot():
            data = await form.file.read()
            film = await asyncio.to_thread(service.decoders.decode, data)
        return await asyncio.to_thread(_answer, film)

    return router


def _answer(film: Radiograph) -> Response:
    rows, columns = film.pixels.shape
    scale = min(1.0, LONGEST_SIDE / max(rows, columns))
    pixels = film.pixels
    if scale < 1:
        pixels = resize(pixels, round(rows * scale), round(columns * scale))
    return Response(
        np.rint(pixels * _WHITE).astype("<u2").tobytes(),
        media_type="application/octet-stream",
        headers={
            "x-film-rows": str(pixels.shape[0]),
            "x-film-columns": str(pixels.shape[1]),
            "x-film-view": film.view,
        },
    )
