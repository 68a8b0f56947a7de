"""What every branch of the configuration shares."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

Precision = Literal["fp32", "bf16"]

Stage = Literal["data", "eye", "sft", "ppo"]
"""What a run makes, in this order: its studies, the fine-tuned image encoder, the SFT model, the
PPO policy."""

STAGES_KEY = "stages"


class ConfigError(ValueError):
    """A setting that is unknown or impossible; names the key, the allowed values and the file."""


class Settings(BaseModel):
    """Base of every branch: unknown keys and infinite numbers are errors; values are constant."""

    # Frozen, so that config.yaml, which is saved at the start, holds what the run used to its end.
    # No protected namespaces: pydantic reserves names that begin with "model".
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=()
    )


def enters(*stages: Stage) -> dict[str, JsonValue]:
    """Mark a setting, or a whole branch, with the stages whose results it changes.

    A stage that has begun refuses to continue when such a setting changed, because its results
    would be a mixture of two runs. A setting without a mark has that of its branch, and where no
    branch has one it belongs to every stage: a forgotten mark refuses too much, never too little.

    Returns:
        The ``json_schema_extra`` of the setting's ``Field``.
    """
    return {STAGES_KEY: list(stages)}


FREE = enters()
"""Mark of a setting that may change whenever a run is continued."""


def check_batches(name: str, minibatch: int, microbatch: int, workers: int) -> None:
    """Refuse a minibatch that the ranks cannot cut into equal microbatches.

    Raises:
        ValueError: it is no multiple of ``microbatch * workers``.
    """
    if minibatch % (microbatch * workers):
        raise ValueError(
            f"{name} {minibatch} must be a multiple of microbatch {microbatch} x workers {workers}"
        )
