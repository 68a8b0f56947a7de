"""Films that are stored turned or mirrored, and say so."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset

from lmrrg.imaging.dicom.geometry import upright
from lmrrg.imaging.reading import read_image
from tests.support.dicom_files import dicom, ramp

FILM = np.arange(6, dtype=np.float32).reshape(2, 3)


def turned(*directions: str) -> np.ndarray:
    header = Dataset()
    header.PatientOrientation = list(directions)
    return upright(FILM, header)


@pytest.mark.parametrize(
    ("directions", "expected"),
    [
        (("L", "F"), FILM),
        (("R", "F"), FILM[:, ::-1]),
        (("L", "H"), FILM[::-1]),
        (("R", "H"), FILM[::-1, ::-1]),
        (("F", "L"), FILM.T),
        (("F", "R"), FILM.T[:, ::-1]),
        (("H", "L"), FILM.T[::-1]),
        (("RP", "FA"), FILM[:, ::-1]),
        # Which way a lateral film looks says nothing of sides.
        (("A", "F"), FILM),
        (("P", "F"), FILM),
        (("P", "H"), FILM[::-1]),
    ],
)
def test_the_head_is_above_and_the_left_side_right(directions, expected):
    np.testing.assert_array_equal(turned(*directions), expected)


@pytest.mark.parametrize(
    "directions", [("L",), ("L", "R"), ("F", "H"), ("L", "A"), ("X", "F"), ("L", "F", "H")]
)
def test_impossible_directions_leave_a_film_as_it_is(directions):
    np.testing.assert_array_equal(turned(*directions), FILM)


def test_a_film_stored_mirrored_is_the_same_film():
    stored = ramp(80, 90)
    one = read_image(dicom(stored, PatientOrientation=["L", "F"]))
    mirrored = read_image(
        dicom(np.ascontiguousarray(stored[:, ::-1]), PatientOrientation=["R", "F"])
    )
    np.testing.assert_array_equal(one.pixels, mirrored.pixels)


def test_pixels_that_are_not_square_are_stretched_before_the_film_is_turned():
    stored = ramp(64, 80)
    film = read_image(dicom(stored, PatientOrientation=["F", "L"], PixelAspectRatio=[2, 1]))
    assert film.pixels.shape == (80, 128)
