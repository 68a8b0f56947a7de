"""Checks that stop a run whose engines, trainer and SFT model disagree where they must agree.

Three things hold in a correct run. The engines give the same log-probs as the trainer. Before the
first update the policy is the SFT model. Before the first optimizer step of an update, the
probability ratio of new and old policy is 1. A violation means stale weights, another precision, or
a broken forward, and everything learnt from there on would be wrong.
"""

from __future__ import annotations

import ray
import torch
from torch import Tensor

from lmrrg.config.ppo import PPOConfig
from lmrrg.policy.update_report import UpdateReport
from lmrrg.ppo.correction import Parity, parity
from lmrrg.ppo.errors import PPOError
from rl.crew import Crew
from rl.experience import Sample, ScoredBatch, make_sample
from rl.study_pool import StudyPool, StudySampler, stream_seed

LARGEST_FP32 = 1e-4
"""Largest deviation of a token's ratio from 1, or log-ratio from 0, that is float32 rounding."""
MEAN_BF16 = 0.03
"""Largest mean deviation that is bfloat16 rounding. Single tokens are far off there, the more
the larger the model, so only the mean is checked."""
PROBED_REPORTS = 4
"""Fewest reports of a probe; with more policy ranks there is one for each, so that none is idle."""


class ParityChecks:
    """The three checks of one run.

    Args:
        ppo: settings of PPO.
        tolerance: largest mean difference of engine and trainer log-probs, nats.
        seed: of the run.
        studies: the training studies, from which probes are taken.
        sampler: order of the studies.
        crew: policy and engines.
    """

    def __init__(
        self,
        ppo: PPOConfig,
        tolerance: float,
        seed: int,
        studies: StudyPool,
        sampler: StudySampler,
        crew: Crew,
    ):
        self._ppo = ppo
        self._tolerance = tolerance
        self._seed = seed
        self._studies = studies
        self._sampler = sampler
        self._crew = crew
        self._probed_reports = max(PROBED_REPORTS, ppo.workers)

    def probe(self, iteration: int) -> Parity:
        """Return the parity of a few reports that the engines write now.

        It is needed with ``rollout_ahead``, where the reports of the iteration may be of older
        weights than the trainer's. The engines must be idle.
        """
        visits = self._sampler.batch(iteration)[: self._probed_reports]
        batch = self._studies.take(visits)
        samples = -(-self._probed_reports // len(batch.prompts))  # rounded up
        reports = self._crew.rollouts.generate(
            batch.features,
            batch.prompts,
            samples=samples,
            seed=stream_seed(self._seed, "probe", iteration),
        )
        probe = make_sample([], batch, reports, self._crew.rollouts.version)
        return self._parity_of_rows(probe, torch.arange(len(probe.rollout)))

    def engine_parity(self, batch: ScoredBatch) -> Parity:
        """Return how far the engines' log-probs are from the trainer's, nats.

        All reports are compared where the trainer has scored them all; a few, which are scored for
        this purpose, with ``old_log_probs=engine``.
        """
        sample = batch.sample
        if self._ppo.old_log_probs == "trainer":
            # An edited report is not the engine's: there is nothing to agree on.
            mask = sample.rollout.mask & ~sample.edited[:, None]
            return parity(batch.policy.log_probs, sample.engine_log_probs, mask)
        total = len(sample.rollout)
        stride = max(1, total // self._probed_reports)
        return self._parity_of_rows(sample, torch.arange(0, total, stride))

    def require_parity(self, measured: Parity) -> None:
        """Stop the run where engines and trainer disagree.

        Raises:
            PPOError: ``parity_broken``.
        """
        measured.require(self._tolerance)

    def require_sft_start(self, batch: ScoredBatch) -> None:
        """Stop the run where the policy differs from the SFT model although nothing was updated.

        Raises:
            PPOError: ``kl_not_zero``; ``parity_broken`` with ``old_log_probs=engine``.
        """
        if batch.version:
            return
        distance = parity(batch.policy.log_probs, batch.reference, batch.sample.rollout.mask)
        if self._ppo.old_log_probs == "trainer":
            self._require_identity("kl_not_zero", "the log-ratio of policy and SFT model", distance)
        else:
            # The policy's log-probs are the engine's here, the reference's are the trainer's: two
            # implementations of the same weights, which differ by more than rounding.
            distance.require(self._tolerance)

    def require_first_ratio(self, update: UpdateReport) -> None:
        """Stop the run where an update began with a probability ratio other than 1.

        With ``old_log_probs=engine`` nothing is checked: the ratio compares engine and trainer.

        Raises:
            PPOError: ``ratio_not_one``.
        """
        if self._ppo.old_log_probs == "trainer":
            deviation = Parity(update.first_ratio_mean, update.first_ratio_error)
            self._require_identity(
                "ratio_not_one", "the probability ratio before the update", deviation
            )

    def _parity_of_rows(self, sample: Sample, rows: Tensor) -> Parity:
        """Score the reports ``rows`` (long [b]) with the trainer and compare with the engines."""
        rollout = sample.rollout.select(rows)
        outputs = self._crew.policy.log_probs(ray.put(rollout)).result()
        engine = sample.engine_log_probs[rows, : rollout.ids.shape[1]]
        return parity(outputs.log_probs, engine, rollout.mask)

    def _require_identity(self, code: str, quantity: str, deviation: Parity) -> None:
        if self._ppo.precision == "fp32":
            found = deviation.max_abs
            tolerance = LARGEST_FP32
        else:
            found = deviation.mean_abs
            tolerance = MEAN_BF16
        # Written with "not", so that NaN is refused too.
        if not found <= tolerance:
            raise PPOError(
                code,
                f"{quantity} is off by {found:.3g} where it must be the identity "
                f"(up to {tolerance:g})",
            )
