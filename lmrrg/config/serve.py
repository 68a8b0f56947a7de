"""The settings of the HTTP service."""

from __future__ import annotations

from pathlib import Path

from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
)

from lmrrg.config.base import Settings


class ServeConfig(Settings):
    """The HTTP service."""

    checkpoint: Path | None = Field(None, description="model directory to serve")
    max_upload_mb: PositiveInt = Field(64, description="largest upload, MB")
    decoders: PositiveInt = Field(1, description="child processes per replica that decode uploads")
    decoder_timeout_s: PositiveFloat = Field(
        20, description="longest time to decode one image, seconds"
    )
    decoder_memory_mb: PositiveInt = Field(
        2048, description="memory that one image may need in its decoder, MB"
    )
    replicas: PositiveInt = Field(1, description="Serve replicas")
