"""Tell from the pixels whether an image can be an upright chest film (**ours**).

Two tests, which an image must both pass: a small network that learnt upright films against the same
films turned, and against drawn patterns; and a distance from all films that it learnt, which finds
what neither of them resembles. ``benchmarks/chest_film.py`` made the packaged weights.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import as_file, files
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file

from lmrrg.imaging.radiograph import Pixels, resize

GRID = 16
"""Cells in a row of the grid that an image is described on."""
FEATURES = 2 * GRID * GRID + 2

_SIDE = 128
_MOST_PIXELS = 512  # along the shorter side; more add nothing to 16 x 16 cells but time
_LEAST_SPREAD = 0.05  # deviation of the cells' means below which they are noise
_LEAST_DETAIL = 0.005  # added before the logarithm of the detail in a cell
_OVERALL_WEIGHT = 8.0
"""Factor on the two numbers about the whole image, beside 512 about its cells."""
_LONGEST = 2.0
"""Ratio of the sides up to which an image can be a chest film; a detector has 1.3 at most."""


class FilmModel(NamedTuple):
    """The weights of both tests; H hidden units, K directions in which films differ most."""

    hidden_weight: NDArray[np.float32]
    """[FEATURES, H]"""
    hidden_bias: NDArray[np.float32]
    """[H]"""
    out_weight: NDArray[np.float32]
    """[H]"""
    out_bias: NDArray[np.float32]
    """[1]"""
    mean: NDArray[np.float32]
    """[FEATURES], of films"""
    directions: NDArray[np.float32]
    """[K, FEATURES]"""
    variances: NDArray[np.float32]
    """[K + 1]; the last one is that of all other directions together"""
    limits: NDArray[np.float32]
    """[2]: the least logit of the network, and the largest distance"""


def describe(pixels: Pixels) -> NDArray[np.float32]:
    """Return what both tests see of an image [H, W]: float32 [FEATURES].

    They are brightness and detail (the logarithm of the deviation) in a grid of cells, both
    without their mean, and the mean detail and the contrast of the whole image.

    >>> describe(np.eye(64, dtype=np.float32)).shape
    (514,)
    """
    step = max(1, min(pixels.shape) // _MOST_PIXELS)
    small = _fitted(pixels[::step, ::step])
    mean = _cells(small)
    variance = np.maximum(_cells(small * small) - mean * mean, 0)
    detail = np.log(np.sqrt(variance) + _LEAST_DETAIL)
    brightness = (mean - mean.mean()) / max(float(mean.std()), _LEAST_SPREAD)
    overall = [detail.mean(), np.log(mean.std() + 2 * _LEAST_DETAIL)]
    parts = (
        brightness.ravel(),
        (detail - detail.mean()).ravel(),
        _OVERALL_WEIGHT * np.array(overall),
    )
    return np.concatenate(parts).astype(np.float32)


def film_logits(described: NDArray[np.float32], model: FilmModel) -> NDArray[np.float32]:
    """Return the network's logits [...] that images described as [..., FEATURES] are films."""
    hidden = np.maximum(described @ model.hidden_weight + model.hidden_bias, 0)
    return hidden @ model.out_weight + model.out_bias[0]


def film_distances(described: NDArray[np.float32], model: FilmModel) -> NDArray[np.float32]:
    """Return how far images are from films [...]: a squared Mahalanobis distance.

    Its covariance is that of probabilistic principal components (Tipping and Bishop, 1999).
    """
    centred = described - model.mean
    along = centred @ model.directions.T
    beside = (centred**2).sum(-1) - (along**2).sum(-1)
    return (along**2 / model.variances[:-1]).sum(-1) + beside / model.variances[-1]


def is_chest_film(described: NDArray[np.float32], model: FilmModel) -> NDArray[np.bool_]:
    """Return whether images described as [..., FEATURES] pass both tests."""
    least, largest = model.limits
    is_like_a_film = film_logits(described, model) >= least
    return is_like_a_film & (film_distances(described, model) <= largest)


def film_warnings(pixels: Pixels) -> tuple[str, ...]:
    """Return why an image [H, W] may be no upright chest film; empty for nearly every film.

    The codes are ``unusual_shape`` and ``not_a_chest_film`` of
    :data:`~lmrrg.imaging.radiograph.IMAGE_WARNING_CODES`.
    """
    if max(pixels.shape) > _LONGEST * min(pixels.shape):
        return ("unusual_shape",)
    return () if is_chest_film(describe(pixels), _packaged()) else ("not_a_chest_film",)


def _fitted(pixels: Pixels) -> Pixels:
    """Fit an image into the square that is described, its aspect ratio kept, centred on black."""
    height, width = pixels.shape
    scale = _SIDE / max(height, width)
    rows = max(1, round(height * scale))
    columns = max(1, round(width * scale))
    square = np.zeros((_SIDE, _SIDE), np.float32)
    top = (_SIDE - rows) // 2
    left = (_SIDE - columns) // 2
    square[top : top + rows, left : left + columns] = resize(pixels, rows, columns)
    return square


def _cells(square: Pixels) -> NDArray[np.float32]:
    """Return the mean of each cell, [GRID, GRID]."""
    return np.asarray(Image.fromarray(square).resize((GRID, GRID), Image.Resampling.BOX))


@cache
def _packaged() -> FilmModel:
    """Return the weights that come with the package."""
    with as_file(files("lmrrg.imaging") / "chest_film.safetensors") as path:
        return FilmModel(**load_file(path))
