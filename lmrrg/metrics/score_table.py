"""The scores of a system, or the difference of two, as a table for people."""

from __future__ import annotations

from collections.abc import Mapping

from lmrrg.metrics.bootstrap import Comparison, Interval
from lmrrg.metrics.suite import GROUPS, LOWER_IS_BETTER, ReportScores

_TITLES = {"radcliq": "clinical text metrics", "clinical": "findings", "nlg": "words"}


def format_scores(scores: ReportScores) -> str:
    """Every corpus-level metric with its interval, below one line per choice."""
    lines = [*_header(scores), ""]
    for group, names in GROUPS.items():
        rows = [(name, scores.intervals[name]) for name in names if name in scores.intervals]
        if rows:
            backend = f" ({scores.stamp.backend})" if group == "radcliq" else ""
            lines += [
                f"{_TITLES[group]}{backend}",
                *(_row(name, interval) for name, interval in rows),
                "",
            ]
    headline = scores.classes.get(scores.stamp.uncertain_policy)
    if headline:
        lines.append(
            f"{'class (uncertain ' + scores.stamp.uncertain_policy + ')':34} {'F1':>7} {'reference':>10} {'found':>7}"
        )
        lines += [
            f"  {label:32} {s.f1:7.3f} {s.references:10} {s.hypotheses:7}"
            for label, s in headline.items()
        ]
    return "\n".join(lines).rstrip()


def format_comparison(comparison: Mapping[str, Comparison]) -> str:
    """System A minus system B, metric by metric."""
    head = f"{'A - B':34} {'difference':>10}  {'95% interval':19} {'p boot':>7} {'p perm':>7}"
    rows = [
        f"  {name:32} {c.difference:10.4f}  [{c.low:8.4f},{c.high:8.4f}] {c.p_bootstrap:7.4f} {c.p_permutation:7.4f}"
        for name, c in comparison.items()
    ]
    return "\n".join([head, *rows])


def _header(scores: ReportScores) -> list[str]:
    stamp, texts = scores.stamp, scores.texts
    convention = ", ".join(f"{key} {value}" for key, value in stamp.convention.items())
    return [
        f"{stamp.n} reports, section {stamp.section}, split {stamp.split}",
        f"convention: {convention}",
        f"distinct reports {texts['distinct_reports']:.0f} (references {texts['distinct_references']:.0f}), "
        f"empty {texts['empty_reports']:.0f}, "
        f"mean length {texts['mean_words']:.1f} words (references {texts['mean_reference_words']:.1f})",
    ]


def _row(name: str, interval: Interval) -> str:
    arrow = "lower is better" if name in LOWER_IS_BETTER else ""
    return f"  {name:32} {interval.value:9.4f}  [{interval.low:8.4f},{interval.high:8.4f}] {arrow}".rstrip()
