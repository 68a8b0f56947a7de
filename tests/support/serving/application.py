"""The web application behind its gate, with a writer that stands in for the model."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import numpy as np
from PIL import Image

from lmrrg.config.serve import ServeConfig
from lmrrg.imaging.decoder_pool import DecoderPool
from lmrrg.studies import LABELS
from serve_app.api import build_api
from serve_app.errors import ServiceError
from serve_app.gate.middleware import Gate
from serve_app.gate.settings import GateSettings
from serve_app.reporter import UploadedStudy
from serve_app.schemas import ImageInfo, ModelInfo, ReportResponse
from serve_app.service import Service

SQUARE = 256


class FakeWriter:
    """Fake writer: its report is the number of images, and it keeps the studies it was given."""

    def __init__(self) -> None:
        self.studies: list[UploadedStudy] = []
        self.ready = True
        self.slots = 1

    def check_ready(self) -> None:
        if not self.ready:
            raise ServiceError("not_ready", "the model is being loaded")

    @contextmanager
    def queue_slot(self) -> Iterator[None]:
        if not self.slots:
            raise ServiceError("busy", "too many studies are waiting")
        self.slots -= 1
        try:
            yield
        finally:
            self.slots += 1

    async def write(self, study: UploadedStudy) -> ReportResponse:
        self.studies.append(study)
        if study.indication == "crash":
            raise RuntimeError("secret detail")
        return ReportResponse(
            findings=f"{len(study.images)} images.",
            complete=True,
            probabilities=dict.fromkeys(LABELS, 0.5),
            images=[ImageInfo(view=image.view, source=image.source) for image in study.images],
            images_not_used=0,
            indication_used=False,
            prior_used=False,
            model=ModelInfo(
                version="sha256:0", architecture="LMRRG", decoder="llama", provenance={}
            ),
            generated_at=datetime.now(UTC),
            seconds=0.1,
        )


def gated(writer: FakeWriter, decoders: DecoderPool, **limits: Any) -> Gate:
    """Return the application behind its gate, as a replica runs it."""
    settings = GateSettings(serve=ServeConfig(**limits), keys={})
    return Gate(build_api(Service(writer, decoders, SQUARE)), settings)


def picture(kind: str = "PNG", size: tuple[int, int] = (80, 64)) -> bytes:
    """Return a small picture file."""
    out = io.BytesIO()
    Image.fromarray(np.arange(size[0] * size[1], dtype=np.uint8).reshape(size)).save(
        out, format=kind
    )
    return out.getvalue()
