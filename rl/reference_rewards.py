"""Rewards of the SFT model's own reports on the training studies, for the ``reward`` controller.

Each study that the run will visit gets one report, *sampled* from the SFT weights as the policy's
reports are. A greedy report scores higher than a sample, so it would make the policy look worse
than the reference although both are the same model. All are sampled before the first update, while
the engines still hold the SFT weights; the rewards are part of the checkpoint (**ours**). One
sample is a noisy estimate for one study, but the controller uses the mean over a batch, and the
noise is unbiased.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from actors.reward import RewardPool
from actors.rollout import RolloutPool
from lmrrg.ppo.errors import PPOError
from lmrrg.progress import progress_bar
from rl.study_pool import StudyPool, stream_seed

BLOCK = 256
"""Studies per call of the engines. The block of a study, and its index there, follow from the order
of visits alone, so that a longer or resumed run samples the same reports."""


class ReferenceRewards:
    """Rewards of SFT reports, by the index of the training study.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int):
        self._seed = seed
        self._rewards: dict[int, float] = {}

    def complete(
        self, visits: Sequence[int], studies: StudyPool, rollouts: RolloutPool, rewards: RewardPool
    ) -> None:
        """Sample and score whatever is missing for ``visits``.

        Args:
            visits: indices of studies in the order of the whole run, from its start.
            studies: the training studies.
            rollouts: the engines, with the SFT weights.
            rewards: the scorers.

        Raises:
            PPOError: ``reference_too_late``, the engines hold newer weights.
        """
        order = list(dict.fromkeys(visits))  # each study once, by its first visit
        blocks = [order[start : start + BLOCK] for start in range(0, len(order), BLOCK)]
        missing = [
            number for number, block in enumerate(blocks) if not self._rewards.keys() >= set(block)
        ]
        if missing and rollouts.version:
            raise PPOError(
                "reference_too_late",
                f"the engines hold version {rollouts.version}, not the SFT weights",
            )
        for number in progress_bar(missing, desc="SFT rewards", unit="block", disable=not missing):
            self._score_block(number, blocks[number], studies, rollouts, rewards)

    def of(self, indices: Sequence[int]) -> np.ndarray:
        """Return the rewards [S] of studies; NaN where the SFT report could not be scored.

        Raises:
            PPOError: ``reference_missing``, the run goes on for longer than ``ppo.iterations``.
        """
        if not self._rewards.keys() >= set(indices):
            raise PPOError(
                "reference_missing", "a study beyond the planned ppo.iterations has no SFT reward"
            )
        return np.array([self._rewards[index] for index in indices])

    def state_dict(self) -> list[tuple[int, float | None]]:
        """Return (index, reward) pairs; None where the report could not be scored."""
        # JSON has no NaN.
        return [
            (index, None if np.isnan(reward) else reward) for index, reward in self._rewards.items()
        ]

    def load_state_dict(self, state: Sequence[tuple[int, float | None]]) -> None:
        """Continue from saved rewards."""
        self._rewards = {
            index: float("nan") if reward is None else reward for index, reward in state
        }

    def _score_block(
        self,
        number: int,
        block: list[int],
        studies: StudyPool,
        rollouts: RolloutPool,
        rewards: RewardPool,
    ) -> None:
        batch = studies.take(block)
        seed = stream_seed(self._seed, "reference", number)
        sampled = rollouts.generate(batch.features, batch.prompts, samples=1, seed=seed)
        reports = [of_study[0] for of_study in sampled]
        scores = rewards.score(
            [report.text for report in reports],
            batch.references,
            [report.token_ids for report in reports],
            [report.finished for report in reports],
        )
        for index, reward in zip(block, scores.reward, strict=True):
            # The last block of a shorter run is sampled again as a whole when the run is made
            # longer; a reward that the run has used already must not change.
            self._rewards.setdefault(index, float(reward))
