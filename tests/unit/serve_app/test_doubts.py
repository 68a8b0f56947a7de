"""Which images make one study, and when no report is written."""

from __future__ import annotations

import numpy as np
import pytest

from lmrrg.imaging.radiograph import Radiograph
from serve_app.doubts import abstain_reasons, check_one_study
from serve_app.errors import ServiceError


def film(seed: int, patient: str = "", study: str = "", warnings: tuple[str, ...] = ()):
    pixels = np.random.default_rng(seed).random((8, 8)).astype(np.float32)
    return Radiograph(pixels, "PA", "dicom", warnings, patient, study)


@pytest.mark.parametrize(
    ("images", "code"),
    [
        ([film(0, patient="a"), film(1, patient="b")], "mixed_study"),
        ([film(0, "a", "s"), film(1, "a", "t")], "mixed_study"),
        ([film(0, "a"), film(1), film(2, "b")], "mixed_study"),
        ([film(0, "a"), film(0, "a")], "duplicate_image"),
        ([film(0), film(1), film(0)], "duplicate_image"),
    ],
)
def test_images_that_make_no_study(images, code):
    with pytest.raises(ServiceError) as refused:
        check_one_study(images)
    assert refused.value.code == code


@pytest.mark.parametrize(
    "images", [[], [film(0)], [film(0, "a", "s"), film(1, "a", "s")], [film(0, "a", "s"), film(1)]]
)
def test_images_of_one_study(images):
    check_one_study(images)


def test_reasons_are_named_once_and_flags_are_none():
    images = [
        film(0, warnings=("not_a_chest_film", "population")),
        film(1, warnings=("not_a_chest_film", "looks_inverted")),
    ]
    assert [reason.code for reason in abstain_reasons(images)] == [
        "looks_inverted",
        "not_a_chest_film",
    ]
    assert abstain_reasons([film(0, warnings=("population", "for_processing"))]) == []
