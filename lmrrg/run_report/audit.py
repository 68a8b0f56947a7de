"""The data audit of the run report: counts, lengths and labels of every split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lmrrg.studies import LABELS, POSITIVE, Section, Study

_SPLITS = ("train", "val", "test", "no split")


def audit_studies(
    studies: Sequence[Study], section: Section, imported: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the tables of the data audit, each row with one cell for each split.

    The keys are ``source``, ``splits``, ``rows_read``, ``dropped``, ``notes``, ``counts`` and
    ``labels``.

    Args:
        studies: the whole manifest of the run.
        section: the section of the report that the run works on.
        imported: the audit that the import wrote beside the manifest: ``rows_read``, the number of
            rows ``dropped`` by reason, and ``notes``.
    """
    by_split = _by_split(studies)
    columns = [_counts(members, section) for members in by_split.values()]
    counts = [{"title": title, "cells": _cells(columns, title)} for title in columns[0]]
    labels = []
    for label in LABELS:
        cells = [_positive_rate(members, label) for members in by_split.values()]
        labels.append({"title": label, "cells": cells})
    dropped = imported["dropped"].items()
    return {
        "source": ", ".join(sorted({study.source or "unnamed" for study in studies})),
        "splits": list(by_split),
        "rows_read": f"{imported['rows_read']:,}",
        "dropped": [{"reason": reason, "rows": f"{rows:,}"} for reason, rows in dropped],
        "notes": [{"title": title, "text": text} for title, text in imported["notes"].items()],
        "counts": counts,
        "labels": labels,
    }


def _by_split(studies: Sequence[Study]) -> dict[str, list[Study]]:
    """Return the studies of each split that has some, in the order of :data:`_SPLITS`."""
    by_split: dict[str, list[Study]] = {split: [] for split in _SPLITS}
    for study in studies:
        by_split[study.split or "no split"].append(study)
    return {split: members for split, members in by_split.items() if members}


def _counts(studies: Sequence[Study], section: Section) -> dict[str, str]:
    """Return the cells of one split by the title of their row."""
    reports = [study.report(section) for study in studies]
    written = [report for report in reports if report.strip()]
    words = [len(report.split()) for report in written]
    low, median, high = np.percentile(words, [5, 50, 95]) if words else (0, 0, 0)
    views = Counter(image.view for study in studies for image in study.images)
    return {
        "Studies": f"{len(studies):,}",
        "Patients": f"{len({study.patient for study in studies}):,}",
        "Images": f"{sum(views.values()):,}",
        "Views": ", ".join(f"{view} {count:,}" for view, count in views.most_common()),
        "Studies without this section (not used)": f"{len(reports) - len(written):,}",
        "Words per report: median (5% to 95%)": f"{median:.0f} ({low:.0f} to {high:.0f})",
        "Distinct reports": f"{len(set(written)):,}",
        "Labelled studies": f"{sum(study.labels is not None for study in studies):,}",
        "Abnormal studies": f"{sum(study.is_abnormal for study in studies):,}",
    }


def _cells(columns: Sequence[Mapping[str, str]], title: str) -> list[str]:
    return [column[title] for column in columns]


def _positive_rate(studies: Sequence[Study], label: str) -> dict[str, Any]:
    """Return the percentage of the labelled studies in which a class is positive, and its bar."""
    labelled = [study.labels for study in studies if study.labels is not None]
    if not labelled:
        return {"width": 0, "value": "–"}
    rate = sum(labels.get(label) == POSITIVE for labels in labelled) / len(labelled)
    return {"width": round(100 * rate), "value": f"{100 * rate:.1f}%"}
