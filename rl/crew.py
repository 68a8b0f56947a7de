"""All actors of a PPO run, placed together."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ray.util.placement_group import PlacementGroup, remove_placement_group

from actors.layout import Layout
from actors.placement import preflight
from actors.policy import PolicyGroup
from actors.reference import AdapterReference, Reference
from actors.reward import RewardPool
from actors.rollout import RolloutPool
from lmrrg.config import Config


@dataclass(frozen=True)
class Crew:
    """Who does what: the policy learns, the reference stays, the engines write, the scorers judge."""

    policy: PolicyGroup
    reference: Reference | AdapterReference
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
        layout = Layout.of(config)
        placement = preflight(layout.bundles, config.ray.preflight_timeout_s)
        policy = PolicyGroup(config, sft_checkpoint, placement, first_bundle=layout.policy)
        crew = cls(
            policy=policy,
            reference=AdapterReference(policy)
            if config.is_own_reference
            else Reference(config, sft_checkpoint, placement, first_bundle=layout.reference),
            rollouts=RolloutPool(config, sft_checkpoint, placement, first_bundle=layout.rollouts),
            rewards=RewardPool(config, placement, first_bundle=layout.rewards),
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
