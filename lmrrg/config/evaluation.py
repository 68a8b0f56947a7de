"""The settings of the final comparison."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    Field,
    PositiveInt,
)

from lmrrg.config.base import Settings


class EvaluationConfig(Settings):
    """The final comparison."""

    convention: Literal["r2gen", "raw"] = Field(
        "raw", description="text convention of the NLG metrics"
    )
    vocabulary_threshold: PositiveInt | None = Field(
        None,
        description="r2gen: rarest training word that is kept, occurrences; null: as published for the data set, "
        "10 for MIMIC-CXR, else 3",
    )
    reference_tokens: PositiveInt | None = Field(
        None,
        description="r2gen: references are cut to this many tokens, start token included; null: as published for the "
        "data set, 100 for MIMIC-CXR, else 60",
    )
    uncertain_policy: Literal["positive", "negative"] = Field(
        "positive", description="uncertain labels in the F1"
    )
    bootstrap: PositiveInt = Field(1000, description="bootstrap resamples")
    meteor: bool = Field(
        True, description="METEOR among the n-gram metrics; it takes seconds per system"
    )
    examples: PositiveInt = Field(6, description="example studies in the run report")
