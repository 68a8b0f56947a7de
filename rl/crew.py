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
from actors.weight_sync.host_memory import Transferred
from lmrrg.config.tree import Config


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

    def sync(self, version: int, share: float = 1.0) -> None:
        """Give the policy's weights, mixed with the SFT model's where ``share`` is below 1, to every engine.

        What goes from GPU to GPU is copied to the host all the same, for engines that have to be replaced; nobody waits
        for that copy, which is made while reports are written.
        """
        if not self.rollouts.transfers or share < 1:  # a mixture is made on the host
            state, checksum = self.policy.state(share)
            self.rollouts.sync(state, version, checksum)
            return
        # One that is still starting would get steps of the transfer and the state that it starts with in any order.
        self.rollouts.start()
        sent = self.policy.transfer(self.rollouts.actors())
        if sent is None:
            self.rollouts.renew("an engine was lost while weights were sent")
        state, checksum = self.policy.state(decoder=False)
        self.rollouts.sync(state, version, checksum, Transferred(sent, *self.policy.start_state()))

    def close(self) -> None:
        """Stop every actor and give the resources back."""
        for member in (self.policy, self.reference, self.rollouts, self.rewards):
            member.close()
        remove_placement_group(self.placement)
