"""Drive the policy: DeepSpeed ranks as Ray actors that score and train the report generator."""

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
from actors.placement import actor_options, bundle, bundle_index, torch_environment
from actors.policy_worker import PolicySettings, PolicyWorker
from lmrrg.config.ppo import PPOConfig
from lmrrg.policy.batches import Experience, PolicyOutputs, in_order
from lmrrg.policy.update_report import UpdateReport


@dataclass(frozen=True)
class PendingOutputs:
    """Outputs that the ranks are computing."""

    calls: list[ray.ObjectRef]
    wait: Callable[[list[ray.ObjectRef]], list[tuple[Tensor, PolicyOutputs]]]

    def result(self) -> PolicyOutputs:
        """Wait for the outputs [B, T], in the order of the rollout.

        Raises:
            PoolError: ``actors_lost``.
        """
        parts = self.wait(self.calls)
        rows = [of_rank for of_rank, _ in parts]
        columns: list[Tensor] = []
        for column in fields(PolicyOutputs):
            of_ranks = [getattr(outputs, column.name) for _, outputs in parts]
            columns.append(in_order(rows, of_ranks))
        return PolicyOutputs(*columns)


class PolicyGroup:
    """All ranks of the policy as one object.

    Every method that waits raises PoolError ``actors_lost`` when a rank is gone. A part of the
    optimizer is gone with it, so the group cannot be mended, only started again from a training
    state.

    Args:
        settings: of the run.
        checkpoint_dir: the model that training starts from; must be readable on every node.
        placement_group: reservation that holds the ranks' bundles, or None.
        first_bundle: index of the first rank's bundle; the others follow it. None: any bundle that
            fits.
    """

    def __init__(
        self,
        settings: PolicySettings,
        checkpoint_dir: Path,
        placement_group: PlacementGroup | None = None,
        *,
        first_bundle: int | None = None,
    ):
        remote: Any = ray.remote(PolicyWorker)
        ppo = settings.ppo
        self._workers: list[ActorHandle] = []
        for rank in range(ppo.workers):
            options = actor_options(
                policy_bundle(ppo), placement_group, bundle_index(first_bundle, rank)
            )
            environment = _environment(settings.threads, ppo.gpus_per_worker)
            options["runtime_env"] = {"env_vars": environment}
            worker = remote.options(**options).remote(settings, Path(checkpoint_dir), rank)
            self._workers.append(worker)
        self._timeout = ppo.timeout_s
        self._started = self._start()

    def start(self) -> None:
        """Wait until every rank has joined and loaded the model."""
        self.wait(self._started)

    def log_probs(self, rollout: ray.ObjectRef) -> PendingOutputs:
        """Start one forward without gradient over a rollout (a reference to :class:`Rollout`)."""
        calls: list[ray.ObjectRef] = [worker.log_probs.remote(rollout) for worker in self._workers]
        return PendingOutputs(calls, self.wait)

    def reference_log_probs(self, rollout: ray.ObjectRef) -> list[ray.ObjectRef]:
        """Start a forward with the adapters off: :class:`actors.reference.AdapterReference`."""
        return [worker.reference_log_probs.remote(rollout) for worker in self._workers]

    def update(self, experience: Experience, *, seed: int, learning_rate: float) -> UpdateReport:
        """Take optimizer steps over the experience.

        Args:
            experience: of the whole rollout.
            seed: orders its minibatches.
            learning_rate: of the policy; at 0 only the critic learns.
        """
        return UpdateReport.of(self._call("update", ray.put(experience), seed, learning_rate))

    def state(
        self, policy_fraction: float = 1.0, *, decoder: bool = True
    ) -> tuple[ray.ObjectRef, str]:
        """Write the weights into host memory.

        Valid until the second-next call, since two buffers alternate.

        Args:
            policy_fraction: below 1 the weights are a mixture with the SFT model
                (:func:`lmrrg.ppo.mixture.mix`).
            decoder: whether the decoder is wanted, or only what is beside it.

        Returns:
            A reference to a :class:`StoredState`, and the checksum of its weights
            (:func:`lmrrg.model.checkpoint.full_state`).
        """
        calls = self._begin_states(policy_fraction, decoder)
        checksums = self.wait([checksum for _, checksum in calls])
        # Rank 0 alone writes the state; the others only help to gather it.
        state, _ = calls[0]
        return state, checksums[0]

    def begin_state(self) -> tuple[ray.ObjectRef, ray.ObjectRef]:
        """Start writing all weights as :meth:`state` does, and do not wait for them."""
        state, checksum = self._begin_states(1.0, decoder=True)[0]
        return state, checksum

    def send_decoder(self, engines: list[ActorHandle]) -> int | None:
        """Send the decoder to the engines from GPU to GPU (``rollout.weight_transfer``).

        Returns:
            The checksum of what was sent; None when an engine was lost, after which the state of
            the others is unknown.
        """
        address: ray.ObjectRef = self._workers[0].address.remote()
        return self._call("send_decoder", engines, address)[0]

    def save(self, directory: Path) -> None:
        """Write the training state; ``directory`` must be shared by the nodes."""
        self._call("save", directory)

    def load(self, directory: Path) -> None:
        """Continue from a training state.

        Raises:
            PPOError: there is none of this layout.
        """
        self._call("load", directory)

    def save_model(
        self, directory: Path, provenance: Mapping[str, Any], policy_fraction: float = 1.0
    ) -> None:
        """Write a model directory; ``policy_fraction`` as in :meth:`state`."""
        self._call("save_model", directory, provenance, policy_fraction)

    def close(self) -> None:
        """Stop the ranks."""
        for worker in self._workers:
            ray.kill(worker)

    def _start(self) -> list[ray.ObjectRef]:
        master: ray.ObjectRef = self._workers[0].address.remote()
        return [worker.start.remote(master) for worker in self._workers]

    def _begin_states(self, policy_fraction: float, decoder: bool) -> list[list[ray.ObjectRef]]:
        # With several nodes the object store takes the bytes to every other node once; on one node
        # all processes map the same memory.
        same_node = sum(node["Alive"] for node in ray.nodes()) == 1
        return [
            worker.state.options(num_returns=2).remote(same_node, policy_fraction, decoder)
            for worker in self._workers
        ]

    def _call(self, method: str, *arguments: Any) -> list[Any]:
        return self.wait([getattr(worker, method).remote(*arguments) for worker in self._workers])

    def wait(self, calls: Sequence[ray.ObjectRef]) -> list[Any]:
        """Wait for the results of calls to the ranks.

        Raises:
            PoolError: ``actors_lost``.
        """
        return results("policy", self._workers, calls, self._timeout)


def policy_bundle(ppo: PPOConfig) -> dict[str, float]:
    """Return the resources of one rank."""
    return bundle(ppo.cpus_per_worker, ppo.gpus_per_worker)


def _environment(threads: int, gpus: float) -> dict[str, str]:
    return torch_environment(threads, gpus) | deepspeed_environment(threads, gpus)
