"""Chunks of reports are scored while others are still being written, and nothing else changes."""

import dataclasses
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lmrrg.config.loading import load_config
from lmrrg.engine.interfaces import GeneratedReport
from lmrrg.metrics.reward import RadCliQReward, RewardScores
from lmrrg.vision.study_features import StudyFeatures
from rl.credit.reference_sentences import EditedReport
from rl.sampling import SampledBatch, Sampling
from rl.study_pool import StudyBatch, StudySampler

SENTENCES = (
    "The lungs are clear.",
    "There is a large left pleural effusion.",
    "The heart is moderately enlarged.",
    "No pneumothorax is seen.",
)
STUDIES, SAMPLES, PATIENCE = 6, 2, 20


class Studies:
    """Stand in for the training studies."""

    def take(self, visits: list[int]) -> StudyBatch:
        size = len(visits)
        nothing = StudyFeatures(
            torch.zeros(size, 1, 4, 3), torch.zeros(size, 1).long(), torch.ones(size, 1).bool()
        )
        references = [SENTENCES[visit % len(SENTENCES)] for visit in visits]
        return StudyBatch(
            nothing, [[1]] * size, references, [5] * size, [{}] * size, [False] * size
        )


class Scorer(RadCliQReward):
    """Stand in for the scorers, and signal when a chunk is done."""

    def __init__(self) -> None:
        super().__init__(load_config().reward)
        self.calls = 0
        self.scored = threading.Semaphore(0)

    def score(self, *lists) -> RewardScores:
        scores = super().score(*lists)
        self.calls += 1
        self.scored.release()
        return scores


class Engines:
    """Stand in for the engines: hand over the chunks in ``order``, after calling ``before``."""

    def __init__(self, order: list[int], before: Callable[[], object]) -> None:
        self.version = 0
        self.order = order
        self.before = before

    def generate(self, features, prompts, samples, seed, finished) -> list[list[GeneratedReport]]:
        reports = [
            [report(study * samples + k, finished=(study + k) % 3 > 0) for k in range(samples)]
            for study in range(len(prompts))
        ]
        for chunk in self.order:
            self.before()
            places = [2 * chunk, 2 * chunk + 1]
            finished(places, [reports[place] for place in places])
        return reports


def report(number: int, finished: bool) -> GeneratedReport:
    ids = [3 + (number + k) % 4 for k in range(4 + number)]
    return GeneratedReport(ids, [-0.5] * len(ids), SENTENCES[number % len(SENTENCES)], finished)


def sampling(engines: Engines, scorer: Scorer, *overrides: str) -> Sampling:
    config = load_config(None, [f"ppo.samples_per_study={SAMPLES}", *overrides])
    stand_ins: Any = (Studies(), StudySampler(12, STUDIES, 0), engines, scorer)
    return Sampling(config.ppo, config.seed, *stand_ins)


def assert_as_if_scored_at_the_end(batch: SampledBatch) -> None:
    reports = batch.sample.reports
    whole = RadCliQReward(load_config().reward).score(
        batch.sample.texts,
        batch.sample.references,
        [one.token_ids for one in reports],
        [one.finished for one in reports],
    )
    assert len(set(whole.reward)) > 3
    for field in dataclasses.fields(whole):
        np.testing.assert_array_equal(
            getattr(batch.scoring.result(), field.name), getattr(whole, field.name)
        )


def test_scores_arrive_before_the_last_report_is_written():
    scorer = Scorer()
    waited = SimpleNamespace(chunks=0)

    def until_the_last_chunk_is_scored() -> None:
        if waited.chunks:
            assert scorer.scored.acquire(timeout=PATIENCE), (
                "nothing is scored while reports are being written"
            )
        waited.chunks += 1

    batch = sampling(Engines([0, 1, 2], until_the_last_chunk_is_scored), scorer).take(0)
    assert waited.chunks == 3
    assert_as_if_scored_at_the_end(batch)
    assert scorer.calls == 3


def test_whatever_engine_is_first_the_scores_keep_their_places():
    assert_as_if_scored_at_the_end(sampling(Engines([2, 0, 1], lambda: None), Scorer()).take(0))


