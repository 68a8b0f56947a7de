"""The frozen SFT model: what the policy is kept close to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import ray
import torch
from ray.actor import ActorHandle
from ray.util.placement_group import PlacementGroup
from torch import Tensor

from actors.actor_pool import results
from actors.placement import actor_options, bundle, torch_environment
from actors.policy import PolicyGroup
from lmrrg.config.ppo import PPOConfig
from lmrrg.config.tree import Config
from lmrrg.model.checkpoint import load_checkpoint
from lmrrg.policy.actor_critic import report_log_probs
from lmrrg.policy.batches import Rollout, in_order, rank_microbatches


class ReferenceWorker:
    """Holds one copy of the model, never changes it, and scores its share of a rollout."""

    def __init__(self, config: Config, checkpoint_dir: Path, rank: int):
        torch.set_num_threads(config.threads)
        self._ppo, self._rank = config.ppo, rank
        self._device = "cuda" if config.ppo.gpus_per_worker else "cpu"
        self._model = load_checkpoint(checkpoint_dir).requires_grad_(False).to(self._device)

    @torch.inference_mode()
    def log_probs(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """This worker's rows (long [b]) of the rollout, and the log-probs [b, T] of their sampled tokens, float32 on
        CPU, 0 in the padding."""
        result = torch.zeros(rollout.ids.shape)
        shares = self._microbatches(rollout)
        for rows in shares:
            scores = report_log_probs(
                self._model, rollout.select(rows).to(self._device), self._ppo.precision
            )
            result[rows, : scores.shape[1]] = scores.cpu()
        mine = torch.cat(shares) if shares else torch.arange(0)
        return mine, result[mine]

    def _microbatches(self, rollout: Rollout) -> list[Tensor]:
        ppo, every = self._ppo, torch.arange(len(rollout))
        workers, budget = ppo.reference_workers, ppo.microbatch_tokens
        return rank_microbatches(rollout, every, ppo.microbatch, self._rank, workers, tokens=budget)


class Reference:
    """The copies of the frozen reference as one object; each scores a share of every rollout.

    Args:
        config: uses ``ppo`` (copies, precision, microbatch, GPUs) and ``threads``.
        checkpoint_dir: the SFT model; must be readable on every node.
        placement_group: reservation that holds the copies' bundles, or None.
        first_bundle: index of the first copy's bundle; the others follow it. None: any bundle that fits.
    """

    def __init__(
        self,
        config: Config,
        checkpoint_dir: Path,
        placement_group: PlacementGroup | None = None,
        *,
        first_bundle: int | None = None,
    ):
        remote: Any = ray.remote(ReferenceWorker)
        self._workers: list[ActorHandle] = []
        for rank in range(config.ppo.reference_workers):
            index = -1 if first_bundle is None else first_bundle + rank
            options = actor_options(reference_bundle(config.ppo), placement_group, index)
            options["runtime_env"] = {
                "env_vars": torch_environment(config.threads, config.ppo.gpus_per_worker)
            }
            self._workers.append(
                remote.options(**options).remote(config, Path(checkpoint_dir), rank)
            )
        self._timeout = config.ppo.timeout_s

    def start(self) -> None:
        """Wait until every copy is loaded.

        Raises:
            PoolError: ``actors_lost``.
        """
        self._wait([cast(Any, worker).__ray_ready__.remote() for worker in self._workers])

    def log_probs(self, rollout: ray.ObjectRef) -> list[ray.ObjectRef]:
        """Start scoring a rollout (a reference to :class:`Rollout`); see :meth:`result`."""
        return [worker.log_probs.remote(rollout) for worker in self._workers]

    def result(self, scores: list[ray.ObjectRef]) -> Tensor:
        """Wait for log-probs [B, T], in the order of the rollout.

        Raises:
            PoolError: ``actors_lost``.
        """
        return ordered(self._wait(scores))

    def close(self) -> None:
        """Stop them."""
        for worker in self._workers:
            ray.kill(worker)

    def _wait(self, calls: list[ray.ObjectRef]) -> list[Any]:
        return results("reference", self._workers, calls, self._timeout)


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
        return ordered(self.policy.wait(scores))

    def close(self) -> None:
        """Nothing to do: the policy is closed by its owner."""


def ordered(shares: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Log-probs [B, T] in the order of the rollout, from every worker's rows and log-probs."""
    rows, log_probs = zip(*shares, strict=True)
    return in_order(rows, log_probs)


def reference_bundle(ppo: PPOConfig) -> dict[str, float]:
    """What one copy of the reference asks of the cluster: as much as one policy rank."""
    return bundle(ppo.cpus_per_worker, ppo.gpus_per_worker)
