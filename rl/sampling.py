"""The reports that an iteration learns from: sampled on demand, or one iteration ahead.

Each chunk of reports is scored as soon as an engine hands it over.
"""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from actors.reward import RewardPool, joined
from actors.rollout import RolloutPool
from lmrrg.config.ppo import PPOConfig
from lmrrg.engine.interfaces import GeneratedReport
from lmrrg.files import atomic_writer
from lmrrg.metrics.reward import RewardScores
from lmrrg.ppo.correction import Parity
from rl.credit.reference_sentences import EditedReport, ReferenceSentences
from rl.credit.sentences import SentenceRewards, Sentences
from rl.experience import Sample, make_sample
from rl.study_pool import StudyBatch, StudyPool, StudySampler, stream_seed

_AHEAD = "ahead.json"


class Scoring:
    """Rewards in the making: each chunk of reports is scored while others are still being written.

    Args:
        rewards: the scorers.
        thread: the only thread that uses them meanwhile.
        references: reference report of each study.
        sentences: writes the partial reports that are scored too; None: there are none.
    """

    def __init__(
        self,
        rewards: RewardPool,
        thread: ThreadPoolExecutor,
        references: list[str],
        sentences: Sentences | None = None,
    ):
        self._rewards = rewards
        self._thread = thread
        self._references = references
        self._sentences = sentences
        self._parts: dict[int, Future[ScoredChunk]] = {}
        """Scores of every chunk, by the index of its first study."""

    def add(self, studies: list[int], reports: list[list[GeneratedReport]]) -> None:
        """Begin to score the reports of consecutive studies, which are given by their indices."""
        flat = []
        references = []
        for study, of_study in zip(studies, reports, strict=True):
            flat += of_study
            references += [self._references[study]] * len(of_study)
        self._parts[studies[0]] = self._thread.submit(self._score, flat, references)

    def result(self) -> RewardScores:
        """Wait for all scores; return them study by study, in whatever order the chunks came.

        Raises:
            PoolError: no scorer could do it.
        """
        return joined([chunk.scores for chunk in self._chunks()])

    def sentences(self) -> list[SentenceRewards]:
        """Return the sentences of each report with their rewards; empty: none are credited.

        Raises:
            PoolError: no scorer could do it.
        """
        rows: list[SentenceRewards] = []
        for chunk in self._chunks():
            rows += chunk.sentences
        return rows

    def _chunks(self) -> list[ScoredChunk]:
        return [self._parts[first].result() for first in sorted(self._parts)]

    def _score(self, reports: list[GeneratedReport], references: list[str]) -> ScoredChunk:
        """Score reports and their partial reports in one call."""
        every = list(reports)
        every_reference = list(references)
        numbers: list[list[int]] = []
        ends = [len(reports)]
        if self._sentences is not None:
            for report, reference in zip(reports, references, strict=True):
                numbers.append(self._sentences.numbers(report.token_ids))
                partial = self._sentences.partial_reports(report, numbers[-1])
                every += partial
                every_reference += [reference] * len(partial)
                ends.append(len(every))
        scores = self._rewards.score(
            [report.text for report in every],
            every_reference,
            [report.token_ids for report in every],
            [report.finished for report in every],
        )
        rewards = np.where(scores.valid, scores.reward, np.nan)
        sentences = []
        for of_report, start, end in zip(numbers, ends, ends[1:], strict=False):
            sentences.append(SentenceRewards(of_report, rewards[start:end]))
        return ScoredChunk(scores.rows(slice(len(reports))), sentences)


@dataclass(frozen=True)
class ScoredChunk:
    """Scores of the reports of a chunk, and the rewards of their sentences."""

    scores: RewardScores
    sentences: list[SentenceRewards]


@dataclass(frozen=True)
class SampledBatch:
    """The reports that an iteration learns from, and their rewards in the making."""

    sample: Sample
    scoring: Scoring
    probed_parity: Parity | None = None
    """Parity of engines and trainer by reports written for the purpose, where ``sample`` may be of
    older weights; None where the sample itself tells."""


