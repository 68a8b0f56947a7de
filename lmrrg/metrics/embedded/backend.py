"""The `embedded` backend: RadCliQ's four parts by rules, without any model or download (ours).

Its results are named ``radcliq-embedded`` everywhere; only the `published` backend may be called RadCliQ.

- RG: the rule-based graph's entity and relation F1 (:mod:`report_graph`).
- BERTScore's stand-in: mostly the agreement of clinical claims (:mod:`report_graph_claims`), partly the overlap of
  words up to synonyms. Identical reports are 1, unrelated ones near 0, as on the rescaled BERTScore scale.
- CheXbert's stand-in: the cosine of vectors of findings with their side and severity.

Both stand-ins shrink with sentences that a hypothesis repeats or adds beyond the reference's length: a sentence
encoder does not mind them, a reader does, and a policy that is trained on the score would find them.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import NamedTuple

import numpy as np

from lmrrg.metrics.embedded.batch_cache import Remembered, portions
from lmrrg.metrics.embedded.claims import (
    Claim,
    claim_agreement,
    claim_lexicon,
    merge_claims,
    sentence_claims,
)
from lmrrg.metrics.embedded.graph import (
    ReportGraph,
    graph_scores,
    join_graphs,
    sentence_graph,
    weighted_f1,
)
from lmrrg.metrics.embedded.labeler import label_report
from lmrrg.metrics.embedded.lexicon import ANATOMY, LOCATION, graph_lexicon
from lmrrg.metrics.embedded.sentences import (
    ABSENT,
    PRESENT,
    REMEMBERED_SENTENCES,
    SENTENCES_AT_WORK,
    Sentence,
    read_sentence,
    sentences_of,
)
from lmrrg.metrics.parts import Parts
from lmrrg.metrics.text.bleu import bleu2

_VERSION = "7"
"""Raise it when a change of a rule or a lexicon can change a score or a label."""
_CLINICAL = 0.7
"""Share of the clinical claims in BERTScore's stand-in; the rest is the overlap of words."""
_PLACE_WEIGHT, _OTHER_WEIGHT = 0.6, 0.1
"""Weight of a place or a plain word in the overlap of words; an observation weighs 1."""
_DOUBT, _DENIED, _KIN, _SIDE, _SEVERITY, _ZONE, _NORMAL = 0.6, -0.12, 0.4, 1.2, 0.8, 0.6, 1.0
"""Components of a finding's vector, in units of its weight (``_NORMAL``: of a report without any finding)."""
_INCIDENTAL = 0.5
"""A report whose findings all weigh less is a normal one."""
_AT_ONCE = 64
"""Pairs that are read together, see :class:`~lmrrg.metrics.embedded.batch_cache.Remembered`."""
_NOTHING = (0.0,) * 6
"""The parts of a pair of which one side has no word."""
_LENGTH_RATIO, _LENGTH_EXTRA, _LONGEST, _REPEAT_COST = 1.25, 12, 1.7, 2.5
"""Up to ratio * reference + extra words cost a hypothesis nothing; no more is lost beyond ``_LONGEST`` times that."""


class _Analysis(NamedTuple):
    graph: ReportGraph
    claims: dict[str, Claim]
    words: dict[tuple[str, int], float]
    vector: dict[str, float]
    norm: float
    lengths: dict[str, int]
    """Sentence -> its number of words, times how often it occurs; empty for a text without a word."""
    repeated: tuple[tuple[str, int], ...]
    """(sentence, its number of words once) of every sentence that occurs again."""


class _Told(NamedTuple):
    """What the parts other than the graph read from one sentence."""

    claims: tuple[Claim, ...]
    weights: tuple[tuple[tuple[str, int], float], ...]
    length: int


class RuleLabeler:
    """The rules behind :func:`lmrrg.metrics.embedded.labeler.label_report`, as a labeler of many reports."""

    name = f"embedded {_VERSION}"

    def label(self, reports: Sequence[str]) -> list[dict[str, int]]:
        """The classes of :data:`~lmrrg.studies.LABELS` that each report mentions, with 1, 0 or -1."""
        return [label_report(report) for report in reports]


