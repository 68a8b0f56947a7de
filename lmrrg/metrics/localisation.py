"""Whether the region queries attend to their regions: pointing game and mass in the region (ours).

Each score comes with its chance level, because even a random map hits a large region often.
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
    """Where the R regions of one study lie, over its V views of P patches.

    ``coverage`` float32 [R, V, P] is the fraction of each patch that a region covers; a region is
    known where any patch is covered. ``seen`` bool [V, P] is False for views that the study does
    not have.
    """

    coverage: NDArray[np.float32]
    seen: NDArray[np.bool_]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Return which regions lie in some view that the study has: bool [R]."""
        return np.asarray((self.coverage * self.seen > 0).any(axis=(1, 2)))


def localise(attention: NDArray[np.floating], truth: RegionTruth) -> dict[str, Values]:
    """Return the scores of one study, each [R]; NaN for a region whose location is not known.

    ``mass`` is the fraction of the attention that lies inside the region; a patch that is covered
    in part counts in proportion. Its chance level is the mass of a uniform map. ``pointing`` is 1
    where the patch with the most attention touches the region; its chance level is the fraction of
    the patches that do.

    Args:
        attention: [R, V, P], not negative; it is normalised here over the views of the study.
        truth: Where the regions are.

    One region that covers the first of four patches, in the only view:

    >>> coverage = np.array([[[1.0, 0.0, 0.0, 0.0]]], dtype=np.float32)
    >>> truth = RegionTruth(coverage, seen=np.ones((1, 4), dtype=bool))
    >>> scores = localise(np.array([[[0.7, 0.1, 0.1, 0.1]]]), truth)
    >>> {name: values.round(2).tolist() for name, values in scores.items()}
    {'mass': [0.7], 'mass_chance': [0.25], 'pointing': [1.0], 'pointing_chance': [0.25]}
    """
    # The views count together, because the model's attention is one softmax over all of them.
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
    """Return :func:`localise` of every study with a known region.

    Each score is [N with truth, R], NaN where a region is unknown; an empty dictionary where no
    study has a known region.
    """
    scored: list[dict[str, Values]] = []
    for maps, truth in zip(attention, truths, strict=True):
        if truth and truth.known.any():
            scored.append(localise(maps, truth))
    if not scored:
        return {}
    table: dict[str, Values] = {}
    for name in SCORES:
        table[name] = np.array([scores[name] for scores in scored])
    return table


def region_means(scores: Mapping[str, Values], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the mean of every score by region, over the studies where the region is known.

    ``studies`` is the number of these studies. The mean over the regions is under "mean". A region
    that is known in no study is absent.

    >>> scores = {"mass": np.array([[0.5, np.nan], [0.7, np.nan]])}
    >>> region_means(scores, ["right lung", "left lung"])
    {'right lung': {'studies': 2, 'mass': 0.6}, 'mean': {'studies': 2, 'mass': 0.6}}
    """
    table: dict[str, dict[str, float]] = {}
    for column, name in enumerate(names):
        known = ~np.isnan(scores["mass"][:, column])
        if known.any():
            means = {score: float(values[known, column].mean()) for score, values in scores.items()}
            table[name] = {"studies": int(known.sum())} | means
    mean: dict[str, float] = {"studies": len(scores["mass"])}
    for score in scores:
        # Of the regions' means, so that a region counts alike however many studies show it.
        mean[score] = float(np.mean([row[score] for row in table.values()]))
    return table | {"mean": mean}


def study_means(scores: Mapping[str, Values]) -> dict[str, Values]:
    """Return the mean of every score over the known regions of each study [N with truth].

    >>> study_means({"mass": np.array([[0.2, 0.4], [0.9, np.nan]])})["mass"].round(2).tolist()
    [0.3, 0.9]
    """
    return {name: np.nanmean(values, axis=1) for name, values in scores.items()}