def test_a_sample_of_the_next_iteration_is_scored_ahead_and_again_after_a_restart(tmp_path):
    scorer = Scorer()
    ahead = sampling(Engines([1, 0, 2], lambda: None), scorer, "ppo.rollout_ahead=true")
    ahead.take(0).scoring.result()
    ahead.wait_idle()
    assert scorer.calls == 6
    ahead.save(tmp_path)
    fresh = Scorer()
    resumed = sampling(
        Engines([], lambda: None), fresh, "ppo.rollout_ahead=true", "ppo.iterations=2"
    )
    resumed.load(tmp_path)
    again = resumed.take(1)
    batch = ahead.take(1)
    assert again.sample.texts == batch.sample.texts
    np.testing.assert_array_equal(again.scoring.result().reward, batch.scoring.result().reward)
    assert fresh.calls == 1
    assert_as_if_scored_at_the_end(again)


def test_a_scorer_that_fails_stops_the_iteration_and_is_not_scored_as_0():
    scorer = Scorer()
    scorer.score = lambda *lists: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        sampling(Engines([0, 1, 2], lambda: None), scorer).take(0).scoring.result()


class Halves:
    """Stand in for the sentences: the partial reports of a report are its text twice, once cut."""

    def numbers(self, token_ids: list[int]) -> list[int]:
        return [len(token_ids)]

    def partial_reports(self, one: GeneratedReport, numbers: list[int]) -> list[GeneratedReport]:
        assert numbers == [len(one.token_ids)]
        return [one, dataclasses.replace(one, finished=not one.finished)][: len(one.token_ids) % 3]


def test_partial_reports_are_scored_in_the_same_calls_and_kept_apart():
    scorer = Scorer()
    config = load_config(None, [f"ppo.samples_per_study={SAMPLES}"])
    stand_ins: Any = (Studies(), StudySampler(12, STUDIES, 0), Engines([2, 0, 1], lambda: None))
    halves: Any = Halves()
    pool: Any = scorer
    batch = Sampling(config.ppo, config.seed, *stand_ins, pool, halves).take(0)
    assert_as_if_scored_at_the_end(batch)
    rewards = batch.scoring.result().reward
    for one, reward, rated in zip(
        batch.sample.reports, rewards, batch.scoring.sentences(), strict=True
    ):
        partial = rated.partial
        assert rated.numbers == [len(one.token_ids)]
        assert len(partial) == len(one.token_ids) % 3
        if len(partial):
            assert partial[0] == reward
        if len(partial) == 2:
            assert partial[1] != reward
    assert scorer.calls == 3


class LastOfOddStudies:
    """Stand in for the edits: the last sample of every second study."""

    def group(self, samples, reference, seed) -> list[GeneratedReport]:
        if seed[1] % 2 == 0:
            return list(samples)
        last = samples[-1]
        edited = EditedReport([*last.token_ids, 9], [*last.logprobs, 0.0], reference, finished=True)
        return [*samples[:-1], edited]


def test_edited_reports_are_scored_in_their_place_and_survive_a_restart(tmp_path):
    config = load_config(None, [f"ppo.samples_per_study={SAMPLES}", "ppo.rollout_ahead=true"])
    edits: Any = LastOfOddStudies()

    def with_edits(engines: Any) -> Sampling:
        studies: Any = Studies()
        pool: Any = Scorer()
        order = StudySampler(12, STUDIES, 0)
        return Sampling(config.ppo, config.seed, studies, order, engines, pool, None, edits)

    ahead = with_edits(Engines([2, 0, 1], lambda: None))
    batch = ahead.take(0)
    is_edited = [number % (2 * SAMPLES) == 2 * SAMPLES - 1 for number in range(STUDIES * SAMPLES)]
    assert batch.sample.edited.tolist() == is_edited
    assert_as_if_scored_at_the_end(batch)
    ahead.wait_idle()
    ahead.save(tmp_path)
    resumed = with_edits(Engines([], lambda: None))
    resumed.load(tmp_path)
    again = resumed.take(1)
    assert again.sample.edited.tolist() == is_edited
    assert_as_if_scored_at_the_end(again)
    assert torch.equal(again.sample.engine_log_probs, ahead.take(1).sample.engine_log_probs)
