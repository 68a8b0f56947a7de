"""The whole suite on small systems: values, stamps, comparisons, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmrrg.metrics.clinical import CLINICAL_METRICS
from lmrrg.metrics.embedded.backend import EmbeddedBackend
from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.radcliq import RADCLIQ_METRICS
from lmrrg.metrics.report_scores import ReportScores, compare_systems
from lmrrg.metrics.score_table import format_comparison, format_scores
from lmrrg.metrics.suite import (
    GROUPS,
    score_reports,
    select_metrics,
)
from lmrrg.metrics.text.conventions import R2Gen, Raw

REFERENCES = [
    "The heart is enlarged. There is a small left pleural effusion.",
    "Heart size is normal. The lungs are clear.",
    "There is a right lower lobe consolidation. No pneumothorax.",
    "No acute cardiopulmonary abnormality.",
]
NORMAL = ["The heart is normal. The lungs are clear."] * 4
QUICK = [*RADCLIQ_METRICS, "clinical", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider"]


def score(hypotheses: list[str], **changes) -> ReportScores:
    choices = {
        "convention": Raw(),
        "backend": EmbeddedBackend(),
        "metrics": QUICK,
        "bootstrap": 200,
    } | changes
    return score_reports(REFERENCES, hypotheses, **choices)


@pytest.fixture(scope="module")
def perfect() -> ReportScores:
    return score(list(REFERENCES))


@pytest.fixture(scope="module")
def normal() -> ReportScores:
    return score(NORMAL)


def test_identical_reports(perfect: ReportScores) -> None:
    metrics = perfect.summary["metrics"]
    assert metrics["radcliq_v1"]["value"] == pytest.approx(-1.44069, abs=0.2)
    for name in (
        "rg_e",
        "bertscore",
        "semb",
        "bleu2",
        "micro_f1_14_uncertain_positive",
        "bleu_4",
        "rouge_l",
    ):
        assert metrics[name]["value"] == pytest.approx(1.0), name
    assert metrics["inverse_mean_radcliq_v1"]["value"] == pytest.approx(
        1 / metrics["radcliq_v1"]["value"]
    )


def test_per_report_records_have_the_promised_fields(normal: ReportScores) -> None:
    record = normal.per_report[0]
    promised = {
        "study_id",
        "backend",
        "rg_e",
        "rg_er",
        "rg_bar_er",
        "radgraph",
        "bertscore",
        "semb",
        "bleu2",
    }
    assert promised | {"radcliq_v0", "radcliq_v1", "bleu_4", "rouge_l", "cider"} <= record.keys()
    assert record["backend"] == "radcliq-embedded"
    assert list(record)[:4] == ["study_id", "convention", "backend", "backend_version"]
    assert record["convention"] == {"name": "raw"}
    assert record["backend_version"] == EmbeddedBackend.version
    assert [row["study_id"] for row in normal.per_report] == ["0", "1", "2", "3"]


def test_summary_is_stamped_and_is_json(normal: ReportScores, tmp_path: Path) -> None:
    normal.save(tmp_path / "deep" / "results.json")
    summary = json.loads((tmp_path / "deep" / "results.json").read_text())
    assert summary["stamp"]["convention"] == {"name": "raw"}
    assert (
        summary["stamp"]["backend"]
        == summary["metrics"]["radcliq_v1"]["backend"]
        == "radcliq-embedded"
    )
    assert summary["stamp"]["backend_version"] == EmbeddedBackend.version
    assert summary["stamp"]["n"] == 4
    for name, entry in summary["metrics"].items():
        if entry["low"] is not None:
            assert entry["low"] - 1e-9 <= entry["value"] <= entry["high"] + 1e-9, name
    normal.save_per_report(tmp_path / "per_report.jsonl")
    lines = (tmp_path / "per_report.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == normal.per_report


def test_a_normal_template_is_worse_and_the_comparison_says_so(
    perfect: ReportScores, normal: ReportScores
) -> None:
    comparison = compare_systems(perfect, normal)
    assert comparison["radcliq_v1"].high < 0
    assert comparison["micro_f1_14_uncertain_positive"].difference > 0
    assert "radcliq_v1" in format_comparison(comparison)


def test_an_empty_report_is_allowed_and_worst() -> None:
    scores = score(["", *REFERENCES[1:]])
    assert scores.columns["radcliq_v1"][0] == pytest.approx(2.4501, abs=1e-4)
    assert scores.columns["radcliq_v1"][0] == max(scores.columns["radcliq_v1"])
    assert scores.columns["bleu_1"][0] == pytest.approx(0, abs=1e-9)
    assert scores.texts["empty_reports"] == 1


def test_convention_changes_only_the_words() -> None:
    convention = R2Gen.from_training_reports(REFERENCES, threshold=1, reference_tokens=60)
    shouted = [text.upper() for text in REFERENCES]
    raw, cleaned = score(shouted), score(shouted, convention=convention)
    assert cleaned.columns["bleu_4"] == pytest.approx([1.0] * 4)
    assert raw.columns["bleu_4"][0] < 0.5
    assert raw.columns["radcliq_v1"].tolist() == cleaned.columns["radcliq_v1"].tolist()


def test_given_labels_replace_the_labeler() -> None:
    labels = [{"Pneumothorax": 1}] * 4
    scores = score(list(REFERENCES), reference_labels=labels, metrics=["clinical"], backend=None)
    assert scores.classes["positive"]["Pneumothorax"].references == 4
    assert scores.stamp.reference_labels == "given"


def test_only_what_was_asked_for_is_computed() -> None:
    scores = score(NORMAL, metrics=["rouge_l", "radcliq_v1"])
    assert set(scores.aggregates) == set(scores.columns) == {"rouge_l", "radcliq_v1"}
    assert select_metrics(["clinical"]) == set(CLINICAL_METRICS)
    assert select_metrics(None) == {metric for group in GROUPS.values() for metric in group}


def test_table_shows_every_metric(normal: ReportScores) -> None:
    table = format_scores(normal)
    # Precision and recall stand in the row of their F1.
    rows = {name.replace("precision", "f1").replace("recall", "f1") for name in normal.aggregates}
    assert all(name in table for name in rows)
    micro = next(line for line in table.splitlines() if "micro_f1_14_uncertain_positive" in line)
    assert all(
        f"{name} {normal.aggregates[f'micro_{name}_14_uncertain_positive'].value:.4f}" in micro
        for name in ("precision", "recall")
    )
    assert "distinct reports 1 (references 4)" in table
    assert "radcliq-embedded" in table


@pytest.mark.parametrize(
    ("hypotheses", "changes", "code"),
    [
        (NORMAL[:3], {}, "length_mismatch"),
        ([float("nan"), *NORMAL[1:]], {}, "missing_text"),
        (NORMAL, {"study_ids": ["a", "a", "b", "c"]}, "duplicate_id"),
        (NORMAL, {"metrics": ["bleu9"]}, "unknown_metric"),
        (NORMAL, {"backend": None}, "no_backend"),
        (NORMAL, {"reference_labels": [{}]}, "length_mismatch"),
        (NORMAL, {"bootstrap": 0}, "bad_bootstrap"),
    ],
)
def test_refusals(hypotheses: list[str], changes: dict[str, object], code: str) -> None:
    with pytest.raises(MetricError) as error:
        score(hypotheses, **changes)
    assert error.value.code == code


@pytest.mark.parametrize(
    ("references", "code"),
    [([], "no_studies"), (["", "a b"], "empty_reference"), ([None, "a b"], "missing_text")],
)
def test_references_are_required(references: list[str], code: str) -> None:
    with pytest.raises(MetricError) as error:
        score_reports(
            references,
            ["heart"] * len(references),
            convention=Raw(),
            backend=None,
            metrics=["rouge_l"],
        )
    assert error.value.code == code


def test_different_choices_cannot_be_compared(perfect: ReportScores) -> None:
    with pytest.raises(MetricError, match=r"not_comparable.*split"):
        compare_systems(perfect, score(NORMAL, split="test"))
    with pytest.raises(MetricError, match=r"not_comparable.*study_ids"):
        compare_systems(perfect, score(NORMAL, study_ids=["a", "b", "c", "d"]))


def test_incoherent_reports_are_counted_by_kind() -> None:
    said = ["Left effusion. No effusion.", "No edema.", "No edema. No edema. Small ptosis."]
    scores = score_reports(
        ["Left effusion."] * 3, said, convention=Raw(), backend=None, metrics=["coherence"]
    )
    assert scores.columns["coherence"].tolist() == [0, 1, 0]
    assert scores.intervals["coherence"].value == pytest.approx(1 / 3)
    counts = {name: n for name, n in scores.texts.items() if name.endswith("_reports") and n}
    assert counts["incoherent_reports"] == 2
    assert counts["contradicted_reports"] == counts["repeated_reports"] == 1
    assert "incoherent reports 2: contradicted 1, repeated 1" in format_scores(scores)
