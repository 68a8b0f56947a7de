"""Clinical quality reinforcement learning as an RLlib algorithm: sample, score, reference, advantages, update, sync."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from torch import Tensor

from lmrrg.config.tree import Config
from lmrrg.metrics.reward import RewardScores
from lmrrg.policy.batches import Experience, PolicyOutputs
from lmrrg.ppo.correction import Parity, parity
from lmrrg.ppo.errors import PPOError
from lmrrg.ppo.kl import BatchSignal, KLController
from lmrrg.ppo.schedule import policy_learning_rate
from lmrrg.run.layout import RunLayout
from rl.crew import Crew
from rl.experience import Sample, make_experience, make_sample, shuffled_rewards
from rl.iteration_metrics import experience_metrics, kl_metrics, reward_metrics, text_metrics
from rl.reference_rewards import ReferenceRewards
from rl.sampling import SampledBatch, Sampling
from rl.storage.rollout_files import dump_rollout
from rl.storage.training_states import TrainerState, read_state, write_state
from rl.study_pool import StudyPool, StudySampler, stream_seed
from rl.validation import HeldOut, evaluate_heldout

logger = logging.getLogger(__name__)

LARGEST_FP32, MEAN_BF16 = 1e-4, 0.03
"""How far ratio and log-ratio may be from 1 and 0 where nothing was updated yet: rounding alone. In bfloat16 it takes
single tokens far off, the more the larger the model, so that only their mean tells anything."""
PROBED_REPORTS = 4
"""Reports that tell whether engines and policy hold the same weights, at least: every rank gets one."""


class CQRLConfig(AlgorithmConfig):
    """RLlib's view of a run: ``settings`` is the tree of :class:`lmrrg.config.tree.Config` as JSON, ``sft_checkpoint``
    the model directory that PPO starts from."""

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class or CQRL)
        self.settings: dict[str, Any] = {}
        self.sft_checkpoint: str = ""

    @classmethod
    def of(cls, config: Config, sft_checkpoint: Path) -> CQRLConfig:
        """The algorithm's configuration for a run."""
        return cls().update_from_dict(
            {"settings": config.model_dump(mode="json"), "sft_checkpoint": str(sft_checkpoint)}
        )


