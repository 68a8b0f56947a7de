"""How sure a number is: bootstrap intervals, and paired tests between two systems on the same studies.

Every metric here is a function of *means over studies*: a mean RadCliQ trivially, a micro-F1 through the mean counts of
true and false positives, a corpus BLEU through the mean n-gram counts. Resampling studies therefore only re-weights the
rows of one table, which makes corpus-level metrics as cheap as simple means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.parts import Array

_CHUNK_CELLS = 4_000_000  # resamples x studies held in memory at once


def _first(means: Array) -> Array:
    return means[..., 0]


@dataclass(frozen=True)
class Aggregate:
    """A corpus-level metric: ``of_means`` maps the column means [..., K] of ``rows`` [N, K] to the metric [...]."""

    rows: Array
    of_means: Callable[[Array], Array] = _first

    @staticmethod
    def mean(values: ArrayLike) -> Aggregate:
        """The plain mean of one value per study [N]."""
        return Aggregate(np.asarray(values, dtype=np.float64)[:, None])

    @property
    def value(self) -> float:
        """The metric on the studies as they are."""
        return float(self.of_means(self.rows.mean(axis=0)))

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or not len(self.rows):
            raise MetricError(
                "no_studies", f"an aggregate needs a table [N, K] with N > 0, not {self.rows.shape}"
            )
        if not np.isfinite(self.rows).all():
            raise MetricError(
                "nan_scores",
                f"{int((~np.isfinite(self.rows)).any(axis=1).sum())} studies have no score",
            )


@dataclass(frozen=True)
class Interval:
    """A value with its bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """System A minus system B on the same studies."""

    difference: float
    low: float
    high: float
    p_bootstrap: float
    """Two-sided: twice the share of resamples in which the difference is zero or has the other sign."""
    p_permutation: float
    """Two-sided: share of random swaps of the two systems with a difference at least as large."""


def bootstrap_ci(
    metric: Aggregate | ArrayLike, *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Percentile bootstrap over studies of a metric, or of the mean of values [N].

    Raises:
        MetricError: ``no_studies`` or ``nan_scores``.
    """
    aggregate = metric if isinstance(metric, Aggregate) else Aggregate.mean(metric)
    return bootstrap_all({"": aggregate}, resamples=resamples, confidence=confidence, seed=seed)[""]


def bootstrap_all(
    metrics: Mapping[str, Aggregate],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """:func:`bootstrap_ci` of several metrics of the same studies, all on the same resamples.

    Raises:
        MetricError: ``length_mismatch`` where the metrics have different numbers of studies.
    """
    draws = _draw(metrics, resamples, seed)
    return {
        name: Interval(metrics[name].value, *_interval(draws[name], confidence)) for name in metrics
    }


def paired_bootstrap(
    a: Aggregate | ArrayLike,
    b: Aggregate | ArrayLike,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[Interval, float]:
    """The difference A - B with its interval, and its two-sided p, resampling the same studies for both systems.

    Raises:
        MetricError: ``length_mismatch``, ``no_studies`` or ``nan_scores``.
    """
    first, second = _paired(a, b)
    draws = _draw({"a": first, "b": second}, resamples, seed)
    differences = draws["a"] - draws["b"]
    other_side = min((differences <= 0).mean(), (differences >= 0).mean())
    interval = Interval(first.value - second.value, *_interval(differences, confidence))
    return interval, float(min(1.0, 2 * other_side))


def permutation_test(
    a: Aggregate | ArrayLike, b: Aggregate | ArrayLike, *, resamples: int = 1000, seed: int = 0
) -> float:
    """Two-sided p of "the two systems are exchangeable": which system wrote which report is swapped at random.

    The observed assignment counts as one of the permutations, so that p is never 0.

    Raises:
        MetricError: ``length_mismatch``, ``no_studies`` or ``nan_scores``.
    """
    first, second = _paired(a, b)
    count = len(first.rows)
    rng = np.random.default_rng(seed)
    observed = abs(first.value - second.value)
    total = first.rows.mean(axis=0) + second.rows.mean(axis=0)
    extreme = 0
    for size in _chunks(count, resamples):
        keep = rng.integers(0, 2, size=(size, count)).astype(np.float64)
        means = (keep @ first.rows + (1 - keep) @ second.rows) / count
        differences = np.abs(first.of_means(means) - first.of_means(total - means))
        extreme += int((differences >= observed - 1e-12).sum())
    return (extreme + 1) / (resamples + 1)


def compare(
    a: Aggregate | ArrayLike,
    b: Aggregate | ArrayLike,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """:func:`paired_bootstrap` and :func:`permutation_test` together."""
    interval, p = paired_bootstrap(a, b, resamples=resamples, confidence=confidence, seed=seed)
    swapped = permutation_test(a, b, resamples=resamples, seed=seed)
    return Comparison(interval.value, interval.low, interval.high, p, swapped)


def _draw(metrics: Mapping[str, Aggregate], resamples: int, seed: int) -> dict[str, Array]:
    """Each metric [resamples] on the same resamples of the studies."""
    counts = {len(aggregate.rows) for aggregate in metrics.values()}
    if len(counts) != 1:
        raise MetricError(
            "length_mismatch", f"metrics of {sorted(counts)} studies cannot be resampled together"
        )
    count = counts.pop()
    rng = np.random.default_rng(seed)
    pieces: dict[str, list[Array]] = {name: [] for name in metrics}
    for size in _chunks(count, resamples):
        # how often each study was drawn, over N: rows of weights that sum to 1
        weights = rng.multinomial(count, np.full(count, 1 / count), size=size) / count
        for name, aggregate in metrics.items():
            pieces[name].append(aggregate.of_means(weights @ aggregate.rows))
    return {name: np.concatenate(parts) for name, parts in pieces.items()}


def _paired(a: Aggregate | ArrayLike, b: Aggregate | ArrayLike) -> tuple[Aggregate, Aggregate]:
    first = a if isinstance(a, Aggregate) else Aggregate.mean(a)
    second = b if isinstance(b, Aggregate) else Aggregate.mean(b)
    if first.rows.shape != second.rows.shape:
        raise MetricError(
            "length_mismatch",
            f"paired systems with tables {first.rows.shape} and {second.rows.shape}",
        )
    return first, second


def _chunks(count: int, resamples: int) -> Iterator[int]:
    step = max(1, _CHUNK_CELLS // count)
    for start in range(0, resamples, step):
        yield min(step, resamples - start)


def _interval(draws: Array, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)
