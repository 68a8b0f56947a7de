"""Compare two analysed reports: RadCliQ's parts of one pair (ours).

- RG: the entity and relation F1 of the rule-based graphs.
- BERTScore's stand-in: mostly the agreement of clinical claims, partly the overlap of words up to
  synonyms. Identical reports are 1, unrelated ones near 0, as on the rescaled BERTScore scale.
- CheXbert's stand-in: the cosine of vectors of findings with their side and severity.

Both stand-ins shrink with sentences that a hypothesis repeats or adds beyond the reference's
length, and with words that are none. A sentence encoder does not mind them, a reader does, and a
policy that is trained on the score would find them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from lmrrg.metrics.embedded.analysis import ReportAnalysis
from lmrrg.metrics.embedded.claim_agreement import claim_agreement
from lmrrg.metrics.embedded.graph import graph_scores, weighted_f1
from lmrrg.metrics.embedded.sentences import PRESENT, UNCERTAIN

_CLAIMS_WEIGHT = 0.7
"""Weight of the clinical claims in BERTScore's stand-in; the rest is the overlap of words."""

_UNNAMED = 0.6
"""Weight of an invented finding that no lexicon names."""
_INVENTED_SCALE = 4.0
"""Invented weight of 1 / scale halves how normal a report is."""

# A hypothesis may have this many words at no cost: ratio * words of the reference + extra words.
_LENGTH_RATIO = 1.25
_LENGTH_EXTRA = 12
_LONGEST = 1.7
"""Beyond this many times the allowed length nothing more is lost."""
_REPEAT_COST = 2.5
"""Cost of a repeated word, in units of the reference's words."""
_FREE_STRANGE = 0.1
"""Part of a report's words that may be unknown, as rare and misspelt words are."""
_RESTATED_COST = 1.0
"""Cost of a word of a sentence that says the same in other words, or contradicts itself."""


class PairScores(NamedTuple):
    """The parts of one pair that need both analyses; the fields are those of ``Parts``."""

    rg_e: float
    rg_er: float
    rg_bar_er: float
    radgraph: float
    bertscore: float
    semb: float


WORDLESS = PairScores(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
"""The parts of a pair of which one side is unreadable."""


def compare(hypothesis: ReportAnalysis, reference: ReportAnalysis) -> PairScores:
    """Return the parts of one pair; :data:`WORDLESS` itself where a side is unreadable.

    >>> from lmrrg.metrics.embedded.analysis import analyse_reports
    >>> left, again, right = analyse_reports(["Left effusion.", "Left effusion", "Right effusion."])
    >>> compare(left, again).bertscore, compare(left, again).semb
    (1.0, 1.0)
    >>> round(compare(right, left).semb, 2)
    0.45
    """
    if not hypothesis.lengths or not reference.lengths:
        return WORDLESS
    levels = graph_scores(hypothesis.graph, reference.graph)
    # The same sentences, in any order: exactly 1, which the sums below would miss by rounding.
    if hypothesis.lengths == reference.lengths:
        return PairScores(*levels, bertscore=1.0, semb=1.0)
    factor = padding_factor(hypothesis, reference)
    unnamed = _UNNAMED * _invented_sentences(hypothesis, reference) if hypothesis.unnamed else 0.0
    claims = claim_agreement(hypothesis.claims, reference.claims, unnamed)
    overlap = weighted_f1(hypothesis.words, reference.words)
    mixture = _CLAIMS_WEIGHT * claims.agreement + (1 - _CLAIMS_WEIGHT) * overlap
    cosine = _cosine(hypothesis, reference, claims.invented, unnamed)
    return PairScores(*levels, bertscore=factor * mixture, semb=factor * cosine)


def padding_factor(hypothesis: ReportAnalysis, reference: ReportAnalysis) -> float:
    """Return the factor in (0, 1] for too many, repeated and unknown words.

    A sentence may occur once, or as often as in the reference, at no cost; as many words as in the
    reference may say again what was said.
    """
    length = sum(reference.lengths.values())
    repeated = 0
    for sentence, once in hypothesis.repeated:
        needed = max(reference.lengths.get(sentence, 0), once)
        repeated += max(0, hypothesis.lengths[sentence] - needed)
    restated = max(0, hypothesis.restated - reference.restated)
    allowed = _LENGTH_RATIO * length + _LENGTH_EXTRA
    written = sum(hypothesis.lengths.values())
    excess = min(max(written / allowed, 1.0), _LONGEST)
    # Words that are none cost like repeated ones.
    strange = max(0.0, hypothesis.strange - reference.strange - _FREE_STRANGE * written)
    again = _REPEAT_COST * (repeated + strange) + _RESTATED_COST * restated
    return 1 / (math.sqrt(excess) * (1 + again / length))


def _invented_sentences(hypothesis: ReportAnalysis, reference: ReportAnalysis) -> int:
    """Return the number of sentences with an unnamed finding that the reference does not share.

    It shares one that has half of its words or more, and does not deny them.
    """
    known = reference.words
    invented = 0
    for words in hypothesis.unnamed:
        shared = [word for word in words if (word, PRESENT) in known or (word, UNCERTAIN) in known]
        invented += 2 * len(shared) < len(words)
    return invented


def _cosine(
    hypothesis: ReportAnalysis, reference: ReportAnalysis, invented: float, unnamed: float
) -> float:
    """Return the cosine of two vectors of findings; 0 where it is negative or a vector is 0.

    A report is the less normal the more it invents, and what has no name is a component of its own.
    """
    # The shorter vector is looped over.
    if len(hypothesis.vector) < len(reference.vector):
        dot = _dot(hypothesis.vector, reference.vector)
    else:
        dot = _dot(reference.vector, hypothesis.vector)
    square = hypothesis.norm**2 + unnamed**2
    normal = hypothesis.vector.get("normal", 0.0)
    if invented and normal:
        left = normal / (1 + _INVENTED_SCALE * invented)
        square += left**2 - normal**2
        dot += (left - normal) * reference.vector.get("normal", 0.0)
    if not square or not reference.norm:
        return 0.0
    return max(0.0, dot / (math.sqrt(square) * reference.norm))


def _dot(a: dict[str, float], b: dict[str, float]) -> float:
    return sum([x * b[key] for key, x in a.items() if key in b])
