"""All actors of a PPO run, placed and started together."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ray.util.placement_group import PlacementGroup, remove_placement_group

from actors.layout import Layout
from actors.placement import preflight
from actors.policy import PolicyGroup
from actors.policy_worker import PolicySettings
from actors.reference import AdapterReference, Reference
from actors.reward import RewardPool
from actors.rollout import RolloutPool
from actors.weight_sync.sync import WeightSync
from lmrrg.config.tree import Config
from lmrrg.run.layout import RunLayout


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
        layout = crew_layout(config)
        placement = preflight(layout.bundles, config.ray.preflight_timeout_s)
        policy = PolicyGroup(
            policy_settings(config), sft_checkpoint, placement, first_bundle=layout.policy
        )
        reference: Reference | AdapterReference = AdapterReference(policy)
        if not config.is_own_reference:
            reference = Reference(
                config.ppo,
                sft_checkpoint,
                placement,
                threads=config.threads,
                first_bundle=layout.reference,
            )
        rollouts = RolloutPool(
            config.rollout,
            sft_checkpoint,
            placement,
            seed=config.seed,
            threads=config.threads,
            first_bundle=layout.rollouts,
        )
        rewards = RewardPool(
            config.reward, placement, threads=config.threads, first_bundle=layout.rewards
        )
        crew = cls(
            policy=policy,
            reference=reference,
            rollouts=rollouts,
            rewards=rewards,
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

        Args:
            version: of the new weights.
            fraction: of the policy in them; below 1 they are a mixture.
        """
        WeightSync(self.policy, self.rollouts).sync(version, fraction)

    def close(self) -> None:
        """Stop every actor and give the resources back."""
        for member in (self.policy, self.reference, self.rollouts, self.rewards):
            member.close()
        remove_placement_group(self.placement)


def policy_settings(config: Config) -> PolicySettings:
    """Return the branches of the settings that the policy uses."""
    return PolicySettings(
        ppo=config.ppo,
        rollout=config.rollout,
        decoder=config.model.decoder,
        seed=config.seed,
        threads=config.threads,
        files=RunLayout(config.run_dir),
    )


def crew_layout(config: Config) -> Layout:
    """Return the bundles that the actors of a run reserve."""
    return Layout.of(
        config.ray.placement,
        config.ppo,
        config.rollout,
        config.reward,
        own_reference=config.is_own_reference,
    )
