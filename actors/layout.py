"""Assign the bundles of one reservation to the actors of a PPO run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from actors.placement import Bundle
from actors.policy import policy_bundle
from actors.reference import reference_bundle
from actors.reward import reward_bundle
from actors.rollout import rollout_bundle
from lmrrg.config.ppo import PPOConfig
from lmrrg.config.reward import RewardConfig
from lmrrg.config.rollout import RolloutConfig


@dataclass(frozen=True)
class Layout:
    """The bundles to reserve together, and where those of each kind of actor begin.

    The actors of a kind take consecutive bundles from the index of their kind.
    """

    bundles: list[dict[str, float]]
    policy: int
    reference: int
    rollouts: int
    rewards: int

    @classmethod
    def of(
        cls,
        placement: Literal["split", "colocated"],
        ppo: PPOConfig,
        rollout: RolloutConfig,
        reward: RewardConfig,
        *,
        own_reference: bool,
    ) -> Layout:
        """Return the layout of a run (ours).

        Args:
            placement: ``split`` gives every actor a bundle of its own; ``colocated`` puts a policy
                rank, a copy of the reference and an engine on the same GPUs.
            ppo: ranks and copies of the reference.
            rollout: engines.
            reward: scorers; each has a bundle of its own in either layout.
            own_reference: the policy without its adapters is the reference
                (:class:`actors.reference.AdapterReference`), so that there are no copies.
        """
        copies = 0 if own_reference else ppo.reference_workers
        policy_ranks = [policy_bundle(ppo)] * ppo.workers
        references = [reference_bundle(ppo)] * copies
        engines = [rollout_bundle(rollout)] * rollout.engines
        scorers = [reward_bundle(reward)] * reward.scorers
        if placement == "split":
            rollouts = len(policy_ranks) + len(references)
            return cls(
                bundles=[*policy_ranks, *references, *engines, *scorers],
                policy=0,
                reference=len(policy_ranks),
                rollouts=rollouts,
                rewards=rollouts + len(engines),
            )
        shared = _colocated([policy_ranks, references, engines])
        return cls(
            bundles=[*shared, *scorers], policy=0, reference=0, rollouts=0, rewards=len(shared)
        )


def _colocated(kinds: Sequence[Sequence[Bundle]]) -> list[dict[str, float]]:
    """Return bundles of which the k-th holds the k-th actor of every kind that has so many."""
    longest = max(len(actors) for actors in kinds)
    bundles = []
    for number in range(longest):
        neighbours = [actors[number] for actors in kinds if number < len(actors)]
        bundles.append(_merged(neighbours))
    return bundles


def _merged(bundles: Sequence[Bundle]) -> dict[str, float]:
    """Return one bundle for several actors: the sum of their resources, in whole GPUs."""
    total: Counter[str] = Counter()
    for each in bundles:
        total.update(each)
    merged: dict[str, float] = dict(total)
    if "GPU" in merged:
        # Whole GPUs, so that all actors of a bundle see the same one. The tolerance keeps the
        # rounded sum of three thirds from becoming two GPUs.
        merged["GPU"] = math.ceil(merged["GPU"] - 1e-6)
    return merged
