"""Every setting of the system: one typed tree, read from YAML and dotted overrides.

Batch sizes use one vocabulary. An iteration of PPO draws ``studies_per_iteration`` studies and
samples ``samples_per_study`` reports for each; their product is the *rollout batch*. The policy
takes optimizer steps on *minibatches* of it, over all ranks together. A *microbatch* is what one
rank runs through the model at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from lmrrg.config.base import FREE, Settings, enters
from lmrrg.config.cluster import RayConfig
from lmrrg.config.data import DataConfig
from lmrrg.config.evaluation import EvaluationConfig
from lmrrg.config.model import EvidenceConfig, ModelConfig
from lmrrg.config.ppo import PPOConfig
from lmrrg.config.reward import RewardConfig
from lmrrg.config.rollout import RolloutConfig
from lmrrg.config.serve import ServeConfig
from lmrrg.config.sft import EyeConfig, SFTConfig
from lmrrg.config.watch import WatchConfig


class TrackingConfig(Settings):
    """Where metrics go besides the run folder, which always holds them as JSONL."""

    wandb_mode: Literal["offline", "online", "disabled"] = Field(
        "offline", description="Weights & Biases mode"
    )
    wandb_project: str = Field("lmrrg", description="Weights & Biases project")


class Config(Settings):
    """One way of running the whole system."""

    name: str = Field(
        "demo",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="name of the run and of its folder",
        json_schema_extra=FREE,
    )
    seed: int = Field(7, ge=0, description="seed of every random generator")
    storage_path: Path = Field(
        Path("runs"),
        description="folder of the run folders, which all nodes of a cluster can read",
        json_schema_extra=FREE,
    )
    threads: PositiveInt = Field(
        1, description="torch threads of each process on CPU", json_schema_extra=FREE
    )
    data: DataConfig = DataConfig()
    model: ModelConfig = Field(ModelConfig(), json_schema_extra=enters("sft", "ppo"))
    evidence: EvidenceConfig = Field(EvidenceConfig(), json_schema_extra=enters("sft", "ppo"))
    ray: RayConfig = Field(RayConfig(), json_schema_extra=FREE)
    eye: EyeConfig = Field(EyeConfig(), json_schema_extra=enters("eye"))
    sft: SFTConfig = Field(SFTConfig(), json_schema_extra=enters("sft"))
    reward: RewardConfig = Field(RewardConfig(), json_schema_extra=enters("ppo"))
    rollout: RolloutConfig = Field(RolloutConfig(), json_schema_extra=enters("ppo"))
    ppo: PPOConfig = Field(PPOConfig(), json_schema_extra=enters("ppo"))
    evaluation: EvaluationConfig = Field(EvaluationConfig(), json_schema_extra=FREE)
    tracking: TrackingConfig = Field(TrackingConfig(), json_schema_extra=FREE)
    serve: ServeConfig = Field(ServeConfig(), json_schema_extra=FREE)
    watch: WatchConfig = Field(WatchConfig(), json_schema_extra=FREE)

    def checkpoint_uri(self, stage: str) -> str | None:
        """Return ``ray.checkpoint_storage/<name>/<stage>``, or None without such a store.

        The options of an S3-like store, which follow a "?", stay at the end.

        Args:
            stage: "eye", "sft" or "ppo", or a folder inside one of them such as "sft/name".
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
        """Whether the policy without its LoRA adapters is the frozen SFT model.

        No other actor has to hold the reference then. Where PPO trains the extractor too
        (``ppo.trainable=all``), the adapters are not all that changed, so it is not.
        """
        return self.model.decoder.lora_rank > 0 and self.ppo.trainable == "decoder"

    @property
    def parity_tolerance(self) -> float:
        """Largest allowed mean difference of the log-probs of engine and trainer, nats.

        vLLM's float32 attention on a GPU rounds its products to TF32, and a forward pass in 16
        bits is off by some 0.01 nats per token.
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
        if self.ppo.heldout_metric == "label_f1" and self.reward.parts.label_f1:
            raise ValueError(
                "ppo.heldout_metric=label_f1 is a part of the reward (reward.parts.label_f1), so "
                "it cannot judge the reward: take ppo.heldout_metric=rouge_l"
            )
        if self.reward.shuffle_control and self.ppo.reference_sentences:
            raise ValueError(
                "ppo.reference_sentences shows the policy its references, so the negative control "
                "reward.shuffle_control could learn from them: set one of the two to its default"
            )
        # The other half of the positions is for the prompt.
        for name, tokens in (
            ("rollout.max_new_tokens", self.rollout.max_new_tokens),
            ("data.max_report_tokens", self.data.max_report_tokens),
        ):
            if tokens > self.model.decoder.max_positions // 2:
                raise ValueError(f"{name} may be at most half of model.decoder.max_positions")
        if self.eye.epochs and self.eye.crop > self.data.image_size:
            raise ValueError(
                f"eye.crop {self.eye.crop} must not exceed data.image_size {self.data.image_size}"
            )
        self._check_placement()
        return self

    def _check_placement(self) -> None:
        rollout = self.rollout
        split = rollout.tensor_parallel_size
        if split > 1 and rollout.gpus_per_engine != split:
            raise ValueError(
                f"rollout.tensor_parallel_size {split} needs as many rollout.gpus_per_engine, "
                f"not {rollout.gpus_per_engine:g}"
            )
        self._check_weight_transfer()
        if self.ray.placement == "colocated":
            self._check_colocated()

    def _check_colocated(self) -> None:
        """Refuse a policy rank, its reference and an engine that do not fit on one GPU."""
        models = 1 if self.is_own_reference else 2
        used = models * self.ppo.gpus_per_worker + self.rollout.gpus_per_engine
        if used > 1 + 1e-6:  # fractions such as 0.4 + 0.3 + 0.3 may add up to a little over 1
            who = "a policy rank" if models == 1 else "a policy rank and the reference"
            raise ValueError(
                f"ray.placement=colocated puts {who} ({self.ppo.gpus_per_worker:g} GPU each) and "
                f"an engine ({self.rollout.gpus_per_engine:g} GPU) on one GPU: together {used:g}, "
                "at most 1"
            )

    def _check_weight_transfer(self) -> None:
        rollout = self.rollout
        ppo = self.ppo
        own_gpus = ppo.gpus_per_worker > 0 and rollout.gpus_per_engine >= 1
        if rollout.weight_transfer == "nccl" and not own_gpus:
            raise ValueError(
                "rollout.weight_transfer=nccl needs policy ranks on GPUs and engines with GPUs of "
                "their own"
            )
        # ipc hands over a pointer into the memory of one GPU: sender and receiver must share it.
        shared_gpus = (
            ppo.gpus_per_worker > 0
            and 0 < rollout.gpus_per_engine < 1
            and self.ray.placement == "colocated"
            and rollout.engines <= ppo.workers
        )
        if rollout.weight_transfer == "ipc" and not shared_gpus:
            raise ValueError(
                "rollout.weight_transfer=ipc needs ray.placement=colocated with a policy rank on "
                "each engine's GPU"
            )
