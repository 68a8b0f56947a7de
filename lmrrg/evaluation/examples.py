"""Which studies the run report shows, and which regions of them: by rules that cannot pick cherries."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lmrrg.studies import POSITIVE, Study

EXAMPLE_RULE = (
    "Drawn at random with the run's seed, without looking at any generated report: half of the examples from the "
    "abnormal studies, half from the others; where one group is too small, the other one fills up."
)
REGION_RULE = (
    "Each sentence of the reference is labelled by itself; every positive class votes for the regions where it is "
    "usually seen, on the side that the sentence names (both sides where it names none). The two regions with the "
    "most votes are shown; a reference without a positive finding shows the cardiac silhouette and the right lung."
)

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
_VOTES = (2, 1)  # of the first and the second region of a class

Labeler = Callable[[str], Mapping[str, int]]


def choose_examples(studies: Sequence[Study], count: int, seed: int) -> list[int]:
    """Rows of up to ``count`` example studies, abnormal ones first; see :data:`EXAMPLE_RULE`."""
    order = np.random.default_rng(seed).permutation(len(studies)).tolist()
    abnormal = [row for row in order if studies[row].is_abnormal]
    others = [row for row in order if not studies[row].is_abnormal]
    wanted = min(len(abnormal), max(count // 2, count - len(others)))
    return abnormal[:wanted] + others[: count - wanted]


def relevant_regions(reference: str, labeler: Labeler) -> tuple[str, str]:
    """The two regions of a reference report; see :data:`REGION_RULE`. Equal votes go to the one named first."""
    votes: Counter[str] = Counter()
    for sentence in re.split(r"(?<=[.!?])\s+", reference):
        for finding, value in labeler(sentence).items():
            if value == POSITIVE:
                votes.update(_regions_of(finding, sentence.lower()))
    first, second = ([region for region, _ in votes.most_common(2)] + list(_WITHOUT_FINDING))[:2]
    return (first, second) if first != second else (first, _WITHOUT_FINDING[1])


def _regions_of(finding: str, sentence: str) -> Counter[str]:
    regions: Counter[str] = Counter(dict(zip(_CENTRAL.get(finding, ()), _VOTES, strict=False)))
    sides = [side for side in ("right", "left") if re.search(rf"\b{side}\b", sentence)] or [
        "right",
        "left",
    ]
    for name, votes in zip(_SIDED.get(finding, ()), _VOTES, strict=False):
        for side in sides:
            regions[f"{side} {_at_level(name, sentence)}"] += votes
    return regions


def _at_level(name: str, sentence: str) -> str:
    """A lung zone moves to the level that the sentence names."""
    if name in _LEVELS.values():
        for word, zone in _LEVELS.items():
            if re.search(rf"\b{word}\b", sentence):
                return zone
    return name
