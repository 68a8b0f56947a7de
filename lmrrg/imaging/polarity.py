"""Tell from the pixels whether a film is shown inverted, bone dark (**ours**).

A logistic regression on 32 means. ``benchmarks/polarity.py`` made the packaged weights from IU
X-ray (Open-i), whose films are all shown the right way round.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.resources import as_file, files

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file

from lmrrg.imaging.radiograph import Pixels, Polarity

SURE = 0.95
"""Probability above which a film counts as inverted; a film in doubt is believed."""
_GRID = 8
_LEAST_SPREAD = 0.05
"""Deviation of the means below which they are noise; that of a film is 0.09 and more."""
_MOST_PIXELS = 512  # along the shorter side of a film


def describe(pixels: Pixels) -> NDArray[np.float32]:
    """Return the classifier's inputs for a film [H, W]: float32 [32] with mean 0.

    They are the means of an 8 x 8 grid, averaged with their mirror image, so the left half is
    enough. Inverting a film negates them.

    >>> describe(np.eye(64, dtype=np.float32)).shape
    (32,)
    """
    # 64 means need no more pixels; those of a large film would take longer than its decoding.
    step = max(1, min(pixels.shape) // _MOST_PIXELS)
    image = Image.fromarray(np.ascontiguousarray(pixels[::step, ::step], dtype=np.float32))
    grid = np.asarray(image.resize((_GRID, _GRID), Image.Resampling.BOX))
    # Which side a heart lies on, or a film is turned to, says nothing about its polarity.
    half = (grid + grid[:, ::-1])[:, : _GRID // 2].ravel() / 2
    return (half - half.mean()) / max(half.std(), _LEAST_SPREAD)


def inverted_probability(
    described: NDArray[np.float32], weight: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the probability that films are shown inverted, [...].

    Args:
        described: results of :func:`describe`, [..., 32].
        weight: the classifier's weights, [32]. There is no bias: a film and its inversion have
            probabilities that add up to 1.

    >>> float(inverted_probability(np.array([0.0, 1.0]), np.array([2.0, -2.0])))
    0.119
    """
    return 1 / (1 + np.exp(-(described @ weight)))


def looks_inverted(pixels: Pixels) -> bool:
    """Return whether a film [H, W] surely looks inverted."""
    return bool(inverted_probability(describe(pixels), _packaged_weight()) > SURE)


def checked_polarity(
    pixels: Pixels, polarity: Polarity, turned: Callable[[], Pixels] | None = None
) -> tuple[Pixels, tuple[str, ...]]:
    """Return a film [H, W] the way round that ``polarity`` says, and the warnings about it.

    Args:
        polarity: ``header`` leaves a film that looks inverted and warns; ``pixels`` turns it.
        turned: returns the film the other way round; None: ``1 - pixels``.
    """
    if not looks_inverted(pixels):
        return pixels, ()
    if polarity == "header":
        return pixels, ("looks_inverted",)
    return (turned() if turned else 1 - pixels), ("polarity_corrected",)


@cache
def _packaged_weight() -> NDArray[np.float32]:
    """Return the weights [32] that come with the package."""
    with as_file(files("lmrrg.imaging") / "polarity.safetensors") as path:
        return load_file(path)["weight"]
