"""The `embedded` backend: RadCliQ's four parts by rules, without any model or download (ours).

Its results are named ``radcliq-embedded`` everywhere; only the `reference` backend may be called RadCliQ.

- RG: the rule-based graph's entity and relation F1 (:mod:`report_graph`).
- BERTScore's stand-in: mostly the agreement of clinical claims (:mod:`report_graph_claims`), partly the overlap of
  words up to synonyms. Identical reports are 1, unrelated ones near 0, as on the rescaled BERTScore scale.
- CheXbert's stand-in: the cosine of vectors of findings with their side and severity.

Both stand-ins shrink with sentences that a hypothesis repeats or adds beyond the reference's length: a sentence
encoder does not mind them, a reader does, and a policy that is trained on the score would find them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lmrrg.metrics.bleu import bleu2
from lmrrg.metrics.lexicon import ANATOMY, LOCATION, graph_lexicon
from lmrrg.metrics.parts import Parts
from lmrrg.metrics.report_graph import ReportGraph, build_graph, graph_scores, weighted_f1
from lmrrg.metrics.report_graph_claims import Claim, claim_agreement, claim_lexicon, merge_claims, sentence_claims
from lmrrg.metrics.report_graph_scope import ABSENT, PRESENT, Sentence, read_sentence, sentences_of

_CLINICAL = 0.7
"""Share of the clinical claims in BERTScore's stand-in; the rest is the overlap of words."""
_PLACE_WEIGHT, _OTHER_WEIGHT = 0.6, 0.1
"""Weight of a place or a plain word in the overlap of words; an observation weighs 1."""
_DOUBT, _DENIED, _KIN, _SIDE, _SEVERITY, _ZONE, _NORMAL = 0.6, -0.12, 0.4, 1.0, 0.8, 0.4, 1.0
"""Components of a finding's vector, in units of its weight (``_NORMAL``: of a report without any finding)."""
_LENGTH_RATIO, _LENGTH_EXTRA, _LONGEST, _REPEAT_COST = 1.25, 12, 1.7, 2.5
"""A hypothesis of up to ratio * reference + extra words costs nothing; beyond ``_LONGEST`` times that no more is lost."""
_DULL = frozenset(
    [
        *["the", "a", "an", "is", "are", "was", "were", "be", "been", "of", "in", "and", "or", "with", "for", "to", "there", "this", "that", "these", "which", "by", "from", "at", "on", "it", "its", "as", "has"],
        "have",
        "not",
        "no",
        "without",
        "any",
        "seen",
        "identified",
        "noted",
        "evidence",
        "within",
        ",",
        "xxxx",
    ]
)


@dataclass(frozen=True, slots=True)
class _Analysis:
    graph: ReportGraph
    claims: dict[str, Claim]
    words: dict[tuple[str, int], float]
    vector: dict[str, float]
    norm: float
    lengths: Counter[str]
    """Sentence -> its words, times how often it occurs."""


class EmbeddedBackend:
    """Rule-based stand-ins for RadGraph, BERTScore and CheXbert on the same scales."""

    name = "radcliq-embedded"
    version = "2"

    def score(self, hypotheses: Sequence[str], references: Sequence[str]) -> Parts:
        """Parts of N pairs, each float64 [N]; all 0 where a side has no word.

        Raises:
            ValueError: the two sequences differ in length.
        """
        rows = [_score(h, r) for h, r in zip(hypotheses, references, strict=True)]
        rg_e, rg_er, rg_bar_er, radgraph, bertscore, semb = np.array(rows, dtype=np.float64).reshape(-1, 6).T
        return Parts(rg_e, rg_er, rg_bar_er, radgraph, bertscore, semb, bleu2(hypotheses, references))


