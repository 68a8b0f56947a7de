"""Test the words of a view and the order of a study's images."""

import pytest

from lmrrg.studies import StudyImage
from lmrrg.views import choose_views, frontal_first, view_of

IMAGES = [
    StudyImage(name, view)
    for name, view in [("a", "lateral"), ("b", "unknown"), ("c", "PA"), ("d", "frontal")]
]


@pytest.mark.parametrize(
    ("text", "view"),
    [
        ("PA", "PA"),
        (" pa ", "PA"),
        ("postero-anterior", "PA"),
        ("ANTERO_POSTERIOR", "AP"),
        ("XTABLE LATERAL", "lateral"),
        ("rl", "lateral"),
        ("Frontal", "frontal"),
        ("oblique", "unknown"),
        ("", "unknown"),
        (None, "unknown"),
    ],
)
def test_view_of_a_word(text, view):
    assert view_of(text) == view


@pytest.mark.parametrize(
    ("code", "view"),
    [
        ("272479007", "PA"),
        (272479007, "PA"),
        ("R-10214", "PA"),
        ("r-102cd", "lateral"),
        ("399033003", "frontal"),
        ("R-99999", "unknown"),
    ],
)
def test_a_table_may_hold_the_codes_of_dicom(code, view):
    assert view_of(code) == view


def test_lateral_views_go_last():
    assert [image.path for image in frontal_first(IMAGES)] == ["b", "c", "d", "a"]


def test_the_views_of_the_model_are_frontal_before_unknown_before_lateral():
    assert [image.path for image in choose_views(IMAGES, 3)] == ["c", "d", "b"]