class CQRL(Algorithm):
    """PPO on sampled reports with the RadCliQ reward and a KL penalty to the frozen SFT model (paper, section on CQRL).

    Needs ``run_dir/studies.jsonl`` (:func:`lmrrg.run.studies.prepare_studies`). One :meth:`training_step` is one
    iteration; the metrics come back under ``"cqrl"``, those of the SFT model, once, under ``"cqrl_start"``, those of
    the mixtures, after the last iteration, under ``"cqrl_mixtures"`` by the policy's share in percent.

    Raises:
        PlacementError: the cluster is too small.
        PPOError: ``parity_broken``, ``ratio_not_one``, ``kl_not_zero``, ``no_scored_report``, ``no_studies``,
            ``sampling_temperature``.
        PoolError: ``actors_lost``, policy or reference died (:mod:`rl.recovery` starts again), or an actor failed.
    """

    @classmethod
    def get_default_config(cls) -> AlgorithmConfig:
        """An empty configuration of this algorithm."""
        return CQRLConfig(cls)

    def setup(self, config: Any) -> None:
        """Reserve the cluster's resources and start the actors; RLlib's own workers are not used."""
        self.callbacks: list[Any] = []
        self._set_up_metrics()
        self.settings = Config.model_validate(config.settings)
        self.ppo, sft = self.settings.ppo, Path(config.sft_checkpoint)
        if (temperature := self.settings.rollout.temperature) != 1:
            raise PPOError(
                "sampling_temperature",
                f"log-probs are those at 1: rollout.temperature {temperature:g} is not",
            )
        if self.ppo.algorithm == "ppo" and self.ppo.value_warmup_iterations >= self.ppo.iterations:
            logger.warning("ppo.value_warmup_iterations leaves no iteration that trains the policy")
        self.studies = StudyPool(self.settings, "train", sft)
        self.heldout_studies = StudyPool(self.settings, "val", sft, self.ppo.eval_studies)
        self.sampler = StudySampler(
            len(self.studies), self.ppo.studies_per_iteration, self.settings.seed
        )
        self.controller = KLController(self.ppo.kl)
        self.reference_rewards = ReferenceRewards(self.settings)
        self.start: HeldOut | None = None
        """The SFT model on the validation studies."""
        self.best: HeldOut | None = None
        self.iterations_done = 0
        self.version = 0
        """Version of the policy's weights; 0 is the SFT model."""
        self.measured: dict[str, float] = {}
        """Metrics of the last iteration."""
        self._seconds: dict[str, float] = {}
        self.crew = Crew.start(self.settings, sft)
        self.sampling = Sampling(
            self.settings, self.studies, self.sampler, self.crew.rollouts, self.crew.rewards
        )

    def step(self) -> dict[str, Any]:
        """One iteration, as RLlib and Tune call it; the first one starts with the SFT model's evaluation."""
        result: dict[str, Any] = {}
        if self.best is None:
            result["cqrl_start"] = self._evaluate()
            self._complete_reference_rewards()
        self.training_step()
        metrics = self.measured
        if (
            self.iterations_done % self.ppo.eval_every == 0
            or self.iterations_done == self.ppo.iterations
        ):
            metrics |= self._evaluate()
        if self.iterations_done == self.ppo.iterations:
            result["cqrl_mixtures"] = self._evaluate_mixtures()
        return result | {"cqrl": metrics}

    def training_step(self) -> None:
        """Sample, score, reference, advantages, update, sync; the metrics are left in ``measured``."""
        self._seconds = {}
        learning_rate = policy_learning_rate(self.ppo, self.iterations_done)
        with self._phase("sample"):
            probe = self._probe_parity() if self.ppo.rollout_ahead else None
            taken = self.sampling.take(self.iterations_done)
            sample = taken.sample
        with self._phase("score"):
            scores, policy, reference = self._score(taken)
            engine = probe or self._parity(sample, policy)
        engine.require(self.settings.parity_tolerance)
        metrics = self._measure(sample, scores, policy, reference)
        metrics |= {"parity": engine.mean_abs, "parity_max": engine.max_abs}
        with self._phase("advantages"):
            experience = self._experience(sample, scores, policy, reference)
            metrics |= experience_metrics(experience, policy)
        with self._phase("update"):
            update = self.crew.policy.update(
                experience, seed=self._seed("minibatches"), learning_rate=learning_rate
            )
            if self.ppo.old_log_probs == "trainer":
                error = Parity(update.first_ratio_mean, update.first_ratio_error)
                self._require_identity(
                    "ratio_not_one", "the probability ratio before the update", error
                )
        with self._phase("sync"):
            if learning_rate:
                self._sync(self.version + 1)
        metrics |= update.metrics | {
            "first_ratio_error": update.first_ratio_error,
            "learning_rate": learning_rate,
        }
        self._adapt_kl(metrics, int(scores.valid.sum()))
        self.iterations_done += 1
        self.measured = metrics | self._timings(sample)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the whole training state into a folder that all nodes share."""
        folder = Path(checkpoint_dir)
        self.crew.policy.save(folder / "policy")
        state = TrainerState(
            iterations_done=self.iterations_done,
            version=self.version,
            controller=self.controller.state_dict(),
            reference_rewards=self.reference_rewards.state_dict(),
            start=self.start,
            best=self.best,
        )
        self.sampling.save(folder)
        write_state(folder, state)

    def load_checkpoint(self, checkpoint_dir: Any) -> None:
        """Continue from :meth:`save_checkpoint`: afterwards every engine holds the policy's weights.

        Raises:
            PPOError: ``trained_further``: engines refuse weights that are older than theirs, so an algorithm that has
                trained cannot go back; a new one can start there.
        """
        folder = Path(checkpoint_dir)
        state = read_state(folder)
        if state.version < self.version:
            raise PPOError(
                "trained_further",
                f"{folder} is of weights {state.version}, these are {self.version}",
            )
        self.reference_rewards.load_state_dict(state.reference_rewards)
        self._complete_reference_rewards()  # a run that was made longer visits more studies
        self.crew.policy.load(folder / "policy")
        self.controller.load_state_dict(dict(state.controller))
        self.start, self.best = state.start, state.best
        self.iterations_done = self._iteration = state.iterations_done
        if state.version:
            self._sync(state.version)
        self.sampling.load(folder)

    def save_model(self, directory: Path, share: float = 1.0, **provenance: Any) -> None:
        """Write the policy, or a mixture that holds it by ``share``, as a model directory."""
        extra = {
            "stage": "ppo",
            "iteration": self.iterations_done,
            "weights": self.version,
            "share": share,
        }
        self.crew.policy.save_model(Path(directory), extra | provenance, share)

    def cleanup(self) -> None:
        """Stop every actor and give the resources back."""
        self.sampling.close()
        self.crew.close()

    def _score(self, taken: SampledBatch) -> tuple[RewardScores, PolicyOutputs, Tensor]:
        """Rewards, which began with the first reports, and meanwhile the log-probs of policy and reference."""
        rollout = ray.put(taken.sample.rollout)
        reference = self.crew.reference.log_probs(rollout)
        pending = (
            self.crew.policy.log_probs(rollout) if self.ppo.old_log_probs == "trainer" else None
        )
        scores = taken.scoring.result()
        if not scores.valid.any():
            raise PPOError(
                "no_scored_report", "the reward backend scored none of the sampled reports"
            )
        policy = (
            pending.result() if pending else PolicyOutputs.of_engine(taken.sample.engine_log_probs)
        )
        return scores, policy, self.crew.reference.result(reference)

    def _parity(self, sample: Sample, policy: PolicyOutputs) -> Parity:
        """Of the reports of this iteration; of a few where the trainer does not score them all."""
        if self.ppo.old_log_probs == "trainer":
            return parity(policy.log_probs, sample.engine_log_probs, sample.rollout.mask)
        total = len(sample.rollout)
        return self._parity_of(
            sample, torch.arange(0, total, max(1, total // self._probed_reports()))
        )

    def _probe_parity(self) -> Parity:
        """Of a few reports that the engines write now: those of the iteration may be of older weights."""
        self.sampling.wait_idle()
        few = self.studies.take(self.sampler.batch(self.iterations_done)[: self._probed_reports()])
        samples = -(-self._probed_reports() // len(few.prompts))
        reports = self.crew.rollouts.generate(
            few.features, few.prompts, samples=samples, seed=self._seed("probe")
        )
        probe = make_sample([], few, reports, self.version)
        return self._parity_of(probe, torch.arange(len(probe.rollout)))

    def _parity_of(self, sample: Sample, rows: Tensor) -> Parity:
        rollout = sample.rollout.select(rows)
        policy = self.crew.policy.log_probs(ray.put(rollout)).result()
        return parity(
            policy.log_probs, sample.engine_log_probs[rows, : rollout.ids.shape[1]], rollout.mask
        )

    def _probed_reports(self) -> int:
        return max(PROBED_REPORTS, self.ppo.workers)

    def _measure(
        self, sample: Sample, scores: RewardScores, policy: PolicyOutputs, reference: Tensor
    ) -> dict[str, float]:
        """Metrics of the rollout, and the check that policy and SFT model are one before the first update."""
        mask = sample.rollout.mask
        if self.version == 0:
            distance = parity(policy.log_probs, reference, mask)
            if self.ppo.old_log_probs == "trainer":
                self._require_identity(
                    "kl_not_zero", "the log-ratio of policy and SFT model", distance
                )
            else:  # the reference is a trainer's forward of the weights that the engines hold
                distance.require(self.settings.parity_tolerance)
        abnormal = [sample.studies.abnormal[i] for i in sample.rollout.study.tolist()]
        return (
            reward_metrics(scores, abnormal, self.reference_rewards.of(sample.visits))
            | kl_metrics(policy.log_probs, reference, mask)
            | text_metrics(sample)
            | {
                "kl_coefficient": self.controller.weight,
                "weights_version": self.version,
                "rollout_lag": self.version - sample.version,
            }
        )

    def _experience(
        self, sample: Sample, scores: RewardScores, policy: PolicyOutputs, reference: Tensor
    ) -> Experience:
        """What the update learns from; kept on disk where that was asked for."""
        rewards, number = self._learnt_rewards(scores), self.iterations_done + 1
        told = self.ppo.tells_findings
        findings = (
            self.studies.findings([report.token_ids for report in sample.reports]) if told else None
        )
        experience = make_experience(
            sample, rewards, policy, reference, self.controller.weight, self.ppo, findings
        )
        if self.ppo.dump_every and number % self.ppo.dump_every == 0:
            dump_rollout(
                RunLayout(self.settings.run_dir).ppo_rollouts, number, sample, scores, experience
            )
        return experience

    def _learnt_rewards(self, scores: RewardScores) -> np.ndarray:
        """Rewards [B] that the update sees, NaN for reports without one; what is logged stays true in any case."""
        rewards = np.where(scores.valid, scores.reward, np.nan)
        if self.settings.reward.shuffle_control:
            rewards = shuffled_rewards(rewards, self.ppo.samples_per_study, self._seed("shuffle"))
        return rewards

    def _sync(self, version: int, share: float = 1.0) -> None:
        """Give the policy's weights, mixed with the SFT model's where ``share`` is below 1, to every engine."""
        self.sampling.wait_idle()
        self.crew.sync(version, share)
        self.version = version

    def _adapt_kl(self, metrics: dict[str, float], episodes: int) -> None:
        self.controller.update(
            BatchSignal(
                metrics["kl_per_sequence"], metrics["reward"], metrics["reward_reference"], episodes
            )
        )

    def _evaluate(self) -> dict[str, float]:
        """Greedy reports on the validation studies; the best model so far that did not collapse is kept."""
        started = time.perf_counter()
        found = self._heldout()
        alarm = self.best is not None and found.is_hacked(self.best)
        if alarm:
            logger.warning(
                "iteration %d: the reward rises while the held-out metric falls",
                self.iterations_done,
            )
        best = self._keep_if_best(found)
        return found.metrics() | {
            "heldout_best": best.metric,
            "heldout_alarm": float(alarm),
            "evaluate_s": time.perf_counter() - started,
        }

    def _evaluate_mixtures(self) -> dict[str, dict[str, float]]:
        """The same for each of ``mixtures``; afterwards the engines hold the policy again."""
        found = {}
        for share in self.ppo.mixtures:
            self._sync(self.version + 1, share)
            found[share] = self._heldout()
            self._keep_if_best(found[share], share)
        if found:
            self._sync(self.version + 1)
        return {f"{100 * share:g}": one.metrics() for share, one in found.items()}

    def _heldout(self) -> HeldOut:
        """What the weights that the engines hold write for the validation studies."""
        self.sampling.wait_idle()
        studies = self.heldout_studies.take(range(len(self.heldout_studies)))
        return evaluate_heldout(
            studies, self.crew.rollouts, self.crew.rewards, self.ppo.heldout_metric
        )

    def _keep_if_best(self, found: HeldOut, share: float = 1.0) -> HeldOut:
        """The best so far, which is in ``run_dir/ppo/best``."""
        self.start = self.start or found
        varied = found.is_as_varied(self.start, self.ppo.best_distinct_ratio)
        if self.best is None or (varied and found.metric >= self.best.metric):
            self.best = found
            self.save_model(RunLayout(self.settings.run_dir).best("ppo"), share, **found.metrics())
        return self.best

    def _complete_reference_rewards(self) -> None:
        visits = self.sampler.plan(self.ppo.iterations)
        self.reference_rewards.complete(visits, self.studies, self.crew.rollouts, self.crew.rewards)

    def _require_identity(self, code: str, what: str, error: Parity) -> None:
        exact = self.ppo.precision == "fp32"
        off, tolerance = (error.max_abs, LARGEST_FP32) if exact else (error.mean_abs, MEAN_BF16)
        if not off <= tolerance:
            raise PPOError(
                code,
                f"{what} is off by {off:.3g} where it must be the identity (up to {tolerance:g})",
            )

    def _seed(self, stream: str) -> int:
        return stream_seed(self.settings.seed, stream, self.iterations_done)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._seconds[f"{name}_s"] = time.perf_counter() - started

    def _timings(self, sample: Sample) -> dict[str, float]:
        """Seconds of every phase, and report tokens per second, sampled and over the whole iteration."""
        tokens, total = float(sample.rollout.mask.sum()), sum(self._seconds.values())
        return self._seconds | {
            "iteration_s": total,
            "sampled_tokens_per_s": tokens / self._seconds["sample_s"],
            "tokens_per_s": tokens / total,
        }
