"""Clinical quality reinforcement learning as an RLlib algorithm.

One iteration samples reports, scores them, checks that engines and trainer agree, computes
advantages, updates the policy, and sends its weights to the engines.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from torch import Tensor

from lmrrg.config.tree import Config
from lmrrg.policy.batches import Experience, PolicyOutputs
from lmrrg.policy.credited_reports import write_credited
from lmrrg.policy.start_checks import check_ppo_settings
from lmrrg.policy.update_report import UpdateReport
from lmrrg.ppo.correction import Parity
from lmrrg.ppo.credit import token_credits
from lmrrg.ppo.errors import PPOError
from lmrrg.ppo.kl import BatchSignal, KLController
from lmrrg.ppo.schedule import policy_learning_rate
from lmrrg.run.layout import RunLayout
from lmrrg.run.studies import priors_of, studies_of
from lmrrg.studies import Split
from rl.credit.reference_sentences import ReferenceSentences
from rl.credit.sentences import Sentences, shuffled_partial_rewards
from rl.credit.shown import credited_reports
from rl.crew import Crew
from rl.experience import ScoredBatch, make_experience, shuffled_rewards
from rl.iteration_metrics import iteration_metrics, warn_of_collapse
from rl.model_selection import ModelSelection
from rl.parity_checks import ParityChecks
from rl.phase_timer import PhaseTimer
from rl.reference_rewards import ReferenceRewards
from rl.sampling import SampledBatch, Sampling
from rl.storage.rollout_files import dump_rollout
from rl.storage.training_states import TrainerState, read_state, write_state
from rl.study_pool import StudyPool, StudySampler, stream_seed
from rl.validation import HeldOut, evaluate_heldout

logger = logging.getLogger(__name__)


class CQRLConfig(AlgorithmConfig):
    """RLlib's view of a run.

    ``settings`` is the tree of :class:`lmrrg.config.tree.Config` as JSON, ``sft_checkpoint`` the
    model directory that PPO starts from.
    """

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class or CQRL)
        self.settings: dict[str, Any] = {}
        self.sft_checkpoint: str = ""

    @classmethod
    def of(cls, config: Config, sft_checkpoint: Path) -> CQRLConfig:
        """Return the algorithm's configuration for a run."""
        return cls().update_from_dict(
            {"settings": config.model_dump(mode="json"), "sft_checkpoint": str(sft_checkpoint)}
        )


