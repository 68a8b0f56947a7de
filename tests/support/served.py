"""A service without a model, for the tests of its routes."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import numpy as np
from PIL import Image

from lmrrg.studies import LABELS
from serve_app.reporter import UploadedStudy
from serve_app.schemas import ImageInfo, ModelInfo, ReportResponse


class CountingWriter:
    """Writer whose report is the number of studies it has written, after a moment."""

    def __init__(self) -> None:
        self.written = 0
        self.fails = False

    def check_ready(self) -> None:
        """Be ready."""

    @contextmanager
    def queue_slot(self) -> Iterator[None]:
        """Have a slot for everybody."""
        yield

    async def write(self, study: UploadedStudy) -> ReportResponse:
        """Write the report, or fail where the test says so."""
        await asyncio.sleep(0.05)
        if self.fails:
            raise RuntimeError("the engine broke")
        self.written += 1
        return ReportResponse(
            findings=f"Report {self.written}. Small left effusion.",
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


def png(seed: int = 0) -> bytes:
    """Return a small PNG, another one for each seed."""
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (80, 64), dtype=np.uint8)
    Image.fromarray(pixels).save(out, format="PNG")
    return out.getvalue()
