"""Compare two analysed reports: RadCliQ's parts of one pair (ours).

- RG: the entity and relation F1 of the rule-based graphs.
- BERTScore's stand-in: mostly the agreement of clinical claims, partly the overlap of words up to
  synonyms. Identical reports are 1, unrelated ones near 0, as on the rescaled BERTScore scale.
- CheXbert's stand-in: the cosine of vectors of findings with their side and severity.

Both stand-ins shrink with sentences that a hypothesis repeats or adds beyond the reference's
length. A sentence encoder does not mind them, a reader does, and a policy that is trained on the
score would find them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from lmrrg.metrics.embedded.analysis import ReportAnalysis
from lmrrg.metrics.embedded.claim_agreement import claim_agreement
from lmrrg.metrics.embedded.graph import graph_scores, weighted_f1

_CLAIMS_WEIGHT = 0.7
"""Weight of the clinical claims in BERTScore's stand-in; the rest is the overlap of words."""

# A hypothesis may have this many words at no cost: ratio * words of the reference + extra words.
_LENGTH_RATIO = 1.25
_LENGTH_EXTRA = 12
_LONGEST = 1.7
"""Beyond this many times the allowed length nothing more is lost."""
_REPEAT_COST = 2.5
"""Cost of a repeated word, in units of the reference's words."""


class PairScores(NamedTuple):
    """The parts of one pair that need both analyses; the fields are those of ``Parts``."""

    rg_e: float
    rg_er: float
    rg_bar_er: float
    radgraph: float
    bertscore: float
    semb: float


WORDLESS = PairScores(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
"""The parts of a pair of which one side has no word."""


def compare(hypothesis: ReportAnalysis, reference: ReportAnalysis) -> PairScores:
    """Return the parts of one pair; :data:`WORDLESS` itself where a side has no word.

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
    agreement = claim_agreement(hypothesis.claims, reference.claims)
    overlap = weighted_f1(hypothesis.words, reference.words)
    mixture = _CLAIMS_WEIGHT * agreement + (1 - _CLAIMS_WEIGHT) * overlap
    cosine = _cosine(hypothesis, reference)
    return PairScores(*levels, bertscore=factor * mixture, semb=factor * cosine)


def padding_factor(hypothesis: ReportAnalysis, reference: ReportAnalysis) -> float:
    """Return the factor in (0, 1] for words beyond the allowed length and for repeated sentences.

    A sentence may occur once, or as often as in the reference, at no cost.
    """
    length = sum(reference.lengths.values())
    repeated = 0
    for sentence, once in hypothesis.repeated:
        needed = max(reference.lengths.get(sentence, 0), once)
        repeated += max(0, hypothesis.lengths[sentence] - needed)
    allowed = _LENGTH_RATIO * length + _LENGTH_EXTRA
    excess = min(max(sum(hypothesis.lengths.values()) / allowed, 1.0), _LONGEST)
    return 1 / (math.sqrt(excess) * (1 + _REPEAT_COST * repeated / length))


def _cosine(a: ReportAnalysis, b: ReportAnalysis) -> float:
    """Return the cosine of two vectors of findings; 0 where it is negative or a vector is 0."""
    if not a.norm or not b.norm:
        return 0.0
    # The shorter vector is looped over.
    if len(a.vector) < len(b.vector):
        dot = _dot(a.vector, b.vector)
    else:
        dot = _dot(b.vector, a.vector)
    return max(0.0, dot / (a.norm * b.norm))


def _dot(a: dict[str, float], b: dict[str, float]) -> float:
    return sum([x * b[key] for key, x in a.items() if key in b])
