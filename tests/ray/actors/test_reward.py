"""Test the pool of scorers: scores as of one scorer, in order; failures masked, never zero."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import ray

from actors.actor_pool import PoolError, spawn
from actors.reward import RewardActor, RewardPool
from lmrrg.config.tree import Config
from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.reward import RadCliQReward

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]

REFERENCES = [
    "The heart is enlarged. There is a small left pleural effusion.",
    "The lungs are clear. No pneumothorax.",
    "There is a right lower lobe opacity concerning for pneumonia.",
    "A pacemaker is in place. The heart is normal in size.",
    "No acute cardiopulmonary abnormality.",
]
REPORTS = [*REFERENCES[:2], "The lungs are clear.", "", "There is a large right pleural effusion."]
FINISHED = [True, True, False, True, True]


@pytest.fixture(scope="module")
def pool_config(tiny_config: Config) -> Config:
    reward = tiny_config.reward.model_copy(
        update={"scorers": 2, "chunk": 2, "cpus_per_scorer": 0.25}
    )
    return tiny_config.model_copy(update={"reward": reward})


@pytest.fixture(scope="module")
def pool(ray_cluster, pool_config: Config) -> Iterator[RewardPool]:
    pool = RewardPool(pool_config.reward, threads=pool_config.threads)
    pool.start()
    yield pool
    pool.close()


def assert_same(a, b) -> None:
    for name in (field.name for field in dataclasses.fields(a)):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def test_chunks_give_what_one_scorer_gives(pool, pool_config):
    expected = RadCliQReward(pool_config.reward).score(REPORTS, REFERENCES, None, FINISHED)
    assert_same(pool.score(REPORTS, REFERENCES, None, FINISHED), expected)
    assert expected.reward[0] > expected.reward[3] > expected.reward[2], (
        "identical; empty; wrong and without end"
    )
    tokens = [[1, 2, 3, 1, 2, 3], [1], [2], [], [5, 6]]
    expected = RadCliQReward(pool_config.reward).score(REPORTS, REFERENCES, tokens, FINISHED)
    assert_same(pool.score(REPORTS, REFERENCES, tokens, FINISHED), expected)


def test_a_report_that_cannot_be_scored_is_masked_and_not_zero(pool):
    scores = pool.score(REPORTS, [*REFERENCES[:4], ""], None, FINISHED)
    assert scores.valid.tolist() == [True, True, True, True, False]
    assert np.isnan(scores.reward[4])


def test_a_killed_scorer_changes_nothing(pool):
    before = pool.score(REPORTS, REFERENCES, None, FINISHED)
    ray.kill(pool.actors()[1])
    for _ in range(3):
        assert_same(pool.score(REPORTS, REFERENCES, None, FINISHED), before)
    pool.start()
    assert pool.metrics() == {"scorers": 2, "scorers_ready": 2, "scorers_replaced": 1}


def test_nothing_gives_empty_arrays(pool):
    scores = pool.score([], [], None, [])
    assert scores.reward.shape == scores.valid.shape == (0,)
    assert scores.valid.dtype == bool


def test_lists_of_different_length_are_refused(pool):
    with pytest.raises(MetricError):
        pool.score(REPORTS, REFERENCES[:-1], None, FINISHED)
    with pytest.raises(MetricError):
        pool.score(REPORTS, REFERENCES, [[1]], FINISHED)


def test_published_models_give_the_same_with_one_worker_and_with_many(pool_config, tmp_path):
    """Score on random weights: chunks, workers and the shared cache change nothing."""
    from tests.support.published.weights import (
        write_weights,  # at the top, the workers that import this module would miss it
    )

    weights = write_weights(tmp_path)
    found = []
    for scorers, chunk in (
        (1, 8),
        (2, 1),
        (2, 2),
    ):  # the last one reads what the first two left in the cache
        update = {
            "backend": "published",
            "published_dir": weights,
            "published_cache": tmp_path / "cache",
            "scorers": scorers,
            "chunk": chunk,
        }
        reward = pool_config.reward.model_copy(update=update)
        pool = RewardPool(reward, threads=pool_config.threads)
        pool.start()
        found.append(pool.score(REPORTS, REFERENCES, None, FINISHED))
        pool.close()
    alone = RadCliQReward(reward.model_copy(update={"published_cache": None}))
    expected = alone.score(REPORTS, REFERENCES, None, FINISHED)
    assert expected.valid.all()
    assert len(set(expected.radcliq_v1.tolist())) > 2
    for scores in found:
        for name in (field.name for field in dataclasses.fields(expected)):
            np.testing.assert_allclose(
                getattr(scores, name), getattr(expected, name), atol=1e-5, err_msg=name
            )


class BrokenScorer(RewardActor):
    """A scorer whose backend raises: the run must stop, not continue with a made-up reward."""

    def score(self, reports, references, token_ids, finished):
        raise RuntimeError("backend is out of order")


def test_a_backend_that_raises_stops_the_run(pool_config, monkeypatch):
    monkeypatch.setattr("actors.reward.spawn", lambda actor, *rest: spawn(BrokenScorer, *rest))
    broken = RewardPool(pool_config.reward, threads=pool_config.threads)
    with pytest.raises(PoolError, match="backend is out of order"):
        broken.score(REPORTS, REFERENCES, None, FINISHED)
    broken.close()
