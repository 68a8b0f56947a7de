"""Bootstrap intervals, and paired tests between two systems on the same studies.

Every metric is written as a function of *means over studies*: a mean RadCliQ directly, a micro-F1
through the mean counts of true and false positives, a corpus BLEU through the mean n-gram counts.
Resampling studies therefore only re-weights the rows of one table, which makes corpus-level metrics
as cheap as simple means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.parts import Array

# Resamples x studies held in memory at once: 32 MB of float64.
_CHUNK_CELLS = 4_000_000


def _first(means: Array) -> Array:
    """Return the only column of a metric that is a plain mean."""
    return means[..., 0]


@dataclass(frozen=True)
class Aggregate:
    """A corpus-level metric of N studies.

    ``of_means`` maps the column means [..., K] of ``rows`` [N, K] to the metric [...].

    A precision from the columns (hits, guesses):

    >>> rows = np.array([[1.0, 2.0], [2.0, 2.0]])
    >>> Aggregate(rows, lambda means: means[..., 0] / means[..., 1]).value
    0.75
    """

    rows: Array
    of_means: Callable[[Array], Array] = _first

    @staticmethod
    def mean(values: ArrayLike) -> Aggregate:
        """Return the plain mean of one value per study [N].

        >>> Aggregate.mean([1.0, 2.0, 6.0]).value
        3.0
        """
        return Aggregate(np.asarray(values, dtype=np.float64)[:, None])

    @property
    def value(self) -> float:
        """Return the metric of the studies, each counted once."""
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
    """Two-sided: twice the fraction of resamples whose difference is 0 or has the other sign."""
    p_permutation: float
    """Two-sided: fraction of random swaps of the systems with a difference at least as large."""


def bootstrap_ci(
    metric: Aggregate | ArrayLike, *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Return the percentile bootstrap interval of a metric, or of the mean of values [N].

    >>> bootstrap_ci([1.0, 2.0, 3.0, 4.0], resamples=100)
    Interval(value=2.5, low=1.25, high=3.25)
    >>> bootstrap_ci([0.5, 0.5, 0.5], resamples=100)
    Interval(value=0.5, low=0.5, high=0.5)

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
    """Return :func:`bootstrap_ci` of several metrics of the same studies.

    All metrics use the same resamples.

    >>> bootstrap_all({"a": Aggregate.mean([0.0, 0.0]), "b": Aggregate.mean([1.0, 1.0])})["b"]
    Interval(value=1.0, low=1.0, high=1.0)

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
    """Return the difference A - B with its interval, and its two-sided p.

    Each resample takes the same studies for both systems. B is 1 worse on every study:

    >>> interval, p = paired_bootstrap([2.0, 3.0, 7.0], [1.0, 2.0, 6.0])
    >>> interval, p
    (Interval(value=1.0, low=1.0, high=1.0), 0.0)

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
    """Return the two-sided p of "the two systems are exchangeable".

    For each study it is decided at random whether the two systems' reports are swapped. The
    observed assignment counts as one of the permutations, so that p is never 0.

    >>> permutation_test([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], resamples=99)
    1.0

    Raises:
        MetricError: ``length_mismatch``, ``no_studies`` or ``nan_scores``.
    """
    first, second = _paired(a, b)
    count = len(first.rows)
    rng = np.random.default_rng(seed)
    observed = abs(first.value - second.value)
    # What one system does not get in a permutation the other gets: the sum of the means is fixed.
    total = first.rows.mean(axis=0) + second.rows.mean(axis=0)
    extreme = 0
    for size in _chunks(count, resamples):
        keep = rng.integers(0, 2, size=(size, count)).astype(np.float64)
        means = (keep @ first.rows + (1 - keep) @ second.rows) / count
        differences = np.abs(first.of_means(means) - first.of_means(total - means))
        # The tolerance keeps permutations that equal the observed difference up to rounding.
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
    """Return :func:`paired_bootstrap` and :func:`permutation_test` together.

    Three studies are too few for a small p, however large the difference is:

    >>> result = compare([5.0, 6.0, 7.0], [1.0, 2.0, 3.0])
    >>> result.difference, result.p_permutation
    (4.0, 0.26)
    """
    interval, p = paired_bootstrap(a, b, resamples=resamples, confidence=confidence, seed=seed)
    swapped = permutation_test(a, b, resamples=resamples, seed=seed)
    return Comparison(interval.value, interval.low, interval.high, p, swapped)


def _draw(metrics: Mapping[str, Aggregate], resamples: int, seed: int) -> dict[str, Array]:
    """Return each metric [resamples] on the same resamples of the studies."""
    counts = {len(aggregate.rows) for aggregate in metrics.values()}
    if len(counts) != 1:
        raise MetricError(
            "length_mismatch", f"metrics of {sorted(counts)} studies cannot be resampled together"
        )
    count = counts.pop()
    rng = np.random.default_rng(seed)
    pieces: dict[str, list[Array]] = {name: [] for name in metrics}
    for size in _chunks(count, resamples):
        # How often each study was drawn, divided by N: rows of weights that sum to 1.
        weights = rng.multinomial(count, np.full(count, 1 / count), size=size) / count
        for name, aggregate in metrics.items():
            pieces[name].append(aggregate.of_means(weights @ aggregate.rows))
    return {name: np.concatenate(parts) for name, parts in pieces.items()}


def _paired(a: Aggregate | ArrayLike, b: Aggregate | ArrayLike) -> tuple[Aggregate, Aggregate]:
    """Return both as aggregates of the same number of studies."""
    first = a if isinstance(a, Aggregate) else Aggregate.mean(a)
    second = b if isinstance(b, Aggregate) else Aggregate.mean(b)
    if first.rows.shape != second.rows.shape:
        raise MetricError(
            "length_mismatch",
            f"paired systems with tables {first.rows.shape} and {second.rows.shape}",
        )
    return first, second


def _chunks(count: int, resamples: int) -> Iterator[int]:
    """Yield how many resamples of ``count`` studies to draw at a time."""
    step = max(1, _CHUNK_CELLS // count)
    for start in range(0, resamples, step):
        yield min(step, resamples - start)


def _interval(draws: Array, confidence: float) -> tuple[float, float]:
    """Return the central quantiles that hold ``confidence`` of the draws."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)
