"""Sampling reports: vLLM engines as supervised Ray actors, and the pool that feeds them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.util.placement_group import PlacementGroup

from actors.actor_pool import ActorPool, Supervised, spawn
from actors.placement import actor_options, bundle, torch_environment
from actors.weight_sync.host_memory import StoredState, Transferred, WeightVersion
from lmrrg.config.rollout import RolloutConfig
from lmrrg.config.tree import Config
from lmrrg.engine.interfaces import EngineError, GeneratedReport
from lmrrg.engine.report_engine import ReportEngine, study_seeds
from lmrrg.engine.vllm_settings import engine_environment
from lmrrg.vision.study_features import StudyFeatures


class RolloutActor(Supervised):
    """One engine. Loads the checkpoint when it starts; newer weights come with ``update_weights``."""

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
        """The version of the weights, and ``samples`` reports for each study; ``seeds`` holds one per study."""
        reports = self._engine.generate(
            features, prompts, samples=samples, temperature=temperature, seed=seeds
        )
        return self._engine.version, reports

    def update_weights(
        self,
        state: StoredState,
        version: int,
        checksum: str,
        transferred: Transferred | None = None,
    ) -> float:
        """Load a newer state; returns the seconds it took. The version that is loaded already is left as it is.

        With ``transferred``, ``state`` is what is to be loaded beside it; an engine that got nothing loads the whole.
        """
        started = time.perf_counter()
        if version != self._engine.version:
            received = self._engine.received() if transferred else None
            if transferred and received is None:
                state, checksum = transferred.whole()
            elif transferred and received != transferred.checksum:
                raise EngineError(
                    "checksum", f"the decoder of version {version} was damaged on its way"
                )
            self._engine.update_weights(
                state.tensors(), version, checksum, transferred=received is not None
            )
        return time.perf_counter() - started

    def transfer(self, step: str, request: dict[str, Any] | None) -> None:
        """One step of a transfer of weights: see :meth:`lmrrg.engine.report_engine.ReportEngine.transfer`."""
        self._engine.transfer(step, request)


class RolloutPool:
    """The engines of a run: samples reports in chunks of studies, and keeps every engine at the same weights.

    Results depend on the seed and the weights, not on the number of engines or on who dies meanwhile.

    Args:
        config: uses ``rollout``, ``seed`` and ``threads``.
        checkpoint_dir: the model that the engines start with; must be readable on every node.
        placement_group: reservation that holds the engines' bundles, or None.
        first_bundle: index of the first engine's bundle; the others follow it. None: any bundle that fits.
    """

    def __init__(
        self,
        config: Config,
        checkpoint_dir: Path,
        placement_group: PlacementGroup | None = None,
        *,
        first_bundle: int | None = None,
    ):
        self._config = config
        self.version = 0
        """Version of the weights that every engine holds; 0 is the checkpoint itself."""
        self._published: WeightVersion | None = None
        rollout = config.rollout

        def create(place: int) -> ActorHandle:
            index = -1 if first_bundle is None else first_bundle + place
            options = actor_options(rollout_bundle(rollout), placement_group, index)
            gpus = rollout.gpus_per_engine
            env = torch_environment(config.threads, gpus) | engine_environment(
                config.threads, gpu=gpus > 0
            )
            options["runtime_env"] = {"env_vars": env}
            return spawn(
                RolloutActor, options, str(checkpoint_dir), rollout, config.seed, config.threads
            )

        self._pool = ActorPool(
            "rollout engines",
            create,
            rollout.engines,
            timeout=rollout.timeout_s,
            start_timeout=rollout.start_timeout_s,
        )

    @property
    def transfers(self) -> bool:
        """Whether the decoder's new weights come from GPU to GPU (``rollout.weight_transfer``)."""
        return self._config.rollout.weight_transfer != "memory"

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
            finished: called with the places of those studies and their reports, while others are being written.

        Raises:
            PoolError: no engine could do it, or an engine that does not hold the current weights answered.
        """
        temperature = self._config.rollout.temperature if temperature is None else temperature
        seeds = study_seeds(seed, len(prompts))
        rollout = self._config.rollout
        chunks = study_chunks(len(prompts), samples, rollout.engines, rollout.max_sequences)
        calls = [
            (
                "generate",
                {
                    "features": features.select(chunk),
                    "prompts": [prompts[i] for i in chunk],
                    "samples": samples,
                    "temperature": temperature,
                    "seeds": [seeds[i] for i in chunk],
                },
            )
            for chunk in chunks
        ]
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

    def sync(
        self,
        state: ray.ObjectRef,
        version: int,
        checksum: str,
        transferred: Transferred | None = None,
    ) -> float:
        """Bring every engine, and every later replacement, to ``state`` (a reference to a
        :class:`actors.weight_sync.host_memory.StoredState`), with what was ``transferred`` before.

        Returns:
            Seconds until the last engine holds it.

        Raises:
            PoolError: an engine refuses the state, or none is left.
        """
        started = time.perf_counter()
        published = WeightVersion(version, checksum, state, transferred)
        self._pool.broadcast(("update_weights", published.arguments()))
        # Kept until the next version: a replacement loads it from the object store.
        self._published, self.version = published, version
        return time.perf_counter() - started

    def renew(self, reason: str) -> None:
        """Replace every engine; they start with the weights of the last :meth:`sync`."""
        self._pool.renew(reason)

    def metrics(self) -> dict[str, float]:
        """Size of the pool, engines that are ready, engines replaced so far."""
        return {
            "engines": self._pool.size,
            "engines_ready": self._pool.ready,
            "engines_replaced": self._pool.replaced,
        }

    def actors(self) -> list[Any]:
        """The handles of the engines' actors."""
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
    """Places of the studies of each call: as many as fill an engine's slots, and work for every engine."""
    size = max(1, min(slots // samples, -(-studies // engines)))
    return [list(range(start, min(start + size, studies))) for start in range(0, studies, size)]


def rollout_bundle(rollout: RolloutConfig) -> dict[str, float]:
    """What one engine asks of the cluster."""
    return bundle(rollout.cpus_per_engine, rollout.gpus_per_engine)
