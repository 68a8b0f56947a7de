"""The part of the settings that the service reads."""

from __future__ import annotations

from dataclasses import dataclass

from lmrrg.config.data import DataConfig
from lmrrg.config.model import EvidenceConfig, ImageEncoderConfig
from lmrrg.config.rollout import RolloutConfig
from lmrrg.config.serve import ServeConfig
from lmrrg.config.tree import Config


@dataclass(frozen=True)
class ServiceSettings:
    """What one replica needs to know. The checkpoint itself says how its model is built."""

    serve: ServeConfig
    data: DataConfig
    """Limits on images."""
    rollout: RolloutConfig
    """Sizes, precision and resources of the vLLM engine."""
    image_encoder: ImageEncoderConfig
    """Names the function that may run where a checkpoint has its images encoded by one."""
    evidence: EvidenceConfig
    """Operating point of the evidence in the prompts."""
    seed: int
    threads: int
    """Torch threads on CPU."""

    @staticmethod
    def of(config: Config) -> ServiceSettings:
        """Take the settings of the service out of all settings."""
        return ServiceSettings(
            serve=config.serve,
            data=config.data,
            rollout=config.rollout,
            image_encoder=config.model.image_encoder,
            evidence=config.evidence,
            seed=config.seed,
            threads=config.threads,
        )
