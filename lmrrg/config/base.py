"""What every branch of the configuration shares."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Precision = Literal["fp32", "bf16"]


class ConfigError(ValueError):
    """A setting that is unknown or impossible; the message names the key, the allowed values and the file."""


class Settings(BaseModel):
    """Base of every branch: unknown keys and infinite numbers are errors, values do not change after loading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=()
    )


def check_batches(name: str, minibatch: int, microbatch: int, workers: int) -> None:
    """Refuse a minibatch that the ranks cannot cut into equal microbatches.

    Raises:
        ValueError: it is no multiple of ``microbatch * workers``.
    """
    if minibatch % (microbatch * workers):
        raise ValueError(
            f"{name} {minibatch} must be a multiple of microbatch {microbatch} x workers {workers}"
        )
