"""From line integrals to a film (ours).

The steps are the position on the film, Beer-Lambert's law, scatter, quantum noise and display.
"""

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
    """How a film is taken.

    Attributes:
        angle: rotation of the patient on the film, radians.
        zoom: factors of the patient's size across and down.
        shift: across and down, as a fraction of the film's side.
        tissue: factor of the soft tissue's attenuation.
        bone: factor of the bones' attenuation.
        photons: number of photons per pixel without a patient.
        contrast: factor of the display's contrast.
    """

    angle: float
    zoom: tuple[float, float]
    shift: tuple[float, float]
    tissue: float
    bone: float
    photons: float
    contrast: float

    @staticmethod
    def sample(patient: np.random.Generator, film: np.random.Generator) -> Setup:
        """Draw a set-up: ``patient`` decides size, tissue and bones, ``film`` the rest."""
        size = patient.uniform(0.98, 1.10)
        wide = patient.uniform(0.96, 1.05)
        return Setup(
            angle=film.normal(0, 0.02),
            zoom=(size * wide * film.uniform(0.98, 1.03), size / wide**0.5),
            shift=(film.normal(0, 0.015), film.uniform(-0.01, 0.03)),
            tissue=patient.uniform(0.85, 1.12),
            bone=patient.uniform(1.1, 1.6),
            # Uniform in the logarithm: exposures differ by factors.
            photons=float(np.exp(film.uniform(np.log(1.5e4), np.log(1.2e5)))),
            contrast=film.uniform(0.85, 1.15),
        )

    def moved(self, image: Array, size: int) -> Array:
        """Return a square map as it lies on a film of ``size`` pixels.

        Beyond the map's border, its outermost values are repeated.
        """
        side = image.shape[0]
        cosine = np.cos(self.angle)
        sine = np.sin(self.angle)
        # Pillow wants the map from pixels of the film to those of the image, so it is the inverse
        # of the movement.
        across = [cosine / self.zoom[0], sine / self.zoom[0]]
        down = [-sine / self.zoom[1], cosine / self.zoom[1]]
        matrix = np.array([across, down]) * (side / size)
        start = side / 2 - matrix @ (np.array([size, size]) / 2) - np.array(self.shift) * side
        border = 40 * side // FINE
        coefficients = (*matrix[0], start[0] + border, *matrix[1], start[1] + border)
        picture = Image.fromarray(np.pad(image.astype(np.float32), border, mode="edge"))
        moved = picture.transform(
            (size, size), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
        )
        return np.asarray(moved)


def expose(
    film: Projection,
    change: Array,
    setup: Setup,
    view: FilmView,
    size: int,
    rng: np.random.Generator,
) -> Array:
    """Return the brightness float32 [size, size] in [0, 1]: air dark, bone bright.

    Args:
        film: the line integrals of the body.
        change: what the findings add to them, mm of water [320, 320].
        setup: how the film is taken.
        view: decides the exposure.
        size: rows and columns of the film.
        rng: draws the noise.
    """
    water = film.soft * setup.tissue + film.bone * setup.bone * 1.5 + change
    attenuation = (_WATER_PER_MM * np.maximum(water, 0)).astype(np.float32)
    reached = np.exp(-setup.moved(attenuation, size))
    scattered = 0.012 + 0.10 * uniform_filter(uniform_filter(reached, size // 6), size // 6)
    # A lateral film is exposed longer, since the chest is wider than deep.
    count = (reached + scattered) * setup.photons * (1.0 if view == "PA" else 2.5)
    noise = np.sqrt(count) * rng.standard_normal(count.shape, dtype=np.float32)
    count = np.maximum(count + noise, 1)
    density = -np.log(count / setup.photons)
    # The display's window comes from the middle of the film, where the chest is; every third pixel
    # is enough for the percentiles.
    inner = density[size // 6 : -size // 6, size // 6 : -size // 6]
    low, high = np.percentile(inner[::3, ::3], [4, 96])
    # Sharper edges, as the processing of digital systems makes them.
    density = density + 0.55 * (density - gaussian_filter(density, 0.025 * size))
    middle = (low + high) / 2 + 0.04 * (high - low)
    width = (high - low) / (3.3 * setup.contrast)
    bright = 1 / (1 + np.exp(-(density - middle) / width))
    return np.clip((bright - 0.01) / 0.97, 0, 1).astype(np.float32)


def moved_masks(masks: NDArray[np.bool_], setup: Setup) -> NDArray[np.bool_]:
    """Return region masks bool [29, 64, 64] as they lie on the film."""
    return np.stack([setup.moved(mask.astype(np.float32), MASK_SIDE) > 0.5 for mask in masks])
