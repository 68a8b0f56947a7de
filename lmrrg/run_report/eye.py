"""The run report's section on the eye: how far its probabilities can be believed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmrrg.run_report.charts import Series, line_chart
from lmrrg.vision.eye import is_eye, read_eye_settings
from lmrrg.vision.eye_validation import ENOUGH_POSITIVES


def eye_section(folder: Path) -> dict[str, Any] | None:
    """Return the variables of the section; None where there is no eye that was validated.

    Args:
        folder: of the image encoder in a checkpoint; packaged weights have none, and a model of
            Hugging Face is no eye.

    Raises:
        FeatureError: ``encoder_weights``, the eye is damaged.
    """
    if not is_eye(folder):
        return None
    provenance = read_eye_settings(folder)["provenance"]
    found = provenance.get("validation")
    if found is None:
        return None
    return {
        "studies": f"{found['studies']:,}",
        "epoch": provenance["epoch"],
        "average_precision": f"{found['average_precision']:.3f}",
        "error": _percent(found["calibration_error"]),
        "honest_error": _percent(found["cross_validated_error"]),
        "chart": _reliability_chart(found["bins"]) if found["bins"] else None,
        "enough": ENOUGH_POSITIVES,
        "rows": [_class_row(label, one) for label, one in found["classes"].items()],
    }


def _reliability_chart(bins: list[Mapping[str, float]]) -> str:
    # In percent: the ticks of the x axis are whole numbers.
    eye = Series(
        "eye",
        [100 * one["probability"] for one in bins],
        [100 * one["rate"] for one in bins],
    )
    perfect = Series("perfectly calibrated", [0.0, 100.0], [0.0, 100.0])
    return line_chart(
        [eye, perfect], "probability, %", "labels that are positive, %", "reliability"
    )


def _class_row(label: str, found: Mapping[str, Any]) -> dict[str, Any]:
    auc = found["auc"]
    threshold = found["threshold"]
    return {
        "title": label,
        "positives": found["positives"],
        "auc": "–" if auc is None else f"{auc:.3f}",
        "threshold": "too few positives" if threshold is None else f"{threshold:.2f}",
    }


def _percent(value: float | None) -> str:
    return "not known" if value is None else f"{100 * value:.1f} %"
