"""Score sampled reports: scorers as supervised Ray actors, and the pool that feeds them chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
from ray.actor import ActorHandle
from ray.util.placement_group import PlacementGroup

from actors.actor_pool import ActorPool, Call, Supervised, spawn
from actors.placement import actor_options, bundle, bundle_index
from lmrrg.config.reward import RewardConfig
from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.reward import RadCliQReward, RewardScores


class RewardActor(Supervised):
    """One scorer with a metric backend of its own."""

    def __init__(self, reward: RewardConfig):
        self._scorer = RadCliQReward(reward)

    def score(
        self,
        reports: list[str],
        references: list[str],
        token_ids: list[list[int]] | None,
        finished: list[bool],
    ) -> RewardScores:
        """Score one chunk; see :meth:`lmrrg.metrics.reward.RadCliQReward.score`."""
        return self._scorer.score(reports, references, token_ids, finished)


class RewardPool:
    """The scorers of a run.

    A report that the backend cannot score comes back with ``valid`` False and a reward of NaN, so
    that the caller must mask it. A scorer that dies is replaced and its chunk is scored again. No
    failure ever becomes a reward of 0.

    Args:
        reward: scorers, their resources, backend, chunk and longest wait.
        placement_group: reservation that holds the scorers' bundles, or None.
        threads: CPU threads of a scorer.
        first_bundle: index of the first scorer's bundle; the others follow it. None: any bundle
            that fits.
    """

    def __init__(
        self,
        reward: RewardConfig,
        placement_group: PlacementGroup | None = None,
        *,
        threads: int,
        first_bundle: int | None = None,
    ):
        self._reward = reward
        environment = {"OMP_NUM_THREADS": str(threads)}
        if not reward.gpus_per_scorer:
            # Ray lets an actor that asked for no GPU see all of them.
            environment["CUDA_VISIBLE_DEVICES"] = ""

        def create(slot: int) -> ActorHandle:
            options = actor_options(
                reward_bundle(reward), placement_group, bundle_index(first_bundle, slot)
            )
            options["runtime_env"] = {"env_vars": environment}
            return spawn(RewardActor, options, reward)

        self._pool = ActorPool("reward scorers", create, reward.scorers, timeout=reward.timeout_s)

    def start(self) -> None:
        """Wait until every scorer has loaded its backend.

        Raises:
            PoolError: a scorer cannot start.
        """
        self._pool.wait_ready()

    def score(
        self,
        reports: Sequence[str],
        references: Sequence[str],
        token_ids: Sequence[list[int]] | None,
        finished: Sequence[bool],
    ) -> RewardScores:
        """Score N reports in chunks of ``reward.chunk``; arrays [N] in the order of the reports.

        Raises:
            PoolError: no scorer could do it.
            MetricError: the lists differ in length.
        """
        if any(len(each) != len(reports) for each in (references, finished, token_ids or reports)):
            raise MetricError(
                "length_mismatch", "reports, references, token_ids and finished differ in length"
            )
        if not reports:
            return _no_scores()
        calls: list[Call] = []
        for start in range(0, len(reports), self._reward.chunk):
            chunk = slice(start, start + self._reward.chunk)
            arguments = {
                "reports": list(reports[chunk]),
                "references": list(references[chunk]),
                "token_ids": None if token_ids is None else list(token_ids[chunk]),
                "finished": list(finished[chunk]),
            }
            calls.append(("score", arguments))
        # Chunks finish in any order; results are joined in the order of the reports.
        by_index = dict(self._pool.map(calls))
        return joined([by_index[index] for index in range(len(calls))])

    def metrics(self) -> dict[str, float]:
        """Return the size of the pool, the scorers that are ready and those replaced so far."""
        return {
            "scorers": self._pool.size,
            "scorers_ready": self._pool.ready,
            "scorers_replaced": self._pool.replaced,
        }

    def actors(self) -> list[ActorHandle]:
        """Return the handles of the scorers' actors."""
        return self._pool.actors()

    def close(self) -> None:
        """Stop the scorers."""
        self._pool.close()


def joined(parts: Sequence[RewardScores]) -> RewardScores:
    """Join the scores of consecutive chunks."""
    columns: dict[str, np.ndarray] = {}
    for column in fields(RewardScores):
        columns[column.name] = np.concatenate([getattr(part, column.name) for part in parts])
    return RewardScores(**columns)


def _no_scores() -> RewardScores:
    columns: dict[str, np.ndarray] = {}
    for column in fields(RewardScores):
        is_flag = column.name in ("valid", "judge_missing")
        columns[column.name] = np.zeros(0, bool if is_flag else float)
    return RewardScores(**columns)


def reward_bundle(reward: RewardConfig) -> dict[str, float]:
    """Return the resources of one scorer."""
    return bundle(reward.cpus_per_scorer, reward.gpus_per_scorer)
