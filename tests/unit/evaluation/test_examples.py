"""The examples and regions of the run report follow the rules that the page states."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
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


def _scores(ppo: list[float], sft: list[float], constant: list[float]) -> dict[str, Any]:
    columns = {"ppo": ppo, "sft": sft, "best_constant": constant}
    return {name: np.array(column) for name, column in columns.items()}


def _equal(count: int) -> dict[str, Any]:
    return _scores([0.0] * count, [0.0] * count, [0.0] * count)


@pytest.mark.parametrize(
    ("abnormal", "normal", "expected"), [(20, 20, 3), (1, 20, 1), (20, 2, 4), (2, 1, 2), (0, 9, 0)]
)
def test_without_wins_and_losses_all_are_drawn_and_half_of_them_abnormal(
    abnormal: int, normal: int, expected: int
) -> None:
    studies = _studies(abnormal, normal)
    examples = choose_examples(studies, _equal(len(studies)), 6, seed=1)
    rows = [example.row for example in examples]
    assert len(rows) == len(set(rows)) == min(6, len(studies))
    assert sum(studies[row].is_abnormal for row in rows) == expected
    assert {example.group for example in examples} == {"Drawn at random"}
    assert examples == choose_examples(studies, _equal(len(studies)), 6, seed=1)


def test_another_seed_draws_other_examples() -> None:
    studies = _studies(30, 30)
    assert choose_examples(studies, _equal(60), 6, seed=1) != choose_examples(
        studies, _equal(60), 6, seed=2
    )


def test_the_largest_wins_and_losses_come_first_and_no_study_twice() -> None:
    ppo = [-3.0, -1.0, -2.0, 4.0, 5.0, 6.0, 0.0, 0.0, 0.0, 0.0, 0.0, math.nan]
    sft = [*ppo[:6], 2.0, 3.0, -2.0, 0.0, 0.0, 9.0]
    examples = choose_examples(
        _studies(6, 6), _scores(ppo, sft, [0.0] * 10 + [0.1, 9.0]), 8, seed=1
    )
    rows = [example.row for example in examples]
    # Two wins and two losses against the constant, one of each against SFT, two at random.
    assert rows[:6] == [0, 2, 5, 4, 7, 8]
    assert len({example.group for example in examples}) == 5
    assert len(set(rows)) == 8
    assert [example.group for example in examples[6:]] == ["Drawn at random"] * 2


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
