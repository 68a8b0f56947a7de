"""Every setting of the system: one typed tree, read from YAML and dotted overrides.

Batch sizes use one vocabulary: an iteration of PPO draws ``studies_per_iteration`` studies and samples
``samples_per_study`` reports for each; their product is the *rollout batch*. The policy takes optimizer steps on
*minibatches* of it, over all ranks together; a *microbatch* is what one rank runs through the model at once.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import (
    Field,
    PositiveInt,
    model_validator,
)

from lmrrg.config.base import Settings
from lmrrg.config.cluster import RayConfig
from lmrrg.config.data import DataConfig
from lmrrg.config.evaluation import EvaluationConfig
from lmrrg.config.model import ModelConfig
from lmrrg.config.ppo import PPOConfig
from lmrrg.config.reward import RewardConfig
from lmrrg.config.rollout import RolloutConfig
from lmrrg.config.serve import ServeConfig
from lmrrg.config.sft import SFTConfig
from lmrrg.config.tracking import TrackingConfig


class Config(Settings):
    """One way of running the whole system."""

    name: str = Field(
        "demo", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="run name; its folder's name"
    )
    seed: int = Field(7, ge=0, description="seed of every random generator")
    storage_path: Path = Field(
        Path("runs"), description="parent of run folders, shared by the nodes"
    )
    threads: PositiveInt = Field(1, description="torch threads per worker process on CPU")
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    ray: RayConfig = RayConfig()
    sft: SFTConfig = SFTConfig()
    reward: RewardConfig = RewardConfig()
    rollout: RolloutConfig = RolloutConfig()
    ppo: PPOConfig = PPOConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    tracking: TrackingConfig = TrackingConfig()
    serve: ServeConfig = ServeConfig()

    def checkpoint_uri(self, stage: str) -> str | None:
        """``ray.checkpoint_storage/<name>/<stage>``, or None where that is not set; a stage's folders as ``sft/name``.

        What follows a "?" (endpoint and scheme of an S3-like store) stays at the end.
        """
        if not self.ray.checkpoint_storage:
            return None
        root, mark, options = self.ray.checkpoint_storage.partition("?")
        return f"{root.rstrip('/')}/{self.name}/{stage}{mark}{options}"

    @property
    def run_dir(self) -> Path:
        """Folder of this run."""
        return self.storage_path / self.name

    @property
    def is_own_reference(self) -> bool:
        """Whether the policy with its LoRA adapters off is the frozen reference, so that nothing else has to hold it.

        Where PPO moves the visual half too (``ppo.trainable=all``) it is not.
        """
        return self.model.decoder.lora_rank > 0 and self.ppo.trainable == "decoder"

    @property
    def parity_tolerance(self) -> float:
        """Largest mean difference of an engine's log-probs from the trainer's, nats.

        vLLM's float32 attention on a GPU rounds its products to TF32; a forward in 16 bits is some 0.01 nats a
        token off.
        """
        if self.ppo.parity_tolerance is not None:
            return self.ppo.parity_tolerance
        if self.rollout.dtype != "float32":
            return 0.2
        return 0.01 if self.rollout.gpus_per_engine else 1e-3

    @model_validator(mode="after")
    def _combinations(self) -> Config:
        if self.data.source != "phantom" and self.data.path is None:
            raise ValueError(f"data.path is required with data.source={self.data.source}")
        if self.reward.backend == "published" and self.reward.published_dir is None:
            raise ValueError(
                "reward.published_dir is required with reward.backend=published; see `lmrrg doctor`"
            )
        # The other half is the prompt's.
        for name, tokens in (
            ("rollout.max_new_tokens", self.rollout.max_new_tokens),
            ("data.max_report_tokens", self.data.max_report_tokens),
        ):
            if tokens > self.model.decoder.max_positions // 2:
                raise ValueError(f"{name} may be at most half of model.decoder.max_positions")
        self._check_placement()
        return self

    def _check_placement(self) -> None:
        rollout, ppo = self.rollout, self.ppo
        if (
            rollout.tensor_parallel_size > 1
            and rollout.gpus_per_engine != rollout.tensor_parallel_size
        ):
            raise ValueError(
                f"rollout.tensor_parallel_size {rollout.tensor_parallel_size} needs as many rollout.gpus_per_engine, "
                f"not {rollout.gpus_per_engine:g}"
            )
        self._check_weight_transfer()
        trainers = 1 if self.is_own_reference else 2
        shared = trainers * ppo.gpus_per_worker + rollout.gpus_per_engine
        if self.ray.placement == "colocated" and shared > 1 + 1e-6:
            who = "a policy rank" if trainers == 1 else "a policy rank and the reference"
            raise ValueError(
                f"ray.placement=colocated puts {who} ({ppo.gpus_per_worker:g} GPU each) and an engine "
                f"({rollout.gpus_per_engine:g} GPU) on one GPU: together {shared:g}, at most 1"
            )

    def _check_weight_transfer(self) -> None:
        rollout, ppo = self.rollout, self.ppo
        if rollout.weight_transfer == "nccl" and not (
            ppo.gpus_per_worker and rollout.gpus_per_engine >= 1
        ):
            raise ValueError(
                "rollout.weight_transfer=nccl needs policy ranks on GPUs and engines with GPUs of their own"
            )
        if rollout.weight_transfer == "ipc":
            shared = (
                ppo.gpus_per_worker
                and 0 < rollout.gpus_per_engine < 1
                and self.ray.placement == "colocated"
            )
            if not shared or rollout.engines > ppo.workers:
                raise ValueError(
                    "rollout.weight_transfer=ipc needs ray.placement=colocated with a policy rank on each engine's GPU"
                )
