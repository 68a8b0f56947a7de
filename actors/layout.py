"""Who sits where: the reservations of a PPO run and the bundle that each of its actors takes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from actors.placement import Bundle
from actors.policy import policy_bundle
from actors.reference import reference_bundle
from actors.reward import reward_bundle
from actors.rollout import rollout_bundle
from lmrrg.config.tree import Config


@dataclass(frozen=True)
class Layout:
    """Bundles to reserve together, and the index of the first bundle of each kind of actor; the others follow it."""

    bundles: list[dict[str, float]]
    policy: int
    reference: int
    rollouts: int
    rewards: int

    @classmethod
    def of(cls, config: Config) -> Layout:
        """The layout of ``ray.placement`` (ours).

        split: one bundle per actor. colocated: bundle k holds policy rank k, copy k of the reference and engine k, as
        far as there are as many, and asks for a whole GPU, so that all of its actors see the same one; a bundle lies on
        one node. A reference that is the policy without its adapters needs no bundle.
        """
        policy, engine = policy_bundle(config.ppo), rollout_bundle(config.rollout)
        reference, copies = (
            reference_bundle(config.ppo),
            0 if config.is_own_reference else config.ppo.reference_workers,
        )
        ranks, engines = config.ppo.workers, config.rollout.engines
        scorers = [reward_bundle(config.reward)] * config.reward.scorers
        if config.ray.placement == "split":
            bundles = [*[policy] * ranks, *[reference] * copies, *[engine] * engines, *scorers]
            first = ranks + copies
            return cls(bundles, policy=0, reference=ranks, rollouts=first, rewards=first + engines)
        seats = max(ranks, copies, engines)
        shared = [
            _shared(
                [*[policy] * (k < ranks), *[reference] * (k < copies), *[engine] * (k < engines)]
            )
            for k in range(seats)
        ]
        return cls([*shared, *scorers], policy=0, reference=0, rollouts=0, rewards=seats)


def _shared(actors: Iterable[Bundle]) -> dict[str, float]:
    """One bundle for several actors: their CPUs in sum, their shares of a GPU rounded up to a whole one."""
    total: Counter[str] = Counter()
    for each in actors:
        total.update(each)
    return {
        name: math.ceil(amount - 1e-6) if name == "GPU" else amount
        for name, amount in total.items()
    }
