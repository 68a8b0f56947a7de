"""Which reports an iteration learns from, and when they are sampled: on demand, or one iteration ahead. What an engine
hands over is scored at once."""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from actors.reward import RewardPool, joined
from actors.rollout import RolloutPool
from lmrrg.config.tree import Config
from lmrrg.engine.interfaces import GeneratedReport
from lmrrg.files import atomic_writer
from lmrrg.metrics.reward import RewardScores
from rl.experience import Sample, make_sample
from rl.study_pool import StudyPool, StudySampler, stream_seed

_AHEAD = "ahead.json"


class Scoring:
    """The rewards of one sample's reports: each chunk is scored as it comes, while others are still being written.

    Args:
        rewards: the scorers.
        thread: through which alone they are used meanwhile.
        references: of the studies.
    """

    def __init__(self, rewards: RewardPool, thread: ThreadPoolExecutor, references: list[str]):
        self._rewards, self._thread, self._references = rewards, thread, references
        self._parts: dict[int, Future[RewardScores]] = {}

    def add(self, studies: list[int], reports: list[list[GeneratedReport]]) -> None:
        """Begin to score the reports of consecutive studies, which are given by their places."""
        flat = [report for of_study in reports for report in of_study]
        self._parts[studies[0]] = self._thread.submit(
            self._rewards.score,
            [report.text for report in flat],
            [
                self._references[i]
                for i, of_study in zip(studies, reports, strict=True)
                for _ in of_study
            ],
            [report.token_ids for report in flat],
            [report.finished for report in flat],
        )

    def result(self) -> RewardScores:
        """All scores, study by study, however they came; waits for them.

        Raises:
            PoolError: no scorer could do it.
        """
        return joined([self._parts[first].result() for first in sorted(self._parts)])


@dataclass(frozen=True)
class SampledBatch:
    """What an iteration learns from."""

    sample: Sample
    scoring: Scoring


class Sampling:
    """The samples of a run, iteration by iteration.

    With ``ppo.rollout_ahead`` the engines write the reports of the next iteration while this one is scored and learnt
    from: those are at most one update behind the policy (``Sample.version`` says which weights wrote them), and the
    importance weights correct for it. Seeds and studies follow from the iteration alone.

    Args:
        config: of the run.
        studies: the training studies.
        sampler: their order.
        rollouts: the engines.
        rewards: the scorers. Nobody else may use either between :meth:`take` and :meth:`wait_idle`.
    """

    def __init__(
        self,
        config: Config,
        studies: StudyPool,
        sampler: StudySampler,
        rollouts: RolloutPool,
        rewards: RewardPool,
    ):
        self._ppo, self._seed = config.ppo, config.seed
        self._studies, self._sampler, self._rollouts, self._rewards = (
            studies,
            sampler,
            rollouts,
            rewards,
        )
        self._background, self._scoring = (
            ThreadPoolExecutor(1, "sampling"),
            ThreadPoolExecutor(1, "scoring"),
        )
        self._ahead: Future[SampledBatch] | None = None

    def take(self, iteration: int) -> SampledBatch:
        """The sample of an iteration, being scored; with ``rollout_ahead`` that of the next one begins.

        Raises:
            PoolError: no engine could do it.
        """
        taken = self._sample(iteration) if self._ahead is None else self._ahead.result()
        following = iteration + 1
        self._ahead = None
        if self._ppo.rollout_ahead and following < self._ppo.iterations:
            self._ahead = self._background.submit(self._sample, following)
        return taken

    def wait_idle(self) -> None:
        """Wait until engines and scorers are idle: before new weights, an evaluation or a checkpoint.

        Raises:
            PoolError: no engine or scorer could do what it was at.
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
            "reports": [asdict(one) for one in sample.reports],
        }
        with atomic_writer(folder / _AHEAD) as out:
            json.dump(record, out)

    def load(self, folder: Path) -> None:
        """Continue with what :meth:`save` left."""
        self.wait_idle()
        self._ahead = None
        if (folder / _AHEAD).is_file():
            record = json.loads((folder / _AHEAD).read_text(encoding="utf-8"))
            self._ahead = Future()
            self._ahead.set_result(self._restored(record))

    def close(self) -> None:
        """Let go of the threads; what they are at ends with the engines and the scorers."""
        for thread in (self._background, self._scoring):
            thread.shutdown(wait=False, cancel_futures=True)

    def _sample(self, iteration: int) -> SampledBatch:
        visits = self._sampler.batch(iteration)
        batch = self._studies.take(visits)
        seed = stream_seed(self._seed, "rollout", iteration)
        version = self._rollouts.version
        samples = self._ppo.samples_per_study
        scoring = Scoring(self._rewards, self._scoring, batch.references)
        reports = self._rollouts.generate(
            batch.features, batch.prompts, samples=samples, seed=seed, finished=scoring.add
        )
        return SampledBatch(make_sample(visits, batch, reports, version), scoring)

    def _restored(self, record: dict) -> SampledBatch:
        flat = [GeneratedReport(**one) for one in record["reports"]]
        size = self._ppo.samples_per_study
        reports = [flat[start : start + size] for start in range(0, len(flat), size)]
        batch = self._studies.take(record["visits"])
        scoring = Scoring(self._rewards, self._scoring, batch.references)
        scoring.add(list(range(len(reports))), reports)
        return SampledBatch(
            make_sample(record["visits"], batch, reports, record["version"]), scoring
        )
