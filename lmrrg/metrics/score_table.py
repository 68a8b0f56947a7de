"""Format the scores of a system, or the difference of two, as a text table."""

from __future__ import annotations

from collections.abc import Mapping

from lmrrg.metrics.bootstrap import Comparison
from lmrrg.metrics.clinical import ClassScore
from lmrrg.metrics.coherence.fault import FAULT_KINDS
from lmrrg.metrics.radcliq import LOWER_IS_BETTER
from lmrrg.metrics.report_scores import ReportScores
from lmrrg.metrics.suite import GROUPS

_TITLES = {
    "radcliq": "clinical text metrics",
    "clinical": "findings",
    "coherence": "coherence",
    "nlg": "words",
}


def format_scores(scores: ReportScores) -> str:
    """Return a header of the choices, every corpus-level metric with its interval, and the classes.

    >>> from lmrrg.metrics.suite import score_reports
    >>> from lmrrg.metrics.text.conventions import Raw
    >>> options = {"convention": Raw(), "backend": None, "metrics": ["rouge_l"]}
    >>> print(format_scores(score_reports(["clear lungs"], ["clear lungs"], **options)))
    1 reports, section unstated, split unstated
    convention: name raw
    distinct reports 1 (references 1), empty 0, mean length 2.0 words (references 2.0)
    <BLANKLINE>
    words
      rouge_l                             1.0000  [  1.0000,  1.0000]
    """
    lines = [*_header(scores), ""]
    for group, names in GROUPS.items():
        rows = [_row(name, scores) for name in names if _has_own_row(name, scores)]
        if not rows:
            continue
        backend = f" ({scores.stamp.backend})" if group == "radcliq" else ""
        lines += [f"{_TITLES[group]}{backend}", *rows, ""]
    headline = scores.classes.get(scores.stamp.uncertain_policy)
    if headline:
        lines += _class_rows(headline, scores.stamp.uncertain_policy)
    return "\n".join(lines).rstrip()


def format_comparison(comparison: Mapping[str, Comparison], title: str = "A - B") -> str:
    """Return one line per metric: system A minus system B, its interval and both p values.

    ``title`` names the two systems.

    >>> print(format_comparison({"rouge_l": Comparison(0.02, -0.01, 0.05, 0.21, 0.198)}))
    A - B                              difference  95% interval         p boot  p perm
      rouge_l                              0.0200  [ -0.0100,  0.0500]  0.2100  0.1980
    """
    lines = [f"{title:34} {'difference':>10}  {'95% interval':19} {'p boot':>7} {'p perm':>7}"]
    for name, result in comparison.items():
        interval = f"[{result.low:8.4f},{result.high:8.4f}]"
        p_values = f"{result.p_bootstrap:7.4f} {result.p_permutation:7.4f}"
        lines.append(f"  {name:32} {result.difference:10.4f}  {interval} {p_values}")
    return "\n".join(lines)


def _class_rows(classes: Mapping[str, ClassScore], policy: str) -> list[str]:
    """Return a line per class: F1, and how many references and hypotheses have the class."""
    title = f"class (uncertain {policy})"
    lines = [f"{title:34} {'F1':>7} {'reference':>10} {'found':>7}"]
    for label, score in classes.items():
        lines.append(f"  {label:32} {score.f1:7.3f} {score.references:10} {score.hypotheses:7}")
    return lines


def _header(scores: ReportScores) -> list[str]:
    stamp = scores.stamp
    texts = scores.texts
    convention = ", ".join(f"{key} {value}" for key, value in stamp.convention.items())
    lines = [
        f"{stamp.n} reports, section {stamp.section}, split {stamp.split}",
        f"convention: {convention}",
        f"distinct reports {texts['distinct_reports']:.0f} "
        f"(references {texts['distinct_references']:.0f}), "
        f"empty {texts['empty_reports']:.0f}, "
        f"mean length {texts['mean_words']:.1f} words "
        f"(references {texts['mean_reference_words']:.1f})",
    ]
    if texts.get("incoherent_reports"):
        lines.append(_faults_line(texts))
    unreadable = texts.get("unreadable_references", 0)
    if unreadable:
        lines.append(
            f"not read by RadCliQ and the findings: {unreadable:.0f} of {stamp.n} references, "
            "which have too few known English words"
        )
    return lines


def _faults_line(texts: Mapping[str, float]) -> str:
    """Return how many reports are incoherent, and why; a report may have several reasons."""
    counts = {kind.replace("_", " "): texts[f"{kind}_reports"] for kind in FAULT_KINDS}
    reasons = ", ".join(f"{kind} {count:.0f}" for kind, count in counts.items() if count)
    return f"incoherent reports {texts['incoherent_reports']:.0f}: {reasons}"


def _has_own_row(name: str, scores: ReportScores) -> bool:
    """Return whether a metric gets a line; precision and recall stand beside their F1."""
    if name in scores.unscored:
        return _f1_of(name) == name or _f1_of(name) not in scores.unscored
    beside_f1 = _f1_of(name) != name and _f1_of(name) in scores.intervals
    return name in scores.intervals and not beside_f1


def _f1_of(name: str) -> str:
    """Return the F1 that a precision or a recall belongs to; another name as it is."""
    return name.replace("_precision_", "_f1_").replace("_recall_", "_f1_")


def _row(name: str, scores: ReportScores) -> str:
    if name in scores.unscored:
        return f"  {name:32} {'not scored':>9}"
    interval = scores.intervals[name]
    bounds = f"[{interval.low:8.4f},{interval.high:8.4f}]"
    remark = "lower is better" if name in LOWER_IS_BETTER else _precision_and_recall(name, scores)
    return f"  {name:32} {interval.value:9.4f}  {bounds} {remark}".rstrip()


def _precision_and_recall(name: str, scores: ReportScores) -> str:
    """Return the precision and the recall that belong to an F1, where they were computed."""
    found: list[str] = []
    for measure in ("precision", "recall"):
        other = name.replace("_f1_", f"_{measure}_")
        if other != name and other in scores.intervals:
            found.append(f"{measure} {scores.intervals[other].value:.4f}")
    return ", ".join(found)