class CQRL(Algorithm):
    """PPO on sampled reports, with the RadCliQ reward and a KL penalty to the frozen SFT model.

    The method is that of the paper's section on CQRL. It needs ``run_dir/studies.jsonl``
    (:func:`lmrrg.run.studies.prepare_studies`). RLlib and Ray Tune call :meth:`step`, which returns
    an iteration's metrics under ``"cqrl"``. Those of the SFT model come once, under
    ``"cqrl_start"``; those of the mixtures come after the last iteration, under
    ``"cqrl_mixtures"``, by the policy's fraction in percent.

    Raises:
        PlacementError: the cluster is too small.
        PPOError: ``parity_broken``, ``ratio_not_one``, ``kl_not_zero``, ``no_scored_report``,
            ``no_studies``, ``sampling_temperature``, ``no_policy_update``.
        PoolError: ``actors_lost``, policy or reference died (:mod:`rl.recovery` starts again), or
            an actor failed.
    """

    @classmethod
    def get_default_config(cls) -> AlgorithmConfig:
        """Return an empty configuration of this algorithm."""
        return CQRLConfig(cls)

    def setup(self, config: Any) -> None:
        """Reserve resources and start the actors; RLlib's own workers are not used."""
        self.callbacks: list[Any] = []
        self._set_up_metrics()
        self.settings = Config.model_validate(config.settings)
        self.ppo = self.settings.ppo
        self.layout = RunLayout(self.settings.run_dir)
        check_ppo_settings(self.settings)
        self._sft = Path(config.sft_checkpoint)
        self.studies = self._study_pool("train")
        self.heldout_studies = self._study_pool("val", self.ppo.eval_studies)
        if self.settings.model.uses_evidence and self.ppo.evidence == "imitated":
            self.studies.imitate_evidence(self._study_pool("val"), self.settings.seed)
        self.sampler = StudySampler(
            len(self.studies),
            self.ppo.studies_per_iteration,
            self.settings.seed,
            self.studies.abnormal_weights(self.ppo.abnormal_weight),
        )
        sentences = Sentences(self.studies.tokenizer, self.ppo)
        self.sentences = sentences if self.ppo.credits_sentences else None
        self.controller = KLController(self.ppo.kl)
        self.reference_rewards = ReferenceRewards(self.settings.seed)
        self.selection = ModelSelection(self.ppo, self._validate, self._save_best)
        self.iterations_done = 0
        self.version = 0
        """Version of the policy's weights; 0 is the SFT model."""
        # The actors come last: whatever is wrong with settings or studies is found without them.
        self.crew = Crew.start(self.settings, self._sft)
        self.sampling = Sampling(
            self.ppo,
            self.settings.seed,
            self.studies,
            self.sampler,
            self.crew.rollouts,
            self.crew.rewards,
            self.sentences,
            self._edits(sentences) if self.ppo.reference_sentences else None,
        )
        self.checks = ParityChecks(
            self.ppo,
            self.settings.parity_tolerance,
            self.settings.seed,
            self.studies,
            self.sampler,
            self.crew,
        )

    def step(self) -> dict[str, Any]:
        """Run one iteration and the validations that are due, as RLlib and Tune ask for it."""
        result: dict[str, Any] = {}
        if self.selection.best is None:
            # Before the first update, while the engines hold the SFT model.
            result["cqrl_start"] = self.selection.evaluate_policy(self.iterations_done)
            self._complete_reference_rewards()
        metrics = self.training_step()
        is_last = self.iterations_done == self.ppo.iterations
        if is_last or self.iterations_done % self.ppo.eval_every == 0:
            metrics |= self.selection.evaluate_policy(self.iterations_done)
        if is_last:
            result["cqrl_mixtures"] = self.selection.evaluate_mixtures(self._load_mixture)
        return result | {"cqrl": metrics}

    # RLlib's own method returns nothing and leaves its results in a metrics logger.
    def training_step(self) -> dict[str, float]:  # type: ignore[override]
        """Run one iteration without validation; return its metrics."""
        timer = PhaseTimer()
        batch = timer.run("sample", self._sample)
        scored = timer.run("score", self._score, batch)
        warn_of_collapse(scored.sample.own().texts, self.iterations_done + 1)
        engine_parity = timer.run("score", self._check, scored)
        experience = timer.run("advantages", self._advantages, scored)
        update = timer.run("update", self._update, experience)
        timer.run("sync", self._sync_update)
        metrics = iteration_metrics(scored, engine_parity, experience, update) | {
            "kl_coefficient": self.controller.weight,
            "learning_rate": self._learning_rate,
        }
        self._adapt_kl(metrics, int(scored.rewards.valid.sum()))
        self.iterations_done += 1
        return metrics | timer.metrics(tokens=float(scored.sample.rollout.mask.sum()))

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the whole training state into a folder that all nodes share."""
        folder = Path(checkpoint_dir)
        self.crew.policy.save(folder / "policy")
        state = TrainerState(
            iterations_done=self.iterations_done,
            version=self.version,
            controller=self.controller.state_dict(),
            reference_rewards=self.reference_rewards.state_dict(),
            start=self.selection.start,
            best=self.selection.best,
        )
        self.sampling.save(folder)
        write_state(folder, state)

    def load_checkpoint(self, checkpoint_dir: Any) -> None:
        """Continue from :meth:`save_checkpoint`; then every engine holds the policy's weights.

        Raises:
            PPOError: ``trained_further``: engines refuse weights that are older than theirs, so an
                algorithm that has trained cannot go back; a new one can start there.
        """
        folder = Path(checkpoint_dir)
        state = read_state(folder)
        if state.version < self.version:
            raise PPOError(
                "trained_further",
                f"{folder} is of weights {state.version}, these are {self.version}",
            )
        self.reference_rewards.load_state_dict(state.reference_rewards)
        # A run that was made longer visits more studies. Their rewards are sampled now, while the
        # engines still hold the SFT model.
        self._complete_reference_rewards()
        self.crew.policy.load(folder / "policy")
        self.controller.load_state_dict(dict(state.controller))
        self.selection.start = state.start
        self.selection.best = state.best
        self.iterations_done = state.iterations_done
        self._iteration = state.iterations_done  # RLlib's own counter
        if state.version:
            self._sync(state.version)
        self.sampling.load(folder)

    def save_model(self, directory: Path, fraction: float = 1.0, **provenance: Any) -> None:
        """Write a model directory.

        Args:
            directory: where.
            fraction: of the policy; below 1 the rest is the SFT model's (a mixture).
            provenance: further entries of the directory's provenance.
        """
        extra = {
            "stage": "ppo",
            "section": self.settings.data.section,
            "iteration": self.iterations_done,
            "weights": self.version,
            "share": fraction,
        }
        self.crew.policy.save_model(Path(directory), extra | provenance, fraction)

    def cleanup(self) -> None:
        """Stop every actor and give the resources back."""
        self.sampling.close()
        self.crew.close()

    # The phases of an iteration, in their order.

    def _sample(self) -> SampledBatch:
        """Return the reports of this iteration; their rewards are being computed."""
        if not self.ppo.rollout_ahead:
            return self.sampling.take(self.iterations_done)
        # The engines write the probe before `take` gives them the next iteration's reports.
        self.sampling.wait_idle()
        probed = self.checks.probe(self.iterations_done)
        return replace(self.sampling.take(self.iterations_done), probed_parity=probed)

    def _score(self, batch: SampledBatch) -> ScoredBatch:
        """Wait for the rewards, and meanwhile for the log-probs of policy and reference."""
        sample = batch.sample
        reference_rewards = self.reference_rewards.of(sample.visits)
        rollout = ray.put(sample.rollout)
        pending_reference = self.crew.reference.log_probs(rollout)
        if self.ppo.old_log_probs == "trainer":
            pending_policy = self.crew.policy.log_probs(rollout)
            rewards = batch.scoring.result()
            policy = pending_policy.result()
        else:
            rewards = batch.scoring.result()
            policy = PolicyOutputs.of_engine(sample.engine_log_probs)
        if not rewards.valid.any():
            raise PPOError(
                "no_scored_report", "the reward backend scored none of the sampled reports"
            )
        return ScoredBatch(
            sample=sample,
            rewards=rewards,
            reference_rewards=reference_rewards,
            policy=policy,
            reference=self.crew.reference.result(pending_reference),
            version=self.version,
            probed_parity=batch.probed_parity,
            sentences=batch.scoring.sentences(),
        )

    def _check(self, batch: ScoredBatch) -> Parity:
        """Stop the run where engines, trainer or SFT model disagree; return the engines' parity."""
        engine_parity = batch.probed_parity or self.checks.engine_parity(batch)
        self.checks.require_parity(engine_parity)
        self.checks.require_sft_start(batch)
        return engine_parity

    def _advantages(self, batch: ScoredBatch) -> Experience:
        """Return what the update learns from; it is kept on disk where that was asked for."""
        rewards = np.where(batch.rewards.valid, batch.rewards.reward, np.nan)
        if self.settings.reward.shuffle_control:
            # The negative control learns from these; the logged rewards are always the true ones.
            seed = stream_seed(self.settings.seed, "shuffle", self.iterations_done)
            rewards = shuffled_rewards(rewards, self.ppo.samples_per_study, seed)
            batch = replace(batch, sentences=shuffled_partial_rewards(batch.sentences, seed))
        credit = self._credit(batch, rewards) if self.sentences else None
        findings = None
        if self.ppo.needs_finding_tokens:
            findings = self.studies.findings([one.token_ids for one in batch.sample.reports])
        experience = make_experience(
            batch.sample,
            rewards,
            batch.policy,
            batch.reference,
            self.controller.weight,
            self.ppo,
            findings,
            credit,
        )
        number = self.iterations_done + 1
        if self.ppo.dump_every and number % self.ppo.dump_every == 0:
            dump_rollout(self.layout.ppo_rollouts, number, batch.sample, batch.rewards, experience)
        return experience

    def _credit(self, batch: ScoredBatch, rewards: np.ndarray) -> Tensor:
        """Return the credit of each token's sentence; the last iteration keeps some on disk."""
        assert self.sentences is not None
        studies = batch.sample.rollout.study.tolist()
        credits = self.sentences.credits(rewards, batch.sentences, studies)
        number = self.iterations_done + 1
        if number == self.ppo.iterations:
            ids = [self.studies.studies[visit].id for visit in batch.sample.visits]
            shown = credited_reports(batch, self.sentences, credits, self.ppo, number, ids)
            write_credited(self.layout.ppo_credited, shown)
        return token_credits(credits, [one.numbers for one in batch.sentences])

    def _update(self, experience: Experience) -> UpdateReport:
        """Take the optimizer steps of this iteration."""
        seed = stream_seed(self.settings.seed, "minibatches", self.iterations_done)
        update = self.crew.policy.update(experience, seed=seed, learning_rate=self._learning_rate)
        self.checks.require_first_ratio(update)
        return update

    def _sync_update(self) -> None:
        """Give the engines the updated policy; it is unchanged while only the critic learns."""
        if self._learning_rate:
            self._sync(self.version + 1)

    def _adapt_kl(self, metrics: dict[str, float], episodes: int) -> None:
        """Move lambda_KL by what this iteration showed; the next one uses the new value."""
        self.controller.update(
            BatchSignal(
                metrics["kl_per_sequence"], metrics["reward"], metrics["reward_reference"], episodes
            )
        )

    # What the phases, validation and checkpoints share.

    @property
    def _learning_rate(self) -> float:
        """Learning rate of the policy in this iteration; 0 while only the critic learns."""
        return policy_learning_rate(self.ppo, self.iterations_done)

    def _sync(self, version: int, fraction: float = 1.0) -> None:
        """Give every engine the policy, or a mixture with that fraction of it, as ``version``."""
        self.sampling.wait_idle()
        self.crew.sync(version, fraction)
        self.version = version

    def _load_mixture(self, fraction: float) -> None:
        self._sync(self.version + 1, fraction)

    def _validate(self) -> HeldOut:
        """Evaluate the weights that the engines hold on the validation studies."""
        self.sampling.wait_idle()
        studies = self.heldout_studies.take(range(len(self.heldout_studies)))
        return evaluate_heldout(
            studies, self.crew.rollouts, self.crew.rewards, self.ppo.heldout_metric
        )

    def _save_best(self, found: HeldOut, fraction: float) -> None:
        self.save_model(self.layout.best("ppo"), fraction, **found.metrics())

    def _complete_reference_rewards(self) -> None:
        visits = self.sampler.plan(self.ppo.iterations)
        self.reference_rewards.complete(visits, self.studies, self.crew.rollouts, self.crew.rewards)

    def _edits(self, sentences: Sentences) -> ReferenceSentences:
        return ReferenceSentences(
            self.studies.tokenizer,
            sentences,
            self.ppo.reference_sentences,
            self.settings.rollout.max_new_tokens,
        )

    def _study_pool(self, split: Split, limit: int | None = None) -> StudyPool:
        return StudyPool(
            studies_of(self.settings, split),
            priors_of(self.settings),
            self.settings.data,
            self.settings.model,
            self._sft,
            self.settings.evidence,
            limit,
        )
