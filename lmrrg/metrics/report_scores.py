"""The scores of one system's reports, what a results file holds of them, and their comparison."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from lmrrg.files import atomic_writer
from lmrrg.metrics.bootstrap import Aggregate, Comparison, Interval, bootstrap_all, compare
from lmrrg.metrics.clinical import ClassScore, UncertainPolicy
from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.parts import Array
from lmrrg.metrics.radcliq import RADCLIQ_METRICS
from lmrrg.metrics.sanity import SanityFinding


@dataclass(frozen=True)
class Stamp:
    """Every choice behind the numbers; systems are comparable only if their stamps are equal."""

    n: int
    section: str
    split: str
    convention: Mapping[str, object]
    backend: str | None
    backend_version: str | None
    reference_labels: str
    """Either "labeler", or "given" where labels of the references were passed in."""
    labeler: str
    uncertain_policy: UncertainPolicy
    """The policy of the class table; the metrics of both policies are always computed."""
    bootstrap: int
    seed: int
    versions: Mapping[str, str]
    """The version of each metric's definition."""


@dataclass(frozen=True)
class ReportScores:
    """The scores of N reports of one system."""

    stamp: Stamp
    study_ids: tuple[str, ...]
    columns: Mapping[str, Array]
    """Per-report scores [N] by metric."""
    aggregates: Mapping[str, Aggregate]
    """Corpus-level metrics, ready to be resampled."""
    texts: Mapping[str, float]
    """Counts of the generated texts: distinct reports, empty reports, lengths in words."""
    classes: Mapping[str, Mapping[str, ClassScore]] = field(default_factory=dict)
    """Per-class scores by uncertain policy."""
    unscored: tuple[str, ...] = ()
    """Metrics without a value, because no reference could be read."""

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """Return every corpus-level metric with its bootstrap interval."""
        by_count: dict[int, dict[str, Aggregate]] = {}
        # Metrics that leave out references have fewer studies to draw from than the others.
        for name, aggregate in self.aggregates.items():
            by_count.setdefault(len(aggregate.rows), {})[name] = aggregate
        found: dict[str, Interval] = {}
        for metrics in by_count.values():
            found |= bootstrap_all(metrics, resamples=self.stamp.bootstrap, seed=self.stamp.seed)
        return {name: found[name] for name in self.aggregates}

    @cached_property
    def summary(self) -> dict[str, object]:
        """Return the content of a results file.

        Its keys are ``stamp``, ``metrics`` (value, low, high), ``classes`` and ``texts``.
        """
        metrics: dict[str, dict[str, object]] = {}
        for name, interval in self.intervals.items():
            metrics[name] = self._entry(name, interval)
        for name in self.unscored:
            metrics[name] = {"value": None, "low": None, "high": None}
        if "radcliq_v1" in self.intervals:
            inverse = _inverse(self.intervals["radcliq_v1"])
            metrics["inverse_mean_radcliq_v1"] = inverse | {"backend": self.stamp.backend}
        classes: dict[str, dict[str, object]] = {}
        for policy, table in self.classes.items():
            classes[policy] = {label: asdict(score) for label, score in table.items()}
        return {
            "stamp": asdict(self.stamp),
            "metrics": metrics,
            "classes": classes,
            "texts": dict(self.texts),
        }

    @property
    def per_report(self) -> list[dict[str, object]]:
        """Return one record per report.

        It has ``study_id``; ``convention``, ``backend`` and ``backend_version`` as in the stamp;
        and every per-report metric.
        """
        choices: dict[str, object] = {
            "convention": self.stamp.convention,
            "backend": self.stamp.backend,
            "backend_version": self.stamp.backend_version,
        }
        records: list[dict[str, object]] = []
        for row, study_id in enumerate(self.study_ids):
            # JSON has no NaN: null stands for a pair that was not scored.
            scores = {name: finite_or_none(column[row]) for name, column in self.columns.items()}
            records.append({"study_id": study_id} | choices | scores)
        return records

    def save(self, path: Path, sanity: Sequence[SanityFinding] = ()) -> None:
        """Write :attr:`summary` and the failed sanity checks as JSON, atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = self.summary | {"sanity": [asdict(finding) for finding in sanity]}
        with atomic_writer(path) as out:
            json.dump(content, out, indent=2, allow_nan=False)
            out.write("\n")

    def save_per_report(self, path: Path) -> None:
        """Write :attr:`per_report` as JSONL, atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_writer(path) as out:
            for record in self.per_report:
                out.write(json.dumps(record, allow_nan=False) + "\n")

    def _entry(self, name: str, interval: Interval) -> dict[str, object]:
        """Return one metric of a results file."""
        entry: dict[str, object] = asdict(interval)
        # The name of the backend stands beside each score that depends on it, so that a number
        # that is copied out of the file cannot lose it.
        return entry | {"backend": self.stamp.backend} if name in RADCLIQ_METRICS else entry


def compare_systems(a: ReportScores, b: ReportScores, *, seed: int = 0) -> dict[str, Comparison]:
    """Return each metric of system A minus system B on the same studies, with paired tests.

    Raises:
        MetricError: ``not_comparable`` where the studies or a choice in the stamps differ.
    """
    other = asdict(b.stamp)
    differing = [key for key, value in asdict(a.stamp).items() if value != other[key]]
    if a.study_ids != b.study_ids:
        differing.append("study_ids")
    if differing:
        raise MetricError(
            "not_comparable", f"the two systems were scored with different {', '.join(differing)}"
        )
    resamples = a.stamp.bootstrap
    return {
        name: compare(a.aggregates[name], b.aggregates[name], resamples=resamples, seed=seed)
        for name in a.aggregates
        if name in b.aggregates
    }


def finite_or_none(value: float) -> float | None:
    """Return a score as JSON can hold it: None for NaN."""
    return float(value) if np.isfinite(value) else None


def _inverse(mean: Interval) -> dict[str, object]:
    """Return 1/mean with its bounds, as the ReXrank board prints it.

    The bounds are None where the interval of the mean includes 0, because 1/mean has a pole there.

    >>> _inverse(Interval(0.5, 0.25, 1.0))
    {'value': 2.0, 'low': 1.0, 'high': 4.0}
    >>> _inverse(Interval(0.5, -0.25, 1.0))["low"] is None
    True
    """
    bounded = mean.low > 0 or mean.high < 0
    return {
        "value": 1 / mean.value if mean.value else None,
        "low": 1 / mean.high if bounded else None,
        "high": 1 / mean.low if bounded else None,
    }