class Sampling:
    """The samples of a run, iteration by iteration.

    With ``ppo.rollout_ahead`` the engines write the reports of the next iteration while this one is
    scored and learnt from. Those are at most one update behind the policy (``Sample.version`` is
    the version of the weights that wrote them), and the importance weights correct for it. Seeds
    and studies follow from the iteration alone.

    Args:
        ppo: settings of PPO.
        seed: of the run.
        studies: the training studies.
        sampler: their order.
        rollouts: the engines.
        rewards: the scorers. Nobody else may use engines or scorers between :meth:`take` and
            :meth:`wait_idle`.
        sentences: writes the partial reports that are scored too; None: there are none.
        edits: puts sentences of references into samples; None: none are.
    """

    def __init__(
        self,
        ppo: PPOConfig,
        seed: int,
        studies: StudyPool,
        sampler: StudySampler,
        rollouts: RolloutPool,
        rewards: RewardPool,
        sentences: Sentences | None = None,
        edits: ReferenceSentences | None = None,
    ):
        self._ppo = ppo
        self._seed = seed
        self._studies = studies
        self._sampler = sampler
        self._rollouts = rollouts
        self._rewards = rewards
        self._sentences = sentences
        self._edits = edits
        # One thread each: neither pool may be used by two threads at a time.
        self._sampling_thread = ThreadPoolExecutor(1, "sampling")
        self._scoring_thread = ThreadPoolExecutor(1, "scoring")
        self._ahead: Future[SampledBatch] | None = None
        """The batch of the next iteration, where it is sampled ahead."""

    def take(self, iteration: int) -> SampledBatch:
        """Return the batch of an iteration; with ``rollout_ahead``, begin with the next one.

        Raises:
            PoolError: no engine could do it.
        """
        batch = self._sample(iteration) if self._ahead is None else self._ahead.result()
        following = iteration + 1
        self._ahead = None
        # Nothing is sampled beyond the last iteration: nobody would learn from it.
        if self._ppo.rollout_ahead and following < self._ppo.iterations:
            self._ahead = self._sampling_thread.submit(self._sample, following)
        return batch

    def wait_idle(self) -> None:
        """Wait until engines and scorers are idle: before new weights, validation or a checkpoint.

        Raises:
            PoolError: an engine or scorer failed.
        """
        if self._ahead is not None:
            self._ahead.result().scoring.result()

    def save(self, folder: Path) -> None:
        """Write the reports that were sampled ahead, where there are any."""
        if self._ahead is None:
            return
        sample = self._ahead.result().sample
        record = {
            "version": sample.version,
            "visits": sample.visits,
            "reports": [asdict(report) for report in sample.reports],
            "edited": sample.edited.tolist(),
        }
        with atomic_writer(folder / _AHEAD) as out:
            json.dump(record, out)

    def load(self, folder: Path) -> None:
        """Continue with the reports that :meth:`save` wrote."""
        self.wait_idle()
        self._ahead = None
        path = folder / _AHEAD
        if path.is_file():
            # A future that is done already: `take` need not know that it was not sampled here.
            self._ahead = Future()
            self._ahead.set_result(self._restore(json.loads(path.read_text(encoding="utf-8"))))

    def close(self) -> None:
        """Stop both threads; a call in progress ends when its engines and scorers are closed."""
        for thread in (self._sampling_thread, self._scoring_thread):
            thread.shutdown(wait=False, cancel_futures=True)

    def _scoring(self, studies: StudyBatch) -> Scoring:
        return Scoring(self._rewards, self._scoring_thread, studies.references, self._sentences)

    def _sample(self, iteration: int) -> SampledBatch:
        visits = self._sampler.batch(iteration)
        studies = self._studies.take(visits)
        # Read before the engines start: new weights come only when they are idle again.
        version = self._rollouts.version
        scoring = self._scoring(studies)
        groups: dict[int, list[GeneratedReport]] = {}

        def score(chunk: list[int], reports: list[list[GeneratedReport]]) -> None:
            for index, samples in zip(chunk, reports, strict=True):
                groups[index] = self._edited(iteration, index, samples, studies)
            scoring.add(chunk, [groups[index] for index in chunk])

        self._rollouts.generate(
            studies.features,
            studies.prompts,
            samples=self._ppo.samples_per_study,
            seed=stream_seed(self._seed, "rollout", iteration),
            finished=score,
        )
        reports = [groups[index] for index in range(len(visits))]
        return SampledBatch(make_sample(visits, studies, reports, version), scoring)

    def _edited(
        self, iteration: int, index: int, samples: list[GeneratedReport], studies: StudyBatch
    ) -> list[GeneratedReport]:
        """Return the samples of study ``index`` of an iteration, one of them edited perhaps."""
        if self._edits is None:
            return samples
        seed = [stream_seed(self._seed, "edits", iteration), index]
        return self._edits.group(samples, studies.references[index], seed)

    def _restore(self, record: dict[str, Any]) -> SampledBatch:
        """Rebuild a batch from its record; its rewards are computed anew."""
        flat: list[GeneratedReport] = []
        for report, is_edited in zip(record["reports"], record["edited"], strict=True):
            kind = EditedReport if is_edited else GeneratedReport
            flat.append(kind(**report))
        size = self._ppo.samples_per_study
        reports = [flat[start : start + size] for start in range(0, len(flat), size)]
        studies = self._studies.take(record["visits"])
        scoring = self._scoring(studies)
        scoring.add(list(range(len(reports))), reports)
        sample = make_sample(record["visits"], studies, reports, record["version"])
        return SampledBatch(sample, scoring)
