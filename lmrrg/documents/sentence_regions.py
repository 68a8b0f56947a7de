"""Link the sentences of a report with the chest regions that they speak of (ours).

A sentence names its regions by structure ("the heart"), or by finding, side and zone ("left basal
opacity"). Where it names no side of a paired region, both are linked. The words alone decide: what
the model attended to is shown beside it, and is no proof of place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lmrrg.anatomy import REGIONS
from lmrrg.metrics.embedded.claims import Claim, sentence_claims
from lmrrg.metrics.embedded.sentences import ABSENT, sentences_of

_SENTENCE = re.compile(r"\S.*?(?:[.!?;]+(?=\s|$)|(?=\n)|$)", re.DOTALL)
"""Up to a stop before white space, so that "5.5 cm" stays whole, or up to the end of a line."""

_LUNG = ("{side} lung",)
_BASE = ("{side} lower lung zone",)
_REGIONS_OF = {
    "pneumothorax": ("{side} apical zone", "{side} lung"),
    "effusion": ("{side} costophrenic angle",),
    "pleural_thickening": ("{side} costophrenic angle", "{side} apical zone"),
    "consolidation": _LUNG,
    "pneumonia": _LUNG,
    "opacity": _LUNG,
    "atelectasis": _BASE,
    "scarring": _LUNG,
    "edema": _LUNG,
    "congestion": ("{side} hilar structures", "{side} lung"),
    "interstitial": _LUNG,
    "bronchial": ("{side} hilar structures",),
    "nodule": _LUNG,
    "mass": _LUNG,
    "cavity": _LUNG,
    "granuloma": _LUNG,
    "emphysema": _LUNG,
    "hyperinflation": _LUNG,
    "low_volumes": _LUNG,
    "diaphragm": ("{side} hemidiaphragm",),
    "hernia": ("{side} hemidiaphragm",),
    "free_air": ("{side} hemidiaphragm", "abdomen"),
    "chest_tube": _LUNG,
    "cardiomegaly": ("cardiac silhouette",),
    "pericardial_effusion": ("cardiac silhouette",),
    "mediastinum": ("mediastinum", "upper mediastinum"),
    "mediastinal_shift": ("mediastinum", "trachea"),
    "lymph_nodes": ("{side} hilar structures", "mediastinum"),
    "aorta": ("aortic arch",),
    "aneurysm": ("aortic arch",),
    "pulmonary_arteries": ("{side} hilar structures",),
    "degenerative": ("spine",),
    "curvature": ("spine",),
    "airway_tube": ("trachea", "carina"),
    "enteric_tube": ("abdomen",),
    "central_line": ("svc", "cavoatrial junction"),
}
"""Regions of each finding of the claims; one that may lie anywhere has none."""

_ZONES = {
    "u": ("{side} upper lung zone",),
    "m": ("{side} mid lung zone",),
    "b": _BASE,
    "d": _LUNG,
}
"""Regions of a finding in the lungs whose zone is named."""

_WORDS = {
    "cardiac silhouette": r"heart|cardiac|cardio\w*",
    "mediastinum": r"mediastin\w*",
    "aortic arch": r"aort\w*",
    "trachea": r"trachea\w*",
    "carina": r"carina\w*",
    "spine": r"spine|spinal|vertebra\w*|thoracic disc\w*|scoliosis|kyphosis",
    "abdomen": r"abdom\w*|stomach|bowel",
    "svc": r"svc|superior vena cava",
    "cavoatrial junction": r"cavoatrial junction",
    "right atrium": r"right atri\w*",
    "{side} hilar structures": r"hila|hilar|hilum",
    "{side} costophrenic angle": r"costophrenic",
    "{side} hemidiaphragm": r"(?:hemi)?diaphragm\w*",
    "{side} clavicle": r"clavic\w*",
    "{side} apical zone": r"apex|apices|apical",
    "{side} lung": r"lungs?|pulmonary parenchyma|hemithorax",
}
"""Words that name a region; of a paired one on both sides unless the sentence names one."""
_PATTERNS = {name: re.compile(rf"\b(?:{words})\b") for name, words in _WORDS.items()}
_SIDES = {"l": "left", "r": "right"}
_SIDE_WORDS = re.compile(r"\b(left|right)\b")


@dataclass(frozen=True)
class SentenceRegions:
    """One sentence of a text, and the regions that it speaks of."""

    start: int
    """Index of the first character in the text."""
    end: int
    """Index behind the last one."""
    findings: tuple[str, ...]
    """Findings that it asserts or suspects, by the names of the claims."""
    regions: tuple[str, ...]
    """Of :data:`lmrrg.anatomy.REGIONS`, in their order."""


def sentence_regions(text: str) -> list[SentenceRegions]:
    """Return the sentences of a report with their regions.

    >>> text = "Heart size is 5.5 cm. Small left effusion."
    >>> for found in sentence_regions(text):
    ...     print(text[found.start : found.end], *found.regions, sep=" | ")
    Heart size is 5.5 cm. | cardiac silhouette
    Small left effusion. | left costophrenic angle
    """
    return [_linked(text, *match.span()) for match in _SENTENCE.finditer(text)]


def _linked(text: str, start: int, end: int) -> SentenceRegions:
    sentence = text[start:end]
    claims = [claim for part in sentences_of(sentence) for claim in sentence_claims(part)]
    named = set(_named_regions(sentence.lower()))
    for claim in claims:
        named |= set(_claim_regions(claim))
    asserted = {claim.finding: None for claim in claims if claim.assertion != ABSENT}
    regions = tuple(region for region in REGIONS if region in named)
    return SentenceRegions(start, end, tuple(asserted), regions)


def _claim_regions(claim: Claim) -> Iterator[str]:
    """Yield where a finding lies; one that is denied is linked, too: there it was looked for."""
    places = _REGIONS_OF.get(claim.finding, ())
    if places == _LUNG and claim.zones:
        places = tuple(place for zone in sorted(claim.zones) for place in _ZONES[zone])
    sides = [_SIDES[side] for side in sorted(claim.sides)]
    for place in places:
        yield from _of_sides(place, sides)


def _named_regions(sentence: str) -> Iterator[str]:
    sides = sorted(set(_SIDE_WORDS.findall(sentence)))
    for place, pattern in _PATTERNS.items():
        if pattern.search(sentence):
            yield from _of_sides(place, sides)


def _of_sides(place: str, sides: list[str]) -> Iterator[str]:
    if "{side}" not in place:
        yield place
        return
    for side in sides or _SIDES.values():
        yield place.format(side=side)
