"""Scoring sampled reports: scorers as supervised Ray actors, and the pool that streams chunks through them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
from ray.actor import ActorHandle
from ray.util.placement_group import PlacementGroup

from actors.actor_pool import ActorPool, Supervised, spawn
from actors.placement import actor_options, bundle
from lmrrg.config.reward import RewardConfig
from lmrrg.config.tree import Config
from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.reward import RadCliQReward, RewardScores


class RewardActor(Supervised):
    """One scorer with its own backend."""

    def __init__(self, reward: RewardConfig):
        self._scorer = RadCliQReward(reward)

    def score(
        self,
        reports: list[str],
        references: list[str],
        token_ids: list[list[int]] | None,
        finished: list[bool],
    ) -> RewardScores:
        """Scores of one chunk; see :meth:`lmrrg.metrics.reward.RadCliQReward.score`."""
        return self._scorer.score(reports, references, token_ids, finished)


class RewardPool:
    """The scorers of a run.

    A report that the backend cannot score comes back with ``valid`` False and a reward of NaN, so that the caller must
    mask it; a scorer that dies is replaced and its chunk scored again. Nothing is ever replaced by a reward of 0.

    Args:
        config: uses ``reward``.
        placement_group: reservation that holds the scorers' bundles, or None.
        first_bundle: index of the first scorer's bundle; the others follow it. None: any bundle that fits.
    """

    def __init__(
        self,
        config: Config,
        placement_group: PlacementGroup | None = None,
        *,
        first_bundle: int | None = None,
    ):
        self._reward = config.reward

        def create(place: int) -> ActorHandle:
            index = -1 if first_bundle is None else first_bundle + place
            options = actor_options(reward_bundle(config.reward), placement_group, index)
            # Ray lets an actor that asked for no GPU see all of them.
            hidden = {} if config.reward.gpus_per_scorer else {"CUDA_VISIBLE_DEVICES": ""}
            options["runtime_env"] = {
                "env_vars": {"OMP_NUM_THREADS": str(config.threads), **hidden}
            }
            return spawn(RewardActor, options, config.reward)

        self._pool = ActorPool(
            "reward scorers", create, config.reward.scorers, timeout=config.reward.timeout_s
        )

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
            return RewardScores(
                **{f.name: np.zeros(0, bool if f.name == "valid" else float) for f in _FIELDS}
            )
        spans = [
            slice(start, start + self._reward.chunk)
            for start in range(0, len(reports), self._reward.chunk)
        ]
        calls = [
            (
                "score",
                {
                    "reports": list(reports[span]),
                    "references": list(references[span]),
                    "token_ids": None if token_ids is None else list(token_ids[span]),
                    "finished": list(finished[span]),
                },
            )
            for span in spans
        ]
        return joined(
            [scores for _, scores in sorted(self._pool.map(calls), key=lambda item: item[0])]
        )

    def metrics(self) -> dict[str, float]:
        """Size of the pool, scorers that are ready, scorers replaced so far."""
        return {
            "scorers": self._pool.size,
            "scorers_ready": self._pool.ready,
            "scorers_replaced": self._pool.replaced,
        }

    def actors(self) -> list[ActorHandle]:
        """The handles of the scorers' actors."""
        return self._pool.actors()

    def close(self) -> None:
        """Stop the scorers."""
        self._pool.close()


def joined(parts: Sequence[RewardScores]) -> RewardScores:
    """The scores of consecutive reports, of which each part holds some."""
    return RewardScores(
        **{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in _FIELDS}
    )


def reward_bundle(reward: RewardConfig) -> dict[str, float]:
    """What one scorer asks of the cluster."""
    return bundle(reward.cpus_per_scorer, reward.gpus_per_scorer)


_FIELDS = fields(RewardScores)