def _score(hypothesis: str, reference: str) -> tuple[float, ...]:
    a, b = _analyse(hypothesis), _analyse(reference)
    if not a.lengths or not b.lengths:
        return (0.0,) * 6
    levels = graph_scores(a.graph, b.graph)
    if a.lengths == b.lengths:
        bertscore = semb = 1.0
    else:
        brevity = _padding_factor(a.lengths, b.lengths)
        overlap = weighted_f1(a.words, b.words)
        bertscore = brevity * (_CLINICAL * claim_agreement(a.claims, b.claims) + (1 - _CLINICAL) * overlap)
        semb = brevity * _cosine(a, b)
    return (levels.rg_e, levels.rg_er, levels.rg_bar_er, levels.radgraph, bertscore, semb)


@lru_cache(maxsize=65536)
def _analyse(text: str) -> _Analysis:
    sentences = sentences_of(text)
    claims: list[Claim] = []
    words: Counter[tuple[str, int]] = Counter()
    lengths: Counter[str] = Counter()
    for sentence in sentences:
        claims.extend(sentence_claims(sentence))
        words.update(_word_weights(sentence))
        lengths[sentence] += len(read_sentence(sentence).words)
    merged = merge_claims(claims)
    vector = _vector(merged)
    norm = math.sqrt(sum(x * x for x in vector.values()))
    return _Analysis(build_graph(text), merged, dict(words), vector, norm, +lengths)


@lru_cache(maxsize=65536)
def _word_weights(sentence: str) -> dict[tuple[str, int], float]:
    """(meaning, assertion) of each telling word of a sentence -> its weight."""
    read: Sentence = read_sentence(sentence)
    meaning = graph_lexicon().meaning
    weights: Counter[tuple[str, int]] = Counter()
    for word, kind, assertion in zip(read.words, read.kinds, read.assertions, strict=True):
        place = kind in (ANATOMY, LOCATION)
        if word not in _DULL:
            weight = _OTHER_WEIGHT if not kind else _PLACE_WEIGHT if place else 1.0
            weights[meaning.get(word, word), PRESENT if place or not kind else assertion] += weight
    return dict(weights)


def _vector(claims: dict[str, Claim]) -> dict[str, float]:
    """Sparse vector of a report's findings, their sides, zones and severities."""
    lexicon = claim_lexicon()
    vector: Counter[str] = Counter()
    for finding, claim in claims.items():
        weight = lexicon.weight[finding]
        if claim.assertion == ABSENT:
            vector[finding] += _DENIED * weight
            continue
        weight *= 1.0 if claim.assertion == PRESENT else _DOUBT
        vector[finding] += weight
        vector["kin " + lexicon.kin[finding]] += _KIN * weight
        for side in claim.sides:
            vector[f"{finding} {side}"] += _SIDE * weight
        for zone in claim.zones:
            vector[f"{finding} {zone}"] += _ZONE * weight
        if claim.severity:
            vector[f"{finding} {claim.severity >= 3}"] += _SEVERITY * weight
    if all(claim.assertion == ABSENT or lexicon.weight[f] < 0.5 for f, claim in claims.items()):
        vector["normal"] = _NORMAL
    return dict(vector)


def _cosine(a: _Analysis, b: _Analysis) -> float:
    small, large = sorted((a.vector, b.vector), key=len)
    dot = sum(x * large[key] for key, x in small.items() if key in large)
    return max(0.0, dot / (a.norm * b.norm)) if a.norm and b.norm else 0.0


def _padding_factor(hypothesis: Counter[str], reference: Counter[str]) -> float:
    """1, less for words beyond the allowed length, and less again for sentences said more often than needed."""
    analysed = {sentence: max(1, len(read_sentence(sentence).words)) for sentence in hypothesis}
    repeated = sum(
        n - max(reference.get(sentence, 0), analysed[sentence])
        for sentence, n in hypothesis.items()
        if n > analysed[sentence]
    )
    length = sum(reference.values())
    over = sum(hypothesis.values()) / (_LENGTH_RATIO * length + _LENGTH_EXTRA)
    return 1 / (math.sqrt(min(max(over, 1.0), _LONGEST)) * (1 + _REPEAT_COST * max(0, repeated) / length))
