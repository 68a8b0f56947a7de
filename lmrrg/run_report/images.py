"""Radiographs and region heat maps as data URIs for the run report."""

from __future__ import annotations

import base64
import io

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from lmrrg.imaging.reading import to_square

SIDE = 384
"""Width and height of the images in the page, pixels."""

_MAX_OPACITY = 0.6  # so that the radiograph stays readable under the strongest heat


def radiograph_uri(pixels: NDArray[np.float32]) -> str:
    """Return a radiograph [H, W] in [0, 1] as a square of 384 x 384, a JPEG data URI.

    The square is padded as it is for the model.
    """
    return _jpeg_uri(_grey(pixels))


def heat_map_uri(pixels: NDArray[np.float32], attention: NDArray[np.floating]) -> str:
    """Return a radiograph [H, W] under the heat map of one region, as a JPEG data URI.

    The colour shows where the region attends, not how strongly, because each map is scaled to its
    own range. A uniform map is drawn without heat.

    Args:
        pixels: the radiograph, in [0, 1].
        attention: cross-attention of the region over a square grid of patches [P].

    Raises:
        ValueError: P is not a square number.
    """
    side = round(len(attention) ** 0.5)
    if side * side != len(attention):
        raise ValueError(f"attention over {len(attention)} patches is no square grid")
    heat = _scaled(np.asarray(attention, dtype=np.float32).reshape(side, side))
    smooth = Image.fromarray(heat).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    # Bicubic interpolation overshoots beside steep edges.
    heat = np.clip(np.asarray(smooth), 0.0, 1.0)
    # The exponent keeps weak attention nearly transparent.
    opacity = (_MAX_OPACITY * heat**1.5)[:, :, None]
    # The ends of "turbo" are nearly black, which would look like a dark spot of the film.
    colours = colormaps["turbo"](0.25 + 0.7 * heat)[:, :, :3]
    return _jpeg_uri((1 - opacity) * _grey(pixels) + opacity * colours)


def peak_over_uniform(attention: NDArray[np.floating]) -> float:
    """Return the largest attention of a patch divided by the mean; 1 for uniform attention.

    >>> peak_over_uniform(np.array([0.1, 0.1, 0.1, 0.7]))
    2.8
    """
    return float(attention.max() / attention.mean())


def _scaled(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    low = float(heat.min())
    high = float(heat.max())
    return (heat - low) / (high - low) if high > low else np.zeros_like(heat)


def _grey(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.repeat(to_square(pixels, SIDE)[:, :, None], 3, axis=2)


def _jpeg_uri(rgb: NDArray[np.floating]) -> str:
    out = io.BytesIO()
    Image.fromarray((rgb * 255).round().astype(np.uint8)).save(out, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
