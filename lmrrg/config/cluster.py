"""The settings of the Ray cluster."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
)

from lmrrg.config.base import Settings


class RayConfig(Settings):
    """The cluster."""

    address: str | None = Field(
        None, description="cluster to join; null: RAY_ADDRESS or a local one"
    )
    object_store_mb: PositiveInt = Field(512, description="object store of a local cluster, MB")
    checkpoint_storage: str | None = Field(
        None,
        description="store, e.g. s3://bucket/prefix, where SFT checkpoints lie instead of in the run folder, and where "
        "every training state of PPO is copied to",
    )
    preflight_timeout_s: PositiveFloat = Field(
        60, description="longest wait for the asked resources, seconds"
    )
    placement: Literal["split", "colocated"] = Field(
        "split",
        description="split: every actor reserves its own share; colocated: policy rank k and engine k share GPU k",
    )
