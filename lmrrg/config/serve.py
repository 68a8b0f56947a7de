"""Settings of the HTTP service."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, PositiveFloat, PositiveInt

from lmrrg.config.base import Settings


class ServeConfig(Settings):
    """The HTTP service."""

    checkpoint: Path | None = Field(None, description="model directory to serve; required to serve")
    max_upload_mb: PositiveInt = Field(64, description="largest upload, MB")
    decoders: PositiveInt = Field(
        1, description="child processes of each replica that decode uploaded images"
    )
    decoder_timeout_s: PositiveFloat = Field(
        20, description="longest time for decoding one image, seconds"
    )
    decoder_memory_mb: PositiveInt = Field(
        2048, description="memory limit of a child process that decodes, MB"
    )
    replicas: PositiveInt = Field(1, description="replicas of the Ray Serve deployment")
