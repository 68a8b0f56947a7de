"""Settings of the final comparison."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from lmrrg.config.base import Settings
from lmrrg.own_code import OwnCode


class EvaluationConfig(Settings):
    """The final comparison of SFT, PPO and the baselines."""

    convention: Literal["raw", "r2gen", "coco"] = Field(
        "raw",
        description="text handling of BLEU, METEOR, ROUGE-L and CIDEr: untouched, or as well as in "
        "R2Gen-style tables, or as in COCO (lower case, no punctuation)",
    )
    vocabulary_threshold: PositiveInt | None = Field(
        None,
        description="r2gen: occurrences from which a training word is kept; null: the data set's "
        "published value (10 for MIMIC-CXR, else 3)",
    )
    reference_tokens: PositiveInt | None = Field(
        None,
        description="r2gen: length at which references are cut, tokens with the start token; null: "
        "the data set's published value (100 for MIMIC-CXR, else 60)",
    )
    uncertain_policy: Literal["positive", "negative"] = Field(
        "positive", description="how the F1 scores count a label of -1 (uncertain)"
    )
    extra_metrics: list[OwnCode] = Field(
        [],
        description="metrics of your own: module:function, which gets N reports and their N "
        "references and returns N numbers",
    )
    operating_points: list[Annotated[float, Field(gt=0.0, lt=1.0)]] = Field(
        [],
        description="thresholds of the evidence at which a trained system writes all reports once "
        "more, for the precision-recall curve of its reports",
    )
    bootstrap: PositiveInt = Field(1000, description="bootstrap resamples of every interval")
    meteor: bool = Field(
        True, description="compute METEOR, which takes some seconds for each system"
    )
    examples: PositiveInt = Field(24, description="example studies in the run report")
