"""The choice of the example studies and of their regions, by rules."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmrrg.studies import POSITIVE, Study

EXAMPLE_RULE = (
    "A quarter of the examples are the studies on which PPO beats the best constant report by most "
    "(by the metric of the first row), a quarter those on which it loses by most, an eighth those "
    "on which it beats SFT by most, an eighth those on which it loses to SFT by most. The rest are "
    "drawn at random with the run's seed, independently of any generated report: half from the "
    "abnormal studies, half from the others, as far as there are enough. Each study is shown once, "
    "where it fits first."
)
REGION_RULE = (
    "Each sentence of the reference is labelled by itself; every positive class votes for the "
    "regions where it is usually seen, on the side that the sentence names (both sides where it "
    "names none). The two regions with the most votes are shown; for a reference without a "
    "positive finding these are the cardiac silhouette and the right lung."
)

# The regions where a class is usually seen, most typical first; those of _SIDED have two sides.
_SIDED: dict[str, tuple[str, ...]] = {
    "Lung Opacity": ("lower lung zone", "lung"),
    "Lung Lesion": ("mid lung zone", "lung"),
    "Edema": ("hilar structures", "lung"),
    "Consolidation": ("lower lung zone", "lung"),
    "Pneumonia": ("lower lung zone", "lung"),
    "Atelectasis": ("lower lung zone", "hemidiaphragm"),
    "Pneumothorax": ("apical zone", "upper lung zone"),
    "Pleural Effusion": ("costophrenic angle", "hemidiaphragm"),
    "Pleural Other": ("costophrenic angle", "apical zone"),
    "Fracture": ("clavicle", "lung"),
}
_CENTRAL: dict[str, tuple[str, ...]] = {
    "Enlarged Cardiomediastinum": ("mediastinum", "upper mediastinum"),
    "Cardiomegaly": ("cardiac silhouette", "mediastinum"),
    "Support Devices": ("cavoatrial junction", "svc"),
}
_LEVELS = {
    "upper": "upper lung zone",
    "mid": "mid lung zone",
    "middle": "mid lung zone",
    "lower": "lower lung zone",
}
_WITHOUT_FINDING = ("cardiac silhouette", "right lung")
_VOTES = (2, 1)  # for the first and the second region of a class

Labeler = Callable[[str], Mapping[str, int]]


class Example(NamedTuple):
    """A study that is shown: its row, and the group of examples that it belongs to."""

    row: int
    group: str


def choose_examples(
    studies: Sequence[Study],
    scores: Mapping[str, NDArray[np.float64]],
    count: int,
    seed: int,
) -> list[Example]:
    """Return up to ``count`` examples, group by group; see :data:`EXAMPLE_RULE`.

    Args:
        studies: the N evaluated studies.
        scores: RadCliQ-v1 [N] of "ppo", "sft" and "best_constant", lower for better reports; NaN
            is neither win nor loss.
        count: how many are wanted.
        seed: decides the random ones.
    """
    gain = {other: scores[other] - scores["ppo"] for other in ("best_constant", "sft")}
    groups = (
        ("PPO beats the best constant report by most", gain["best_constant"], count // 4),
        ("PPO loses to the best constant report by most", -gain["best_constant"], count // 4),
        ("PPO beats SFT by most", gain["sft"], count // 8),
        ("PPO loses to SFT by most", -gain["sft"], count // 8),
    )
    chosen: dict[int, str] = {}
    for group, values, wanted in groups:
        # Stable, so that of equal gains the first study comes first.
        ranked = np.argsort(-values, kind="stable").tolist()
        winners = [row for row in ranked if values[row] > 0 and row not in chosen]
        chosen |= dict.fromkeys(winners[:wanted], group)
    for row in _drawn(studies, chosen, count - len(chosen), seed):
        chosen[row] = "Drawn at random"
    return [Example(row, group) for row, group in chosen.items()]


def _drawn(studies: Sequence[Study], known: Collection[int], count: int, seed: int) -> list[int]:
    """Return up to ``count`` other rows at random, abnormal studies first."""
    order = np.random.default_rng(seed).permutation(len(studies)).tolist()
    abnormal = [row for row in order if studies[row].is_abnormal and row not in known]
    others = [row for row in order if not studies[row].is_abnormal and row not in known]
    abnormal_count = min(len(abnormal), max(count // 2, count - len(others)))
    return abnormal[:abnormal_count] + others[: count - abnormal_count]


def relevant_regions(reference: str, labeler: Labeler) -> tuple[str, str]:
    """Return the two regions to show for a reference report; see :data:`REGION_RULE`.

    Of regions with equal votes, the one that got its first vote earlier wins.
    """
    votes: Counter[str] = Counter()
    # By sentence, because the side of one finding must not be taken for the side of another.
    for sentence in re.split(r"(?<=[.!?])\s+", reference):
        for finding, value in labeler(sentence).items():
            if value == POSITIVE:
                votes.update(_regions_of(finding, sentence.lower()))
    voted = [region for region, _ in votes.most_common(2)]
    first, second = [*voted, *_WITHOUT_FINDING][:2]
    # With a single region voted for, the default may be that same region.
    return (first, second) if first != second else (first, _WITHOUT_FINDING[1])


def _regions_of(finding: str, sentence: str) -> Counter[str]:
    """Return the votes of one positive class in one lower-case sentence."""
    regions: Counter[str] = Counter(dict(zip(_CENTRAL.get(finding, ()), _VOTES, strict=False)))
    named = [side for side in ("right", "left") if re.search(rf"\b{side}\b", sentence)]
    sides = named or ["right", "left"]
    for name, votes in zip(_SIDED.get(finding, ()), _VOTES, strict=False):
        for side in sides:
            regions[f"{side} {_at_level(name, sentence)}"] += votes
    return regions


def _at_level(name: str, sentence: str) -> str:
    """Return the lung zone of the level that the sentence names; other regions stay the same."""
    if name in _LEVELS.values():
        for word, zone in _LEVELS.items():
            if re.search(rf"\b{word}\b", sentence):
                return zone
    return name
