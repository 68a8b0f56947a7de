"""Settings of the reward."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from lmrrg.config.base import FREE, Settings
from lmrrg.own_code import OwnCode

_RENAMED_KEYS = {"reference_dir": "published_dir", "reference_cache": "published_cache"}


class RewardParts(Settings):
    """Weights of what a report earns; the paper's reward is RadCliQ alone."""

    radcliq: NonNegativeFloat = Field(1.0, description="weight of minus RadCliQ-v1, clipped")
    label_f1: NonNegativeFloat = Field(
        0.0, description="weight of the F1 of the 14 classes in report and reference, 0 to 1"
    )
    coherence: NonNegativeFloat = Field(
        0.0, description="weight of being coherent: 1 for a report without a fault, 0 for another"
    )
    judge: NonNegativeFloat = Field(
        0.0, description="weight of the score of a language model (reward.judge), 0 to 1"
    )

    @model_validator(mode="after")
    def _any(self) -> RewardParts:
        if not any(self.model_dump().values()):
            raise ValueError("reward.parts gives no part a weight above 0")
        return self


class JudgeConfig(Settings):
    """A language model that judges reports, behind an OpenAI-compatible endpoint."""

    url: str | None = Field(
        None,
        description="base address of the endpoint, such as http://localhost:8000/v1; report texts "
        "are sent there",
        json_schema_extra=FREE,
    )
    model: str | None = Field(None, description="name of the model at the endpoint")
    api_key_env: str | None = Field(
        None,
        description="environment variable that holds the key; null: no key",
        json_schema_extra=FREE,
    )
    timeout_s: PositiveFloat = Field(
        20,
        description="time after which a report stays without a score, seconds",
        json_schema_extra=FREE,
    )
    batch: PositiveInt = Field(
        8, description="reports that each scorer asks for at a time", json_schema_extra=FREE
    )
    max_tokens: PositiveInt = Field(512, description="longest answer, tokens")
    cache: Path | None = Field(
        Path(".cache/judge"),
        description="folder where answers are kept, without texts; null: off",
        json_schema_extra=FREE,
    )


class RewardConfig(Settings):
    """The RadCliQ reward, further parts, and the penalties that guard it."""

    parts: RewardParts = RewardParts()
    judge: JudgeConfig = JudgeConfig()

    backend: Literal["embedded", "published"] = Field(
        "embedded",
        description="embedded: rules, nothing to download; published: the metric models that their "
        "authors published",
    )
    function: OwnCode | None = Field(
        None,
        description="a reward of your own, in place of minus RadCliQ-v1: module:function, which "
        "gets N reports and N references and returns N numbers, higher for better reports",
    )
    published_dir: Path | None = Field(
        None, description="folder with the models of the published backend; required for it"
    )
    published_cache: Path | None = Field(
        Path(".cache/published"),
        description="folder where the published models' results for references are kept; null: off",
    )
    scorers: PositiveInt = Field(
        1, description="actors that compute rewards", json_schema_extra=FREE
    )
    cpus_per_scorer: PositiveFloat = Field(
        0.5, description="CPUs reserved for each scorer", json_schema_extra=FREE
    )
    gpus_per_scorer: NonNegativeFloat = Field(
        0,
        description="GPUs reserved for each scorer; only the published backend uses them",
        json_schema_extra=FREE,
    )
    chunk: PositiveInt = Field(
        32, description="reports per call of a scorer", json_schema_extra=FREE
    )
    timeout_s: PositiveFloat = Field(
        120,
        description="time after which a scorer that does not answer is replaced, seconds",
        json_schema_extra=FREE,
    )
    # Wider than usual scores: 1.44 for a report that is identical with its reference, -2.45 for one
    # that has nothing in common with it.
    clip_low: float = Field(-3.0, description="lowest reward for RadCliQ, before its weight")
    clip_high: float = Field(1.5, description="highest reward for RadCliQ, before its weight")
    incoherence_penalty: NonNegativeFloat = Field(
        0.25,
        description="penalty for each contradiction, repetition or impossibility; such a report "
        "also earns no more than what is left of it without one side of each; 0: neither",
    )
    length_penalty: NonNegativeFloat = Field(
        0.0,
        description="penalty per unit of |log(length / reference length)| beyond log 2: reports of "
        "half to twice the length of their reference pay nothing",
    )
    repetition_penalty: NonNegativeFloat = Field(
        0.5, description="penalty times the fraction of repeated 3-grams"
    )
    no_eos_penalty: NonNegativeFloat = Field(
        0.5, description="penalty for a report that reached the length limit without an end token"
    )
    shuffle_control: bool = Field(
        False, description="negative control: shuffle the rewards among the studies"
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
    def _judge(self) -> RewardConfig:
        if not self.parts.judge:
            return self
        if not self.judge.url or not self.judge.model:
            raise ValueError("reward.parts.judge needs reward.judge.url and reward.judge.model")
        rounds = math.ceil(self.chunk / self.judge.batch)
        if rounds * self.judge.timeout_s > self.timeout_s:
            raise ValueError(
                f"a chunk of {self.chunk} reports may wait {rounds} times reward.judge.timeout_s, "
                f"longer than reward.timeout_s {self.timeout_s:g}: raise that or "
                "reward.judge.batch, or lower reward.chunk"
            )
        return self

    @model_validator(mode="after")
    def _clip(self) -> RewardConfig:
        if self.clip_low >= self.clip_high:
            raise ValueError(f"clip_low {self.clip_low} must be below clip_high {self.clip_high}")
        return self
