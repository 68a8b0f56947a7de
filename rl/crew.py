"""All actors of a PPO run, placed and started together."""

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
    """The actors of one run."""

    policy: PolicyGroup
    """The ranks that are trained."""
    reference: Reference | AdapterReference
    """The frozen SFT model."""
    rollouts: RolloutPool
    """The engines that write reports."""
    rewards: RewardPool
    """The scorers."""
    placement: PlacementGroup

    @classmethod
    def start(cls, config: Config, sft_checkpoint: Path) -> Crew:
        """Reserve resources for all actors, start them at once, and wait until each is ready.

        When one fails, all are stopped.

        Raises:
            PlacementError: the cluster is too small.
            PoolError: an engine or a scorer does not start.
        """
        layout = Layout.of(config)
        placement = preflight(layout.bundles, config.ray.preflight_timeout_s)
        policy = PolicyGroup(config, sft_checkpoint, placement, first_bundle=layout.policy)
        reference: Reference | AdapterReference = AdapterReference(policy)
        if not config.is_own_reference:
            reference = Reference(config, sft_checkpoint, placement, first_bundle=layout.reference)
        crew = cls(
            policy=policy,
            reference=reference,
            rollouts=RolloutPool(config, sft_checkpoint, placement, first_bundle=layout.rollouts),
            rewards=RewardPool(config, placement, first_bundle=layout.rewards),
            placement=placement,
        )
        # The actors load their models in parallel since they were created; `start` waits for each.
        with ExitStack() as on_failure:
            on_failure.callback(crew.close)
            for member in (crew.policy, crew.reference, crew.rollouts, crew.rewards):
                member.start()
            on_failure.pop_all()
        return crew

    def sync(self, version: int, fraction: float = 1.0) -> None:
        """Give every engine the policy's weights, or a mixture of them with the SFT model's.

        Weights that go from GPU to GPU are copied to the host all the same, for engines that have
        to be replaced. Nobody waits for that copy; it is made while reports are written.

        Args:
            version: of the new weights.
            fraction: of the policy in them; below 1 they are a mixture.
        """
        if not self.rollouts.transfers or fraction < 1:  # a mixture is made on the host
            state, checksum = self.policy.state(fraction)
            self.rollouts.sync(state, version, checksum)
            return
        # An engine that is still starting would get the steps of the transfer, and the state that
        # it starts with, in any order.
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
