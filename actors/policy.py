"""The policy group: DeepSpeed ranks as Ray actors that score and train the report generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.util.placement_group import PlacementGroup
from torch import Tensor

from actors.actor_pool import results
from actors.deepspeed_setup import deepspeed_environment
from actors.placement import actor_options, bundle, torch_environment
from actors.policy_worker import PolicyWorker
from lmrrg.config.ppo import PPOConfig
from lmrrg.config.tree import Config
from lmrrg.policy.batches import Experience, PolicyOutputs, in_order
from lmrrg.policy.update_report import UpdateReport


@dataclass(frozen=True)
class PendingScores:
    """Scores that the ranks are working on."""

    shares: list[ray.ObjectRef]
    wait: Callable[[list[ray.ObjectRef]], list[tuple[Tensor, PolicyOutputs]]]

    def result(self) -> PolicyOutputs:
        """Wait for the scores [B, T], in the order of the rollout.

        Raises:
            PoolError: ``actors_lost``.
        """
        shares = self.wait(self.shares)
        rows = [of_rank for of_rank, _ in shares]
        columns = (
            [getattr(scores, each.name) for _, scores in shares] for each in fields(PolicyOutputs)
        )
        return PolicyOutputs(*(in_order(rows, column) for column in columns))


class PolicyGroup:
    """All ranks of the policy as one object.

    Every method that waits raises PoolError ``actors_lost`` when a rank is gone: a rank's part of the optimizer is gone
    with it, so the group cannot be mended, only started again from a training state.

    Args:
        config: uses ``ppo`` and ``threads``.
        checkpoint_dir: the model that training starts from; must be readable on every node.
        placement_group: reservation that holds the ranks' bundles, or None.
        first_bundle: index of the first rank's bundle; the others follow it. None: any bundle that fits.
    """

    def __init__(
        self,
        config: Config,
        checkpoint_dir: Path,
        placement_group: PlacementGroup | None = None,
        *,
        first_bundle: int | None = None,
    ):
        remote: Any = ray.remote(PolicyWorker)
        self._workers: list[ActorHandle] = []
        for rank in range(config.ppo.workers):
            index = -1 if first_bundle is None else first_bundle + rank
            options = actor_options(policy_bundle(config.ppo), placement_group, index)
            options["runtime_env"] = {"env_vars": _environment(config)}
            self._workers.append(
                remote.options(**options).remote(config, Path(checkpoint_dir), rank)
            )
        self._timeout = config.ppo.timeout_s
        self._started = self._start()

    def start(self) -> None:
        """Wait until every rank has joined and loaded the model."""
        self.wait(self._started)

    def log_probs(self, rollout: ray.ObjectRef) -> PendingScores:
        """Start scoring a rollout (a reference to :class:`Rollout`): one forward without gradient."""
        return PendingScores(
            [worker.log_probs.remote(rollout) for worker in self._workers], self.wait
        )

    def reference_log_probs(self, rollout: ray.ObjectRef) -> list[ray.ObjectRef]:
        """Start scoring a rollout with the adapters off: see :class:`actors.reference.AdapterReference`."""
        return [worker.reference_log_probs.remote(rollout) for worker in self._workers]

    def update(self, experience: Experience, *, seed: int, learning_rate: float) -> UpdateReport:
        """Optimizer steps over the experience; ``seed`` orders its minibatches; at ``learning_rate`` 0 only the critic
        learns."""
        return UpdateReport.of(self._call("update", ray.put(experience), seed, learning_rate))

    def state(self, share: float = 1.0, *, decoder: bool = True) -> tuple[ray.ObjectRef, str]:
        """All weights (see :func:`lmrrg.model.checkpoint.full_state`) as a :class:`StoredState`, and their checksum.

        With a ``share`` below 1 the rest is the SFT model's (:func:`lmrrg.ppo.mixture.mix`).
        It is good until the next but one: in memory of the node where the cluster has one, in the object store, which
        takes it to every other node once, where there are more.
        """
        parts = self._states(share, decoder)
        checksums = self.wait([checksum for _, checksum in parts])
        return parts[0][0], checksums[0]

    def start_state(self) -> tuple[ray.ObjectRef, ray.ObjectRef]:
        """All weights and their checksum as :meth:`state` gives them, as soon as the ranks come to it."""
        state, checksum = self._states(1.0, decoder=True)[0]
        return state, checksum

    def transfer(self, engines: list[ActorHandle]) -> int | None:
        """Send the decoder to the engines from GPU to GPU (``rollout.weight_transfer``).

        Returns:
            The checksum of what was sent; None when an engine was lost, after which nothing is known of the others.
        """
        address: ray.ObjectRef = self._workers[0].address.remote()
        return self._call("transfer", engines, address)[0]

    def save(self, directory: Path) -> None:
        """Write the training state; ``directory`` must be shared by the nodes."""
        self._call("save", directory)

    def load(self, directory: Path) -> None:
        """Continue from a training state.

        Raises:
            PPOError: there is none of this layout.
        """
        self._call("load", directory)

    def save_model(self, directory: Path, extra: Mapping[str, Any], share: float = 1.0) -> None:
        """Write a model directory, with ``extra`` as provenance; ``share`` as in :meth:`state`."""
        self._call("save_model", directory, extra, share)

    def close(self) -> None:
        """Stop the ranks."""
        for worker in self._workers:
            ray.kill(worker)

    def _start(self) -> list[ray.ObjectRef]:
        master: ray.ObjectRef = self._workers[0].address.remote()
        return [worker.start.remote(master) for worker in self._workers]

    def _states(self, share: float, decoder: bool) -> list[list[ray.ObjectRef]]:
        shared = sum(node["Alive"] for node in ray.nodes()) == 1
        return [
            worker.state.options(num_returns=2).remote(shared, share, decoder)
            for worker in self._workers
        ]

    def _call(self, method: str, *arguments: Any) -> list[Any]:
        return self.wait([getattr(worker, method).remote(*arguments) for worker in self._workers])

    def wait(self, calls: Sequence[ray.ObjectRef]) -> list[Any]:
        """Results of calls that the ranks are working on.

        Raises:
            PoolError: ``actors_lost``.
        """
        return results("policy", self._workers, calls, self._timeout)


def policy_bundle(ppo: PPOConfig) -> dict[str, float]:
    """What one rank asks of the cluster."""
    return bundle(ppo.cpus_per_worker, ppo.gpus_per_worker)


def _environment(config: Config) -> dict[str, str]:
    gpus = config.ppo.gpus_per_worker
    return torch_environment(config.threads, gpus) | deepspeed_environment(config.threads, gpus)
