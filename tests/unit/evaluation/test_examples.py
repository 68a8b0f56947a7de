"""The examples and regions of the run report follow the rules that the page states."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmrrg.anatomy import REGIONS
from lmrrg.evaluation.examples import _CENTRAL, _SIDED, choose_examples, relevant_regions
from lmrrg.metrics.embedded.labeler import label_report
from lmrrg.studies import LABELS, Study, StudyImage


def _studies(abnormal: int, normal: int) -> list[Study]:
    labels = [{"Edema": 1}] * abnormal + [{"No Finding": 1}] * normal
    return [
        Study(str(i), str(i), (StudyImage(Path("x.png")),), labels=one)
        for i, one in enumerate(labels)
    ]


@pytest.mark.parametrize(
    ("abnormal", "normal", "expected"), [(20, 20, 3), (1, 20, 1), (20, 2, 4), (2, 1, 2), (0, 9, 0)]
)
def test_half_of_the_examples_are_abnormal_where_there_are_enough(
    abnormal: int, normal: int, expected: int
) -> None:
    studies = _studies(abnormal, normal)
    rows = choose_examples(studies, 6, seed=1)
    assert len(rows) == len(set(rows)) == min(6, len(studies))
    assert sum(studies[row].is_abnormal for row in rows) == expected
    assert rows == choose_examples(studies, 6, seed=1)


def test_another_seed_draws_other_examples() -> None:
    studies = _studies(30, 30)
    assert choose_examples(studies, 6, seed=1) != choose_examples(studies, 6, seed=2)


@pytest.mark.parametrize(
    ("reference", "regions"),
    [
        ("The heart is enlarged. No effusion.", {"cardiac silhouette", "mediastinum"}),
        (
            "There is a small left pleural effusion.",
            {"left costophrenic angle", "left hemidiaphragm"},
        ),
        ("There is a right pneumothorax.", {"right apical zone", "right upper lung zone"}),
        ("Left upper lobe consolidation is present.", {"left upper lung zone", "left lung"}),
        ("No pneumothorax or pleural effusion.", {"cardiac silhouette", "right lung"}),
        ("", {"cardiac silhouette", "right lung"}),
    ],
)
def test_regions_follow_the_positive_findings_and_their_side(
    reference: str, regions: set[str]
) -> None:
    assert set(relevant_regions(reference, label_report)) == regions


def test_every_named_region_and_class_exists() -> None:
    assert set(_SIDED) | set(_CENTRAL) | {"No Finding"} == set(LABELS)
    for finding in LABELS:
        for sentence in ("upper left", "mid right", "lower", ""):
            named = relevant_regions(f"{sentence} x", lambda _, finding=finding: {finding: 1})
            assert named[0] != named[1]
            assert set(named) <= set(REGIONS)
