"""Settings of where metrics go."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lmrrg.config.base import Settings


class TrackingConfig(Settings):
    """Where metrics go besides the run folder, which always holds them as JSONL."""

    wandb_mode: Literal["offline", "online", "disabled"] = Field(
        "offline", description="Weights & Biases mode"
    )
    wandb_project: str = Field("lmrrg", description="Weights & Biases project")
