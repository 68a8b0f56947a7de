"""What the data of a run is made of: counts, lengths and labels of every split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lmrrg.studies import LABELS, POSITIVE, Section, Study

_ORDER = ("train", "val", "test", "no split")


def audit_studies(
    studies: Sequence[Study], section: Section, imported: Mapping[str, Any]
) -> dict[str, Any]:
    """Tables for the run report: ``source``, ``splits``, ``counts`` and ``labels`` (rows with one cell per split).

    ``imported`` is what the import noted beside the manifest: rows read, rows ``dropped`` by reason, ``notes``.
    """
    of_split = {name: [s for s in studies if (s.split or "no split") == name] for name in _ORDER}
    present = {name: members for name, members in of_split.items() if members}
    columns = [_counts(members, section) for members in present.values()]
    return {
        "source": ", ".join(sorted({study.source or "unnamed" for study in studies})),
        "splits": list(present),
        "rows_read": f"{imported['rows_read']:,}",
        "dropped": [
            {"reason": reason, "rows": f"{rows:,}"} for reason, rows in imported["dropped"].items()
        ],
        "notes": [{"title": title, "text": text} for title, text in imported["notes"].items()],
        "counts": [
            {"title": title, "cells": [column[title] for column in columns]} for title in columns[0]
        ],
        "labels": [
            {
                "title": label,
                "cells": [_positive_share(members, label) for members in present.values()],
            }
            for label in LABELS
        ],
    }


def _counts(studies: Sequence[Study], section: Section) -> dict[str, str]:
    reports = [study.report(section) for study in studies]
    words = [len(report.split()) for report in reports if report.strip()]
    low, middle, high = np.percentile(words, [5, 50, 95]) if words else (0, 0, 0)
    views = Counter(image.view for study in studies for image in study.images)
    return {
        "Studies": f"{len(studies):,}",
        "Patients": f"{len({study.patient for study in studies}):,}",
        "Images": f"{sum(views.values()):,}",
        "Views": ", ".join(f"{view} {count:,}" for view, count in views.most_common()),
        "Studies without this section (not used)": f"{len(reports) - len(words):,}",
        "Words per report: median (5% to 95%)": f"{middle:.0f} ({low:.0f} to {high:.0f})",
        "Distinct reports": f"{len({report for report in reports if report.strip()}):,}",
        "Labelled studies": f"{sum(study.labels is not None for study in studies):,}",
        "Abnormal studies": f"{sum(study.is_abnormal for study in studies):,}",
    }


def _positive_share(studies: Sequence[Study], label: str) -> dict[str, Any]:
    labelled = [study.labels for study in studies if study.labels is not None]
    if not labelled:
        return {"width": 0, "value": "–"}
    share = sum(labels.get(label) == POSITIVE for labels in labelled) / len(labelled)
    return {"width": round(100 * share), "value": f"{100 * share:.1f}%"}
