"""Intervals and tests: coverage, agreement with SciPy, corpus metrics against a slow bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lmrrg.metrics.bootstrap import (
    Aggregate,
    bootstrap_all,
    bootstrap_ci,
    compare,
    paired_bootstrap,
    permutation_test,
)
from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.text.bleu import bleu_counts, bleu_from_counts
from tests.support.texts import random_pairs


def test_interval_of_a_mean_agrees_with_scipy() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=200)
    ours = bootstrap_ci(values, resamples=4000)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=1
    ).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.03)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(200):
        interval = bootstrap_ci(rng.normal(0.3, 1.0, size=80), resamples=300, seed=seed)
        covered += interval.low <= 0.3 <= interval.high
    assert 0.88 <= covered / 200 <= 0.99


def test_corpus_metric_equals_resampling_the_texts() -> None:
    hypotheses, references = random_pairs(60, seed=5)
    counts = bleu_counts(hypotheses, references)
    bleu4 = Aggregate(counts, lambda means: bleu_from_counts(means)[..., 3])
    fast = bootstrap_ci(bleu4, resamples=2000)
    rng = np.random.default_rng(9)
    slow = [
        bleu_from_counts(counts[rng.integers(0, 60, size=60)].sum(axis=0))[3] for _ in range(2000)
    ]
    assert fast.value == pytest.approx(bleu_from_counts(counts.sum(axis=0))[3])
    assert (fast.low, fast.high) == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=0.01)


def test_seeded() -> None:
    values = np.random.default_rng(2).normal(size=50)
    assert bootstrap_ci(values, seed=3) == bootstrap_ci(values, seed=3)
    assert bootstrap_ci(values, seed=3) != bootstrap_ci(values, seed=4)


def test_metrics_of_one_call_share_their_resamples() -> None:
    values = np.random.default_rng(2).normal(size=50)
    both = bootstrap_all({"x": Aggregate.mean(values), "y": Aggregate.mean(values + 1)})
    assert both["y"].low - both["x"].low == pytest.approx(1)


def test_chunks_do_not_change_the_result_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).normal(size=50)
    whole = bootstrap_ci(values, resamples=1000)
    monkeypatch.setattr("lmrrg.metrics.bootstrap._CHUNK_CELLS", 50 * 7)
    pieces = bootstrap_ci(values, resamples=1000)
    assert pieces.low == pytest.approx(whole.low, abs=0.05)


def test_pairing_finds_a_small_constant_difference() -> None:
    rng = np.random.default_rng(4)
    b = rng.normal(size=100)
    a = b + 0.1 + 0.01 * rng.normal(size=100)
    interval, p = paired_bootstrap(a, b)
    assert interval.value == pytest.approx(0.1, abs=0.01)
    assert interval.low > 0.09
    assert p == 0.0
    assert permutation_test(a, b) == pytest.approx(1 / 1001)


def test_permutation_test_agrees_with_scipy() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.normal(0.25, 1, size=40), rng.normal(size=40)
    theirs = stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=4000, rng=0
    ).pvalue
    assert permutation_test(a, b, resamples=4000) == pytest.approx(theirs, abs=0.03)


def test_p_values_of_equal_systems_are_uniform_enough() -> None:
    rng = np.random.default_rng(7)
    small = sum(
        permutation_test(*rng.normal(size=(2, 30)), resamples=200, seed=s) < 0.05
        for s in range(200)
    )
    assert small / 200 < 0.1


def test_identical_systems_do_not_differ() -> None:
    values = np.random.default_rng(8).normal(size=30)
    comparison = compare(values, values)
    assert (comparison.difference, comparison.low, comparison.high) == (0, 0, 0)
    assert comparison.p_bootstrap == comparison.p_permutation == 1.0


@pytest.mark.parametrize(
    ("a", "b", "code"),
    [
        ([1.0, 2.0], [1.0], "length_mismatch"),
        ([1.0, np.nan], [1.0, 2.0], "nan_scores"),
        ([], [], "no_studies"),
    ],
)
def test_refusals(a: list[float], b: list[float], code: str) -> None:
    with pytest.raises(MetricError) as error:
        paired_bootstrap(a, b)
    assert error.value.code == code
