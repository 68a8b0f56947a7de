"""Make a film's pixels square, and turn it as Patient Orientation says (PS3.3 C.7.6.1.1.1)."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset

from lmrrg.imaging.dicom import elements
from lmrrg.imaging.radiograph import Limits, Pixels, check_size, resize

_SQUARE_ENOUGH = 0.01
"""Difference of a pixel's sides that is left alone: resampling would cost more than it corrects."""

_AXES = {"L": "side", "R": "side", "A": "depth", "P": "depth", "H": "length", "F": "length"}
"""Axis of the body along which each direction points."""


def square(pixels: Pixels, height: float, limits: Limits) -> Pixels:
    """Return the image on square pixels, enlarged along the longer side of a pixel.

    Raises:
        ImageError: ``too_large``.
    """
    if abs(height - 1) <= _SQUARE_ENOUGH:
        return pixels
    rows, columns = pixels.shape
    if height > 1:
        rows = round(rows * height)
    else:
        columns = round(columns / height)
    check_size(rows, columns, limits)
    return resize(pixels, rows, columns)


def upright(pixels: Pixels, dataset: Dataset) -> Pixels:
    """Return the image [H, W] with the head above and, on a frontal film, the patient's left right.

    Patient Orientation (0020,0020) names where the rows and the columns run to; of an oblique
    direction the first letter counts. A film without it, or with directions that are impossible
    together, is left as it is. So is which way a lateral film looks: both ways are in use.

    >>> header = Dataset()
    >>> header.PatientOrientation = ["R", "F"]
    >>> upright(np.array([[0.0, 1.0]], np.float32), header)
    array([[1., 0.]], dtype=float32)
    """
    directions = [text[0] for text in elements.texts(dataset, "PatientOrientation")]
    axes = [_AXES.get(direction) for direction in directions]
    if len(axes) != 2 or axes.count("length") != 1 or None in axes:
        return pixels
    if axes[0] == "length":
        # Rows run along the body: columns become rows.
        pixels = pixels.T
        directions.reverse()
    across, down = directions
    if down == "H":
        pixels = pixels[::-1]
    if across == "R":
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
