"""The frozen SFT model: what the policy is kept close to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import ray
import torch
from ray.actor import ActorHandle
from ray.util.placement_group import PlacementGroup
from torch import Tensor

from actors.placement import actor_options, bundle
from actors.policy import PolicyGroup
from actors.supervision import results
from lmrrg.config import Config
from lmrrg.config_ppo import PPOConfig
from lmrrg.model.checkpoint import load_checkpoint
from lmrrg.ppo.actor_critic import report_log_probs
from lmrrg.ppo.batches import Rollout, in_order, rank_microbatches


class ReferenceWorker:
    """Holds the model and never changes it."""

    def __init__(self, config: Config, checkpoint_dir: Path):
        torch.set_num_threads(config.threads)
        self._microbatch, self._tokens = config.ppo.microbatch, config.ppo.microbatch_tokens
        self._device = "cuda" if config.ppo.gpus_per_worker else "cpu"
        dtype = torch.bfloat16 if config.ppo.precision == "bf16" else torch.float32
        self._model = load_checkpoint(checkpoint_dir).requires_grad_(False).to(self._device, dtype)

    @torch.inference_mode()
    def log_probs(self, rollout: Rollout) -> Tensor:
        """Log-probs [B, T] of the sampled tokens, float32 on CPU, 0 in the padding."""
        result = torch.zeros(rollout.ids.shape)
        for rows in rank_microbatches(rollout, torch.arange(len(rollout)), self._microbatch, tokens=self._tokens):
            scores = report_log_probs(self._model, rollout.select(rows).to(self._device)).cpu()
            result[rows, : scores.shape[1]] = scores
        return result


class Reference:
    """Handle of the frozen reference.

    Args:
        config: uses ``ppo`` (precision, microbatch, GPUs) and ``threads``.
        checkpoint_dir: the SFT model; must be readable on its node.
        placement_group: reservation that holds its bundle, or None.
        bundle_index: index of its bundle. None: any bundle that fits.
    """

    def __init__(
        self,
        config: Config,
        checkpoint_dir: Path,
        placement_group: PlacementGroup | None = None,
        *,
        bundle_index: int | None = None,
    ):
        options = actor_options(
            reference_bundle(config.ppo), placement_group, -1 if bundle_index is None else bundle_index
        )
        options["runtime_env"] = {"env_vars": {"OMP_NUM_THREADS": str(config.threads)}}
        self._timeout = config.ppo.timeout_s
        remote: Any = ray.remote(ReferenceWorker)
        self._worker: ActorHandle = remote.options(**options).remote(config, Path(checkpoint_dir))

    def start(self) -> None:
        """Wait until the model is loaded."""
        self.result([cast(Any, self._worker).__ray_ready__.remote()])

    def log_probs(self, rollout: ray.ObjectRef) -> list[ray.ObjectRef]:
        """Start scoring a rollout (a reference to :class:`Rollout`); see :meth:`result`."""
        return [self._worker.log_probs.remote(rollout)]

    def result(self, scores: list[ray.ObjectRef]) -> Tensor:
        """Wait for log-probs [B, T].

        Raises:
            PoolError: ``actors_lost``.
        """
        return results("reference", [self._worker], scores, self._timeout)[0]

    def close(self) -> None:
        """Stop it."""
        ray.kill(self._worker)


@dataclass(frozen=True)
class AdapterReference:
    """The frozen SFT model where the policy is that model with LoRA adapters: the policy with its adapters off.

    It stands in for :class:`Reference` without a second copy of the weights.
    """

    policy: PolicyGroup

    def start(self) -> None:
        """Nothing to do: the policy is there."""

    def log_probs(self, rollout: ray.ObjectRef) -> list[ray.ObjectRef]:
        """Start scoring a rollout (a reference to :class:`Rollout`); see :meth:`result`."""
        return self.policy.reference_log_probs(rollout)

    def result(self, scores: list[ray.ObjectRef]) -> Tensor:
        """Wait for log-probs [B, T].

        Raises:
            PoolError: ``actors_lost``.
        """
        shares = self.policy.wait(scores)
        return in_order([rows for rows, _ in shares], [log_probs for _, log_probs in shares])

    def close(self) -> None:
        """Nothing to do: the policy is closed by its owner."""


def reference_bundle(ppo: PPOConfig) -> dict[str, float]:
    """What the reference asks of the cluster: as much as one policy rank."""
    return bundle(ppo.cpus_per_worker, ppo.gpus_per_worker)
