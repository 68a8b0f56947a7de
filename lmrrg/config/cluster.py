"""Settings of the Ray cluster."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from lmrrg.config.base import Settings


class RayConfig(Settings):
    """The Ray cluster, and the store that outlives it."""

    address: str | None = Field(
        None, description="cluster to join; null: $RAY_ADDRESS, or else start a local cluster"
    )
    object_store_mb: PositiveInt = Field(512, description="object store of a local cluster, MB")
    checkpoint_storage: str | None = Field(
        None,
        description="store such as s3://bucket/prefix that holds the SFT checkpoints in place of "
        "the run folder, and a copy of every PPO training state; null: none",
    )
    preflight_timeout_s: PositiveFloat = Field(
        60, description="longest wait for the resources that a run asks for, seconds"
    )
    placement: Literal["split", "colocated"] = Field(
        "split",
        description="split: every actor reserves its own resources; colocated: policy rank k and "
        "vLLM engine k use the same GPU",
    )
