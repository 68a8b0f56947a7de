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
        ("AP AXIAL", "AP"),
        ("AP_horizontal", "AP"),
        ("AP SUPINE", "AP"),
        ("Portable A.P. (semi-erect)", "AP"),
        ("PA ERECT", "PA"),
        ("PA/erect", "PA"),
        ("Chest, PA view", "PA"),
        ("posterior-anterior", "PA"),
        ("LLAT", "lateral"),
        ("L LAT", "lateral"),
        ("LATERAL VIEW", "lateral"),
        ("Large lateral", "lateral"),
        ("Cross-table lateral", "lateral"),
        ("Lateral, left", "lateral"),
        ("right lateral erect", "lateral"),
        ("latero-lateral", "lateral"),
        ("frontal view", "frontal"),
        ("PA and lateral", "unknown"),
        ("PA/LAT", "unknown"),
        ("left lateral decubitus", "unknown"),
        ("AP LLD", "unknown"),
        ("PA left", "unknown"),
        ("PA oblique", "unknown"),
        ("erect", "unknown"),
        ("left", "unknown"),
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
