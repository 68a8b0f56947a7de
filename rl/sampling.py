"""Which reports an iteration learns from, and when they are sampled: on demand, or one iteration ahead."""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from actors.rollout import RolloutPool
from lmrrg.config import Config
from lmrrg.engine import GeneratedReport
from lmrrg.studies import atomic_writer
from rl.experience import Sample, make_sample
from rl.studies import StudyPool, StudySampler, stream_seed

_AHEAD = "ahead.json"


class Sampling:
    """The samples of a run, iteration by iteration.

    With ``ppo.rollout_ahead`` the engines write the reports of the next iteration while this one is scored and learnt
    from: those are at most one update behind the policy (``Sample.version`` says which weights wrote them), and the
    importance weights correct for it. Seeds and studies follow from the iteration alone.

    Args:
        config: of the run.
        studies: the training studies.
        sampler: their order.
        rollouts: the engines. Nobody else may use them between :meth:`take` and :meth:`rest`.
    """

    def __init__(self, config: Config, studies: StudyPool, sampler: StudySampler, rollouts: RolloutPool):
        self._ppo, self._seed = config.ppo, config.seed
        self._studies, self._sampler, self._rollouts = studies, sampler, rollouts
        self._background = ThreadPoolExecutor(1, "sampling")
        self._ahead: Future[Sample] | None = None

    def take(self, iteration: int) -> Sample:
        """The sample of an iteration; with ``rollout_ahead`` that of the next one begins.

        Raises:
            PoolError: no engine could do it.
        """
        sample = self._sample(iteration) if self._ahead is None else self._ahead.result()
        following = iteration + 1
        self._ahead = None
        if self._ppo.rollout_ahead and following < self._ppo.iterations:
            self._ahead = self._background.submit(self._sample, following)
        return sample

    def rest(self) -> None:
        """Wait until the engines are idle: before new weights, an evaluation or a checkpoint.

        Raises:
            PoolError: no engine could do what it was at.
        """
        if self._ahead is not None:
            self._ahead.result()

    def save(self, folder: Path) -> None:
        """Write the reports that were sampled ahead, where there are any."""
        if self._ahead is None:
            return
        sample = self._ahead.result()
        record = {
            "version": sample.version,
            "visits": sample.visits,
            "reports": [asdict(one) for one in sample.reports],
        }
        with atomic_writer(folder / _AHEAD) as out:
            json.dump(record, out)

    def load(self, folder: Path) -> None:
        """Continue with what :meth:`save` left."""
        self.rest()
        self._ahead = None
        if (folder / _AHEAD).is_file():
            record = json.loads((folder / _AHEAD).read_text(encoding="utf-8"))
            self._ahead = Future()
            self._ahead.set_result(self._restored(record))

    def close(self) -> None:
        """Let go of the thread; what it is at ends with the engines."""
        self._background.shutdown(wait=False, cancel_futures=True)

    def _sample(self, iteration: int) -> Sample:
        visits = self._sampler.batch(iteration)
        batch = self._studies.take(visits)
        seed = stream_seed(self._seed, "rollout", iteration)
        version = self._rollouts.version
        samples = self._ppo.samples_per_study
        reports = self._rollouts.generate(batch.features, batch.prompts, samples=samples, seed=seed)
        return make_sample(visits, batch, reports, version)

    def _restored(self, record: dict) -> Sample:
        flat = [GeneratedReport(**one) for one in record["reports"]]
        size = self._ppo.samples_per_study
        reports = [flat[start : start + size] for start in range(0, len(flat), size)]
        return make_sample(record["visits"], self._studies.take(record["visits"]), reports, record["version"])
