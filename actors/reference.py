"""Score rollouts with the frozen SFT model, to which the policy is kept close."""

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
from actors.placement import actor_options, bundle, bundle_index, torch_environment
from actors.policy import PolicyGroup
from lmrrg.config.ppo import PPOConfig
from lmrrg.model.checkpoint import load_checkpoint
from lmrrg.policy.actor_critic import report_log_probs
from lmrrg.policy.batches import Rollout, in_order, rank_microbatches


class ReferenceWorker:
    """One copy of the frozen model; it scores its part of every rollout.

    Args:
        ppo: copies, precision, microbatch and GPUs.
        threads: torch threads.
        checkpoint_dir: the SFT model.
        rank: of this copy, from 0.
    """

    def __init__(self, ppo: PPOConfig, threads: int, checkpoint_dir: Path, rank: int):
        torch.set_num_threads(threads)
        self._ppo = ppo
        self._rank = rank
        self._device = "cuda" if ppo.gpus_per_worker else "cpu"
        self._model = load_checkpoint(checkpoint_dir).requires_grad_(False).to(self._device)

    @torch.inference_mode()
    def log_probs(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Score this copy's part of the rollout.

        Returns:
            Its rows (long [b]), and the log-probs [b, T] of their sampled tokens, float32 on CPU, 0
            in the padding.
        """
        result = torch.zeros(rollout.ids.shape)
        parts = self._microbatches(rollout)
        for rows in parts:
            batch = rollout.select(rows).to(self._device)
            log_probs = report_log_probs(self._model, batch, self._ppo.precision)
            # A microbatch is cut to its longest report; the rollout is not.
            result[rows, : log_probs.shape[1]] = log_probs.cpu()
        # More copies than reports leave some of them without any.
        mine = torch.cat(parts) if parts else torch.arange(0)
        return mine, result[mine]

    def _microbatches(self, rollout: Rollout) -> list[Tensor]:
        ppo = self._ppo
        return rank_microbatches(
            rollout,
            torch.arange(len(rollout)),
            ppo.microbatch,
            self._rank,
            ppo.reference_workers,
            tokens=ppo.microbatch_tokens,
            visual_tokens=self._model.visual_tokens,
        )


class Reference:
    """The copies of the frozen reference as one object; each scores a part of every rollout.

    Args:
        ppo: copies, precision, microbatch, CPUs and GPUs of a copy, longest wait.
        checkpoint_dir: the SFT model; must be readable on every node.
        placement_group: reservation that holds the copies' bundles, or None.
        threads: torch threads of a copy.
        first_bundle: index of the first copy's bundle; the others follow it. None: any bundle that
            fits.
    """

    def __init__(
        self,
        ppo: PPOConfig,
        checkpoint_dir: Path,
        placement_group: PlacementGroup | None = None,
        *,
        threads: int,
        first_bundle: int | None = None,
    ):
        remote: Any = ray.remote(ReferenceWorker)
        self._workers: list[ActorHandle] = []
        for rank in range(ppo.reference_workers):
            options = actor_options(
                reference_bundle(ppo), placement_group, bundle_index(first_bundle, rank)
            )
            environment = torch_environment(threads, ppo.gpus_per_worker)
            options["runtime_env"] = {"env_vars": environment}
            worker = remote.options(**options).remote(ppo, threads, Path(checkpoint_dir), rank)
            self._workers.append(worker)
        self._timeout = ppo.timeout_s

    def start(self) -> None:
        """Wait until every copy is loaded.

        Raises:
            PoolError: ``actors_lost``.
        """
        self._wait([cast(Any, worker).__ray_ready__.remote() for worker in self._workers])

    def log_probs(self, rollout: ray.ObjectRef) -> list[ray.ObjectRef]:
        """Start scoring a rollout (a reference to :class:`Rollout`); see :meth:`result`."""
        return [worker.log_probs.remote(rollout) for worker in self._workers]

    def result(self, calls: list[ray.ObjectRef]) -> Tensor:
        """Wait for log-probs [B, T], in the order of the rollout.

        Raises:
            PoolError: ``actors_lost``.
        """
        return ordered(self._wait(calls))

    def close(self) -> None:
        """Stop the copies."""
        for worker in self._workers:
            ray.kill(worker)

    def _wait(self, calls: list[ray.ObjectRef]) -> list[Any]:
        return results("reference", self._workers, calls, self._timeout)


@dataclass(frozen=True)
class AdapterReference:
    """The policy with its LoRA adapters off, which is the frozen SFT model.

    It replaces :class:`Reference` where the policy is that model with adapters, and saves a second
    copy of the weights.
    """

    policy: PolicyGroup

    def start(self) -> None:
        """Do nothing: the policy has started."""

    def log_probs(self, rollout: ray.ObjectRef) -> list[ray.ObjectRef]:
        """Start scoring a rollout (a reference to :class:`Rollout`); see :meth:`result`."""
        return self.policy.reference_log_probs(rollout)

    def result(self, calls: list[ray.ObjectRef]) -> Tensor:
        """Wait for log-probs [B, T].

        Raises:
            PoolError: ``actors_lost``.
        """
        return ordered(self.policy.wait(calls))

    def close(self) -> None:
        """Do nothing: the policy is closed by its owner."""


def ordered(parts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Return log-probs [B, T] in the order of the rollout, from all workers' rows and log-probs."""
    rows, log_probs = zip(*parts, strict=True)
    return in_order(rows, log_probs)


def reference_bundle(ppo: PPOConfig) -> dict[str, float]:
    """Return the resources of one copy of the reference: those of a policy rank."""
    return bundle(ppo.cpus_per_worker, ppo.gpus_per_worker)
