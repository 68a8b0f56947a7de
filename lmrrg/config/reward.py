"""The settings of the reward."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from lmrrg.config.base import Settings


_RENAMED_KEYS = {"reference_dir": "published_dir", "reference_cache": "published_cache"}


class RewardConfig(Settings):
    """The RadCliQ reward and its guards."""

    backend: Literal["embedded", "published"] = Field(
        "embedded", description="embedded: rules, no download; published: the published weights"
    )
    published_dir: Path | None = Field(
        None, description="folder with the weights of the published backend"
    )
    published_cache: Path | None = Field(
        Path(".cache/published"),
        description="folder where the published models' results for references are kept; null: off",
    )
    scorers: PositiveInt = Field(1, description="reward actors")
    cpus_per_scorer: PositiveFloat = Field(0.5, description="CPUs asked for each scorer")
    gpus_per_scorer: NonNegativeFloat = Field(
        0, description="GPUs asked for each scorer; only published uses them"
    )
    chunk: PositiveInt = Field(32, description="report pairs per call of a scorer")
    timeout_s: PositiveFloat = Field(
        120, description="a scorer that takes longer is replaced, seconds"
    )
    clip_low: float = Field(-3.0, description="lowest reward")
    clip_high: float = Field(1.5, description="highest reward")
    length_penalty: NonNegativeFloat = Field(
        0.0, description="per unit of |log(length / reference length)| over log 2"
    )
    repetition_penalty: NonNegativeFloat = Field(
        0.5, description="times the share of repeated 3-grams"
    )
    no_eos_penalty: NonNegativeFloat = Field(
        0.5, description="for a report that did not end by itself"
    )
    shuffle_control: bool = Field(
        False, description="negative control: rewards are shuffled among the studies"
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_old_names(cls, values: Any) -> Any:
        """Refuse the names of before the rename and give the new ones.

        Without this, pydantic would call an old name an unknown setting and give no replacement.
        """
        if not isinstance(values, dict):
            return values
        for old, new in _RENAMED_KEYS.items():
            if old in values:
                raise ValueError(f"reward.{old} is now called reward.{new}")
        if values.get("backend") == "reference":
            raise ValueError("reward.backend=reference is now called published")
        return values

    @model_validator(mode="after")
    def _clip(self) -> RewardConfig:
        if self.clip_low >= self.clip_high:
            raise ValueError(f"clip_low {self.clip_low} must be below clip_high {self.clip_high}")
        return self
