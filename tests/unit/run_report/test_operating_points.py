"""Charts and tables of operating points in the run report."""

from __future__ import annotations

from typing import Any

from lmrrg.run_report.operating_points import operating_curves


def record(threshold: float, value: float) -> dict[str, Any]:
    return {
        "threshold": threshold,
        "precision": value,
        "recall": 1 - value,
        "f1_13": 0.4,
        "f1_5": 0.5,
        "macro_14": 0.25,
        "radcliq_v1": 0.7 - value,
        "distinct_reports": 12,
        "distinct_finding_sets": 7,
    }


def test_every_system_with_points_has_a_curve_and_a_table():
    points = [record(0.16, 0.3), record(0.4, 0.625)]
    systems = [
        {"title": "SFT", "operating_points": points},
        {"title": "PPO", "operating_points": points[:1]},
        {"title": "Constant", "operating_points": []},
        {"title": "Of an older version"},
    ]
    shown = operating_curves(systems, "RadCliQ-embedded")
    assert shown["names"] == ["SFT", "PPO"]
    assert [chart["title"] for chart in shown["charts"]] == [
        "Precision and recall",
        "F1 by threshold",
        "RadCliQ-embedded by recall",
    ]
    assert "SFT at 0.375: 0.625" in shown["charts"][0]["svg"]
    assert "SFT at 0.4: 0.4" in shown["charts"][1]["svg"]
    assert "SFT at 0.375: 0.075" in shown["charts"][2]["svg"]
    rows = shown["tables"][0]["rows"]
    assert rows[1] == ["0.4", "0.625", "0.375", "0.400", "0.500", "0.250", "0.075", "12", "7"]
    assert len(rows[0]) == len(shown["columns"])


def test_without_points_the_section_is_empty():
    shown = operating_curves([{"title": "SFT", "operating_points": []}], "RadCliQ")
    assert (shown["names"], shown["charts"], shown["tables"]) == ([], [], [])
