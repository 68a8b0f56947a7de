"""Describe the sentences of a report: their findings, their regions, and the attention there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lmrrg.anatomy import REGIONS
from lmrrg.documents.sentence_regions import SentenceRegions, sentence_regions
from lmrrg.documents.uncertainty import SentenceLikelihood, sentence_likelihoods
from serve_app.schemas import RegionArea, SentenceInfo, Uncertainty

_EDGE = 0.5
"""Least attention inside an area, as a fraction of the largest (the width at half maximum)."""


def describe_sentences(
    text: str,
    section: Literal["findings", "impression"],
    attention: NDArray[np.float32],
    pieces: Sequence[str],
    logprobs: Sequence[float],
) -> list[SentenceInfo]:
    """Return the sentences of a text.

    Args:
        text: one section of a report.
        section: its name.
        attention: of each region to the patches of the images that were used, [29, V, side, side].
        pieces: the tokens of the text, as the tokenizer writes them, without special ones.
        logprobs: of these tokens, nats.
    """
    sentences = sentence_regions(text)
    likelihoods = sentence_likelihoods(text, sentences, pieces, logprobs)
    return [
        _described(text, section, sentence, attention, likelihood)
        for sentence, likelihood in zip(sentences, likelihoods, strict=True)
    ]


def _described(
    text: str,
    section: Literal["findings", "impression"],
    sentence: SentenceRegions,
    attention: NDArray[np.float32],
    likelihood: SentenceLikelihood | None,
) -> SentenceInfo:
    areas = [region_area(name, attention[REGIONS.index(name)]) for name in sentence.regions]
    return SentenceInfo(
        section=section,
        start=sentence.start,
        end=sentence.end,
        text=text[sentence.start : sentence.end],
        findings=list(sentence.findings),
        regions=areas,
        uncertainty=None if likelihood is None else uncertainty(likelihood),
    )


def uncertainty(likelihood: SentenceLikelihood) -> Uncertainty:
    """Return what an answer says of the likelihood of a sentence.

    >>> uncertainty(SentenceLikelihood(mean=-0.2, least=math.log(0.25))).meaning
    'The model gave its least sure word here a probability of 25%.'
    """
    least = math.exp(likelihood.least)
    return Uncertainty(
        value=round(1 - least, 4),
        mean_logprob=round(likelihood.mean, 4),
        meaning=f"The model gave its least sure word here a probability of {least:.0%}.",
    )


def region_area(name: str, attention: NDArray[np.float32]) -> RegionArea:
    """Return where the attention of a region, [V, side, side], is at its strongest.

    >>> heat = np.zeros((2, 4, 4), np.float32)
    >>> heat[1, 0, 2:] = 0.5
    >>> area = region_area("spine", heat)
    >>> area.image, area.box
    (1, (0.5, 0.0, 1.0, 0.25))
    """
    image = int(attention.max(axis=(1, 2)).argmax())
    inside = attention[image] >= _EDGE * attention[image].max()
    rows = np.flatnonzero(inside.any(axis=1))
    columns = np.flatnonzero(inside.any(axis=0))
    side = attention.shape[-1]
    left, right = columns[0] / side, (columns[-1] + 1) / side
    top, bottom = rows[0] / side, (rows[-1] + 1) / side
    return RegionArea(name=name, image=image, box=(left, top, right, bottom))
