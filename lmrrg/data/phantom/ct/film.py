"""From line integrals to a film: position on the film, Beer-Lambert, scatter, quantum noise, display (ours)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, uniform_filter

from lmrrg.data.phantom.ct.bodies import FINE, Array, Projection
from lmrrg.data.phantom.ct.masks import MASK_SIDE
from lmrrg.data.phantom.ct.projection import FilmView

_WATER_PER_MM = 0.0193
"""Attenuation of water at about 70 keV, per mm."""


@dataclass(frozen=True)
class Setup:
    """How a film is taken: the patient's position and size on it (radians, factors, share of the film), tissue and bone
    factors, and the exposure."""

    angle: float
    zoom: tuple[float, float]
    shift: tuple[float, float]
    tissue: float
    bone: float
    photons: float
    contrast: float

    @staticmethod
    def sample(patient: np.random.Generator, film: np.random.Generator) -> Setup:
        """Size and bones are the patient's, the rest is the film's."""
        size, wide = patient.uniform(0.98, 1.10), patient.uniform(0.96, 1.05)
        return Setup(
            angle=film.normal(0, 0.02),
            zoom=(size * wide * film.uniform(0.98, 1.03), size / wide**0.5),
            shift=(film.normal(0, 0.015), film.uniform(-0.01, 0.03)),
            tissue=patient.uniform(0.85, 1.12),
            bone=patient.uniform(1.1, 1.6),
            photons=float(np.exp(film.uniform(np.log(1.5e4), np.log(1.2e5)))),
            contrast=film.uniform(0.85, 1.15),
        )

    def moved(self, image: Array, size: int) -> Array:
        """A square map as it lies on a film of ``size`` pixels; beyond its border its last row goes on."""
        side = image.shape[0]
        c, s = np.cos(self.angle), np.sin(self.angle)
        step = side / size
        a = (
            np.array([[c / self.zoom[0], s / self.zoom[0]], [-s / self.zoom[1], c / self.zoom[1]]])
            * step
        )
        start = side / 2 - a @ (np.array([size, size]) / 2) - np.array(self.shift) * side
        border = 40 * side // FINE
        coefficients = (*a[0], start[0] + border, *a[1], start[1] + border)
        padded = np.pad(image.astype(np.float32), border, mode="edge")
        picture = Image.fromarray(padded)
        return np.asarray(
            picture.transform(
                (size, size), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
            )
        )


def expose(
    film: Projection,
    change: Array,
    setup: Setup,
    view: FilmView,
    size: int,
    rng: np.random.Generator,
) -> Array:
    """Brightness float32 [size, size] in [0, 1]: air dark, bone bright."""
    water = film.soft * setup.tissue + film.bone * setup.bone * 1.5 + change
    a = setup.moved((_WATER_PER_MM * np.maximum(water, 0)).astype(np.float32), size)
    reached = np.exp(-a)
    scattered = 0.012 + 0.10 * uniform_filter(uniform_filter(reached, size // 6), size // 6)
    count = (reached + scattered) * setup.photons * (1.0 if view == "PA" else 2.5)
    count = np.maximum(
        count + np.sqrt(count) * rng.standard_normal(count.shape, dtype=np.float32), 1
    )
    density = -np.log(count / setup.photons)
    inner = density[size // 6 : -size // 6, size // 6 : -size // 6]
    low, high = np.percentile(inner[::3, ::3], [4, 96])
    density = density + 0.55 * (density - gaussian_filter(density, 0.025 * size))
    middle, width = (low + high) / 2 + 0.04 * (high - low), (high - low) / (3.3 * setup.contrast)
    bright = 1 / (1 + np.exp(-(density - middle) / width))
    return np.clip((bright - 0.01) / 0.97, 0, 1).astype(np.float32)


def moved_masks(masks: NDArray[np.bool_], setup: Setup) -> NDArray[np.bool_]:
    """Region masks bool [29, 64, 64] as they lie on the film."""
    return np.stack([setup.moved(mask.astype(np.float32), MASK_SIDE) > 0.5 for mask in masks])
