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
_STRONGEST = 0.6  # opacity of the hottest place: the radiograph stays readable under it


def radiograph_uri(pixels: NDArray[np.float32]) -> str:
    """A radiograph [H, W] in [0, 1] as the model's square, 384 x 384, JPEG data URI."""
    return _uri(_grey(pixels))


def heat_map_uri(pixels: NDArray[np.float32], attention: NDArray[np.floating]) -> str:
    """The radiograph under one region's cross-attention [P] over a square grid of patches, as a JPEG data URI.

    Heat is scaled to the map's own range, so its colour says where the region looked, not how strongly; a flat map is
    drawn without heat.

    Raises:
        ValueError: P is not a square number.
    """
    side = round(len(attention) ** 0.5)
    if side * side != len(attention):
        raise ValueError(f"attention over {len(attention)} patches is no square grid")
    heat = _scaled(np.asarray(attention, dtype=np.float32).reshape(side, side))
    smooth = Image.fromarray(heat).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    heat = np.clip(np.asarray(smooth), 0.0, 1.0)
    opacity = (_STRONGEST * heat**1.5)[:, :, None]
    return _uri(
        (1 - opacity) * _grey(pixels) + opacity * colormaps["turbo"](0.25 + 0.7 * heat)[:, :, :3]
    )


def peak_over_uniform(attention: NDArray[np.floating]) -> float:
    """The hottest patch's attention over that of an even spread; 1 means that the region looks nowhere."""
    return float(attention.max() / attention.mean())


def _scaled(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    low, high = float(heat.min()), float(heat.max())
    return (heat - low) / (high - low) if high > low else np.zeros_like(heat)


def _grey(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.repeat(to_square(pixels, SIDE)[:, :, None], 3, axis=2)


def _uri(rgb: NDArray[np.floating]) -> str:
    out = io.BytesIO()
    Image.fromarray((rgb * 255).round().astype(np.uint8)).save(out, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
