"""All actors of a PPO run, placed together."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ray.util.placement_group import PlacementGroup, remove_placement_group

from actors.placement import preflight
from actors.policy import PolicyGroup, policy_bundle
from actors.reference import Reference, reference_bundle
from actors.reward import RewardPool, reward_bundle
from actors.rollout import RolloutPool, rollout_bundle
from lmrrg.config import Config


@dataclass(frozen=True)
class Crew:
    """Who does what: the policy learns, the reference stays, the engines write, the scorers judge."""

    policy: PolicyGroup
    reference: Reference
    rollouts: RolloutPool
    rewards: RewardPool
    placement: PlacementGroup

    @classmethod
    def start(cls, config: Config, sft_checkpoint: Path) -> Crew:
        """Reserve resources for all, start all at once, wait until each is ready; none stays when one fails.

        Raises:
            PlacementError: the cluster is too small.
            PoolError: an engine or a scorer does not start.
        """
        ppo = config.ppo
        bundles = [
            *[policy_bundle(ppo)] * ppo.workers,
            reference_bundle(ppo),
            *[rollout_bundle(config.rollout)] * config.rollout.engines,
            *[reward_bundle(config.reward)] * config.reward.scorers,
        ]
        first_engine = ppo.workers + 1
        first_scorer = first_engine + config.rollout.engines
        placement = preflight(bundles, config.ray.preflight_timeout_s)
        crew = cls(
            policy=PolicyGroup(config, sft_checkpoint, placement, first_bundle=0),
            reference=Reference(config, sft_checkpoint, placement, bundle_index=ppo.workers),
            rollouts=RolloutPool(config, sft_checkpoint, placement, first_bundle=first_engine),
            rewards=RewardPool(config, placement, first_bundle=first_scorer),
            placement=placement,
        )
        with ExitStack() as undo:
            undo.callback(crew.close)
            for member in (crew.policy, crew.reference, crew.rollouts, crew.rewards):
                member.start()
            undo.pop_all()
        return crew

    def close(self) -> None:
        """Stop every actor and give the resources back."""
        for member in (self.policy, self.reference, self.rollouts, self.rewards):
            member.close()
        remove_placement_group(self.placement)
