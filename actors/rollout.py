"""Sample reports: vLLM engines as supervised Ray actors, and the pool that feeds them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ray.actor import ActorHandle
from ray.util.placement_group import PlacementGroup

from actors.actor_pool import ActorPool, Call, Supervised, spawn
from actors.placement import actor_options, bundle, bundle_index, torch_environment
from actors.weight_sync.engine_side import load_update
from actors.weight_sync.host_memory import StoredState
from actors.weight_sync.update import SentDecoder, WeightUpdate
from lmrrg.config.rollout import RolloutConfig
from lmrrg.engine.interfaces import GeneratedReport
from lmrrg.engine.report_engine import ReportEngine, study_seeds
from lmrrg.engine.vllm_settings import engine_environment
from lmrrg.vision.study_features import StudyFeatures


class RolloutActor(Supervised):
    """One engine. It loads the checkpoint when it starts, newer weights by ``update_weights``."""

    def __init__(self, checkpoint_dir: str, rollout: RolloutConfig, seed: int, threads: int):
        self._engine = ReportEngine(checkpoint_dir, rollout, seed=seed, threads=threads)

    def generate(
        self,
        features: StudyFeatures,
        prompts: list[list[int]],
        samples: int,
        temperature: float,
        seeds: list[int],
    ) -> tuple[int, list[list[GeneratedReport]]]:
        """Generate ``samples`` reports for each study; ``seeds`` holds one seed per study.

        Returns:
            The version of the weights that wrote them, and the reports.
        """
        reports = self._engine.generate(
            features, prompts, samples=samples, temperature=temperature, seed=seeds
        )
        return self._engine.version, reports

    def update_weights(
        self,
        state: StoredState,
        version: int,
        checksum: str,
        sent: SentDecoder | None = None,
    ) -> float:
        """Load a newer version; return the seconds it took.

        The arguments are those of :func:`actors.weight_sync.engine_side.load_update`.
        """
        started = time.perf_counter()
        load_update(self._engine, state, version, checksum, sent)
        return time.perf_counter() - started

    def transfer(self, step: str, request: dict[str, Any] | None) -> None:
        """Take one step of a GPU transfer.

        See :meth:`lmrrg.engine.report_engine.ReportEngine.transfer`.
        """
        self._engine.transfer(step, request)


class RolloutPool:
    """The engines of a run: they sample reports in chunks of studies, all with the same weights.

    Results depend on the seed and the weights. They do not depend on the number of engines, or on
    which of them die meanwhile.

    Args:
        rollout: engines, their resources, lengths, temperature and longest waits.
        checkpoint_dir: the model that the engines start with; must be readable on every node.
        placement_group: reservation that holds the engines' bundles, or None.
        seed: of the engines; every call to :meth:`generate` has a seed of its own.
        threads: torch threads of an engine on CPU.
        first_bundle: index of the first engine's bundle; the others follow it. None: any bundle
            that fits.
    """

    def __init__(
        self,
        rollout: RolloutConfig,
        checkpoint_dir: Path,
        placement_group: PlacementGroup | None = None,
        *,
        seed: int,
        threads: int,
        first_bundle: int | None = None,
    ):
        self._rollout = rollout
        self.version = 0
        """Version of the weights that every engine holds; 0 is the checkpoint itself."""
        self._update: WeightUpdate | None = None
        gpus = rollout.gpus_per_engine
        environment = torch_environment(threads, gpus) | engine_environment(threads, gpu=gpus > 0)

        def create(slot: int) -> ActorHandle:
            options = actor_options(
                rollout_bundle(rollout), placement_group, bundle_index(first_bundle, slot)
            )
            options["runtime_env"] = {"env_vars": environment}
            return spawn(RolloutActor, options, str(checkpoint_dir), rollout, seed, threads)

        self._pool = ActorPool(
            "rollout engines",
            create,
            rollout.engines,
            timeout=rollout.timeout_s,
            start_timeout=rollout.start_timeout_s,
        )

    @property
    def uses_gpu_transfer(self) -> bool:
        """Return whether new weights of the decoder come from GPU to GPU."""
        return self._rollout.weight_transfer != "memory"

    def start(self) -> None:
        """Wait until every engine has loaded the model.

        Raises:
            PoolError: an engine cannot start.
        """
        self._pool.wait_ready()

    def generate(
        self,
        features: StudyFeatures,
        prompts: Sequence[list[int]],
        samples: int,
        seed: int,
        *,
        temperature: float | None = None,
        progress: Callable[[int], object] | None = None,
        finished: Callable[[list[int], list[list[GeneratedReport]]], object] | None = None,
    ) -> list[list[GeneratedReport]]:
        """Sample ``samples`` reports for each study.

        Args:
            features: of N studies.
            prompts: N prompts, token ids.
            samples: reports per study.
            seed: of this call; the same seed and weights give the same reports.
            temperature: default ``rollout.temperature``; 0 is greedy.
            progress: called with the number of studies of each finished chunk.
            finished: called with the indices of those studies and their reports, while others are
                being written.

        Raises:
            PoolError: no engine could do it.
            RuntimeError: an engine that does not hold the current weights answered.
        """
        rollout = self._rollout
        temperature = rollout.temperature if temperature is None else temperature
        seeds = study_seeds(seed, len(prompts))
        chunks = study_chunks(len(prompts), samples, rollout.engines, rollout.max_sequences)
        calls: list[Call] = []
        for chunk in chunks:
            arguments = {
                "features": features.select(chunk),
                "prompts": [prompts[i] for i in chunk],
                "samples": samples,
                "temperature": temperature,
                "seeds": [seeds[i] for i in chunk],
            }
            calls.append(("generate", arguments))
        results: list[list[GeneratedReport]] = [[] for _ in prompts]
        for index, (version, reports) in self._pool.map(calls):
            self._check_version(version)
            for study, study_reports in zip(chunks[index], reports, strict=True):
                results[study] = study_reports
            if progress:
                progress(len(chunks[index]))
            if finished:
                finished(chunks[index], reports)
        return results

    def load_weights(self, update: WeightUpdate) -> float:
        """Bring every engine, and every later replacement, to a new version of the weights.

        Returns:
            Seconds until the last engine holds it.

        Raises:
            PoolError: an engine refuses the weights, or none is left.
        """
        started = time.perf_counter()
        self._pool.broadcast(("update_weights", update.arguments()))
        # Kept until the next version, so that Ray keeps the state that a replacement loads.
        self._update = update
        self.version = update.version
        return time.perf_counter() - started

    def renew(self, reason: str) -> None:
        """Replace every engine; they start with the weights of the last :meth:`load_weights`."""
        self._pool.renew(reason)

    def metrics(self) -> dict[str, float]:
        """Return the size of the pool, the engines that are ready and those replaced so far."""
        return {
            "engines": self._pool.size,
            "engines_ready": self._pool.ready,
            "engines_replaced": self._pool.replaced,
        }

    def actors(self) -> list[Any]:
        """Return the handles of the engines' actors."""
        return self._pool.actors()

    def close(self) -> None:
        """Stop the engines."""
        self._pool.close()

    def _check_version(self, version: int) -> None:
        if version != self.version:
            raise RuntimeError(
                f"an engine answered with weights {version}, the pool is at {self.version}"
            )


def study_chunks(studies: int, samples: int, engines: int, slots: int) -> list[list[int]]:
    """Divide the studies into calls: as many in each as fill an engine, and work for every engine.

    Args:
        studies: their number.
        samples: reports per study.
        engines: number of engines.
        slots: sequences that an engine decodes at once.

    Returns:
        The indices of the studies of each call.
    """
    size = max(1, min(slots // samples, -(-studies // engines)))
    return [list(range(start, min(start + size, studies))) for start in range(0, studies, size)]


def rollout_bundle(rollout: RolloutConfig) -> dict[str, float]:
    """Return the resources of one engine."""
    return bundle(rollout.cpus_per_engine, rollout.gpus_per_engine)
