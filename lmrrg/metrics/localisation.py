"""Whether the region queries look where their regions are: pointing game and mass in the region (ours).

Both are set beside their level by chance, since a large region is hit by any map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

SCORES = ("mass", "mass_chance", "pointing", "pointing_chance")


@dataclass(frozen=True)
class RegionTruth:
    """Where the regions of one study lie, over its V views of P patches.

    ``coverage`` float32 [R, V, P] is the share of every patch that a region covers; a region is known where any patch
    is covered. ``seen`` bool [V, P] is False for views that the study does not have.
    """

    coverage: NDArray[np.float32]
    seen: NDArray[np.bool_]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Regions with a place in some view: bool [R]."""
        return np.asarray((self.coverage * self.seen > 0).any(axis=(1, 2)))


def localise(attention: NDArray[np.floating], truth: RegionTruth) -> dict[str, Values]:
    """The scores of one study, each [R]; NaN where a region has no known place.

    ``mass`` is the attention inside the region, in patches that it covers partly in proportion; its chance level is
    the mass of a uniform map. ``pointing`` is 1 where the hottest patch touches the region; its chance level is the
    share of the patches that do. All views of the study count together, as they share one softmax.

    Args:
        attention: [R, V, P], not negative; it is normalised here over the views that the study has.
    """
    maps = np.where(truth.seen, attention, 0.0).reshape(len(attention), -1).astype(np.float64)
    covered = np.where(truth.seen, truth.coverage, 0.0).reshape(len(maps), -1).astype(np.float64)
    patches = int(truth.seen.sum())
    touched = covered > 0
    hottest = maps.argmax(axis=1)
    scores = {
        "mass": (maps * covered).sum(axis=1) / maps.sum(axis=1),
        "mass_chance": covered.sum(axis=1) / patches,
        "pointing": touched[np.arange(len(maps)), hottest].astype(np.float64),
        "pointing_chance": touched.sum(axis=1) / patches,
    }
    return {name: np.where(truth.known, values, np.nan) for name, values in scores.items()}


def localise_all(
    attention: NDArray[np.floating], truths: Sequence[RegionTruth | None]
) -> dict[str, Values]:
    """:func:`localise` of every study with a truth: each score [N with truth, R], NaN where unknown."""
    known = [
        (maps, truth)
        for maps, truth in zip(attention, truths, strict=True)
        if truth and truth.known.any()
    ]
    scored = [localise(maps, truth) for maps, truth in known]
    return (
        {name: np.array([scores[name] for scores in scored]) for name in SCORES} if scored else {}
    )


def region_means(scores: Mapping[str, Values], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """The mean of every score by region, over the studies where it is known, with their number; and the mean of the
    regions under "mean". Regions that are nowhere known are absent."""
    table: dict[str, dict[str, float]] = {}
    for column, name in enumerate(names):
        known = ~np.isnan(scores["mass"][:, column])
        if known.any():
            means = {score: float(values[known, column].mean()) for score, values in scores.items()}
            table[name] = {"studies": int(known.sum())} | means
    mean = {score: float(np.mean([row[score] for row in table.values()])) for score in scores}
    return table | {"mean": {"studies": len(scores["mass"])} | mean}


def study_means(scores: Mapping[str, Values]) -> dict[str, Values]:
    """The mean of every score over the known regions of each study [N with truth]."""
    return {name: np.nanmean(values, axis=1) for name, values in scores.items()}