class EmbeddedBackend:
    """Rule-based stand-ins for RadGraph, BERTScore and CheXbert on the same scales."""

    name = "radcliq-embedded"
    version = _VERSION
    labeler = RuleLabeler()

    def score(self, hypotheses: Sequence[str], references: Sequence[str]) -> Parts:
        """Parts of N pairs, each float64 [N]; all 0 where a side has no word.

        Raises:
            ValueError: the two sequences differ in length.
        """
        with _collector_paused():
            pairs = list(zip(hypotheses, references, strict=True))
            rows = [row for some in portions(pairs, _AT_ONCE) for row in _score(some)]
            bleu = np.where(
                [row is not _NOTHING for row in rows], bleu2(hypotheses, references), 0.0
            )
        rg_e, rg_er, rg_bar_er, radgraph, bertscore, semb = (
            np.array(rows, dtype=np.float64).reshape(-1, 6).T
        )
        return Parts(rg_e, rg_er, rg_bar_er, radgraph, bertscore, semb, bleu)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """The analysis makes many small tuples and no cycles: the collector would only walk the caches again and again.

    What was made meanwhile joins the oldest generation unwalked (a freeze and its undoing), or the first allocation
    afterwards would pay for a walk over all of it.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if not gc.get_freeze_count():  # else whoever froze objects wants them to stay so
                gc.freeze()
                gc.unfreeze()
            gc.enable()


def _score(pairs: list[tuple[str, str]]) -> list[tuple[float, ...]]:
    hypotheses, references = (
        _of_hypotheses([h for h, _ in pairs]),
        _of_references([r for _, r in pairs]),
    )
    return [_compare(hypotheses[h], references[r]) for h, r in pairs]


def _compare(a: _Analysis, b: _Analysis) -> tuple[float, ...]:
    if not a.lengths or not b.lengths:
        return _NOTHING
    levels = graph_scores(a.graph, b.graph)
    if a.lengths == b.lengths:
        bertscore = semb = 1.0
    else:
        brevity = _padding_factor(a, b)
        overlap = weighted_f1(a.words, b.words)
        bertscore = brevity * (
            _CLINICAL * claim_agreement(a.claims, b.claims) + (1 - _CLINICAL) * overlap
        )
        semb = brevity * _cosine(a, b)
    return (levels.rg_e, levels.rg_er, levels.rg_bar_er, levels.radgraph, bertscore, semb)


def _analyse(texts: list[str]) -> list[_Analysis]:
    reports = [sentences_of(text) for text in texts]
    told = _told(chain.from_iterable(reports))
    return [_join(sentences, told) for sentences in reports]


def _join(sentences: list[str], told_of: dict[str, _Told]) -> _Analysis:
    claims: list[Claim] = []
    words: dict[tuple[str, int], float] = {}
    lengths: dict[str, int] = {}
    repeated: dict[str, int] = {}
    for sentence in sentences:
        told = told_of[sentence]
        claims.extend(told.claims)
        for word, weight in told.weights:
            words[word] = words.get(word, 0.0) + weight
        if sentence in lengths:
            repeated[sentence] = told.length
        lengths[sentence] = lengths.get(sentence, 0) + told.length
    merged = merge_claims(claims)
    vector = _vector(merged)
    norm = math.sqrt(sum([x * x for x in vector.values()]))
    graph = join_graphs(sentences)
    lengths = lengths if any(lengths.values()) else {}
    return _Analysis(graph, merged, words, vector, norm, lengths, tuple(repeated.items()))


_of_references = Remembered(_analyse, 8192, _AT_ONCE)
"""A reference comes back in every epoch."""
_of_hypotheses = Remembered(_analyse, 512, _AT_ONCE)
"""Only within a batch is a sampled report likely to come again."""


def _tell(sentences: list[str]) -> list[_Told]:
    reads = [read_sentence(sentence) for sentence in sentences]
    claims = [sentence_claims(sentence) for sentence in sentences]
    for sentence in sentences:
        sentence_graph(sentence)  # while what it is made of is still at work
    return [
        _Told(c, _word_weights(read), len(read.words))
        for c, read in zip(claims, reads, strict=True)
    ]


_told = Remembered(_tell, REMEMBERED_SENTENCES, SENTENCES_AT_WORK)


def _word_weights(read: Sentence) -> tuple[tuple[tuple[str, int], float], ...]:
    """((meaning, assertion), weight) of each telling word of a sentence."""
    lexicon = graph_lexicon()
    meaning, dull = lexicon.meaning, lexicon.dull
    weights = []
    for word, kind, assertion in zip(read.words, read.kinds, read.assertions, strict=True):
        if word not in dull:
            if not kind:
                weights.append(((word, PRESENT), _OTHER_WEIGHT))
            elif kind in (ANATOMY, LOCATION):
                weights.append(((meaning.get(word, word), PRESENT), _PLACE_WEIGHT))
            else:
                weights.append(((meaning.get(word, word), assertion), 1.0))
    return tuple(weights)


def _vector(claims: dict[str, Claim]) -> dict[str, float]:
    """Sparse vector of a report's findings, their sides, zones and severities."""
    lexicon = claim_lexicon()
    vector: dict[str, float] = {}
    normal = True
    for finding, claim in claims.items():
        weight = lexicon.weight[finding]
        if claim.assertion == ABSENT:
            vector[finding] = _DENIED * weight
            continue
        normal = normal and weight < _INCIDENTAL
        weight *= 1.0 if claim.assertion == PRESENT else _DOUBT
        kin = "kin " + lexicon.kin[finding]
        vector[finding] = weight
        vector[kin] = vector.get(kin, 0.0) + _KIN * weight
        vector |= {f"{finding} {side}": _SIDE * weight for side in claim.sides}
        vector |= {f"{finding} {zone}": _ZONE * weight for zone in claim.zones}
        if claim.severity:
            vector[f"{finding} {claim.severity >= 3}"] = _SEVERITY * weight
    if normal:
        vector["normal"] = _NORMAL
    return vector


def _cosine(a: _Analysis, b: _Analysis) -> float:
    small, large = (a.vector, b.vector) if len(a.vector) < len(b.vector) else (b.vector, a.vector)
    dot = sum([x * large[key] for key, x in small.items() if key in large])
    return max(0.0, dot / (a.norm * b.norm)) if a.norm and b.norm else 0.0


def _padding_factor(hypothesis: _Analysis, reference: _Analysis) -> float:
    """1, less for words beyond the allowed length, and less again for sentences said more often than needed."""
    repeated, length = 0, sum(reference.lengths.values())
    for sentence, once in hypothesis.repeated:
        needed = max(reference.lengths.get(sentence, 0), once)
        repeated += max(0, hypothesis.lengths[sentence] - needed)
    over = sum(hypothesis.lengths.values()) / (_LENGTH_RATIO * length + _LENGTH_EXTRA)
    return 1 / (math.sqrt(min(max(over, 1.0), _LONGEST)) * (1 + _REPEAT_COST * repeated / length))
