"""Read reports, once each, into what their comparison needs (ours).

Two caches hold most of the work of a reward worker: the facts of sentences, which reports repeat,
and the analyses of reports.
"""

from __future__ import annotations

import math
from itertools import chain
from typing import NamedTuple

from lmrrg.metrics.embedded.batch_cache import CACHED_SENTENCES, SENTENCE_BATCH, BatchCache
from lmrrg.metrics.embedded.claim_lexicon import claim_lexicon
from lmrrg.metrics.embedded.claims import Claim, merge_claims, restates, sentence_claims
from lmrrg.metrics.embedded.graph import ReportGraph, join_graphs, sentence_graph
from lmrrg.metrics.embedded.lexicon import ANATOMY, LOCATION, graph_lexicon
from lmrrg.metrics.embedded.reading.language import (
    WordCounts,
    count_words,
    is_chest_report,
    sum_counts,
)
from lmrrg.metrics.embedded.reading.unnamed import unnamed_besides, unnamed_words
from lmrrg.metrics.embedded.sentences import (
    ABSENT,
    PRESENT,
    Sentence,
    read_sentence,
    sentences_of,
)

REPORT_BATCH = 64
"""Reports that are analysed together, see :class:`~lmrrg.metrics.embedded.batch_cache.BatchCache`.
"""

# Weights of words in BERTScore's stand-in; an observation weighs 1.
_PLACED = (ANATOMY, LOCATION)
_ANATOMY_WEIGHT = 0.6
_OTHER_WEIGHT = 0.1

# Components of the vector of findings (CheXbert's stand-in), in units of a finding's weight.
_SUSPECTED = 0.6
"""Factor on all components of an uncertain finding."""
_DENIED = -0.12
"""A denied finding points a little away from the same finding asserted."""
_KIN = 0.4
"""The family of a finding: an opacity is not unlike a pneumonia."""
_SIDE = 1.2
_ZONE = 0.6
_SEVERITY = 0.8
_SIZE = 1.0
_COURSE = 0.6
_TURN = 1.3
"""Radians between a size and another e times as large."""
_PLACE = 1.0
_NORMAL = 1.0
"""The only positive component of a report without any finding; not scaled by a weight."""
_INCIDENTAL = 0.5
"""A report whose findings all weigh less is a normal one."""
_SEVERE = 3
"""Severities from here on (moderate, severe) are one component, milder ones another."""

_UNCHANGED = frozenset("s")
_NO_CONTENT: frozenset[tuple[str, int]] = frozenset()
_NO_FINDINGS: frozenset[str] = frozenset()
_LEAST_CONTENT = 2
"""Words of a class that a sentence must have to be compared with another by its words."""

WeightedWord = tuple[tuple[str, int], float]
"""((meaning, assertion), weight)"""


class SentenceFacts(NamedTuple):
    """What the stand-ins of BERTScore and CheXbert need of one sentence."""

    claims: tuple[Claim, ...]
    weights: tuple[WeightedWord, ...]
    """Its informative words with their weights."""
    unnamed: tuple[str, ...]
    """Meanings of the words by which it asserts something that no lexicon names."""
    content: frozenset[tuple[str, int]]
    """(meaning, assertion) of its words of a class."""
    findings: frozenset[str]
    """What its claims are of."""
    length: int
    """Its number of words."""
    counts: WordCounts
    """How many of them are known, of the chest and so on."""


class ReportAnalysis(NamedTuple):
    """What the comparison of two reports needs of each."""

    graph: ReportGraph
    mentions: tuple[tuple[Claim, ...], ...]
    """The claims of each sentence, one for every mention of a finding."""
    claims: dict[str, tuple[Claim, ...]]
    """Finding -> its distinct claims in the report."""
    unnamed: tuple[tuple[str, ...], ...]
    """Of each sentence with a finding that no lexicon names, the meanings of its words."""
    words: dict[tuple[str, int], float]
    """(meaning, assertion) of an informative word -> its weight, summed over the report."""
    vector: dict[str, float]
    """Sparse vector of the findings with their sides, zones and severities."""
    norm: float
    """Euclidean norm of the vector."""
    lengths: dict[str, int]
    """Sentence -> its number of words, times how often it occurs; empty for an unreadable text."""
    repeated: tuple[tuple[str, int], ...]
    """(sentence, its number of words once) of every sentence that occurs again."""
    strange: int
    """Number of words that are none of English or of radiology."""
    restated: int
    """Words of further sentences that only say again, or contradict, what one before them says."""


def analyse_reports(texts: list[str]) -> list[ReportAnalysis]:
    """Return the analysis of each report.

    >>> (analysis,) = analyse_reports(["Left effusion. No pneumothorax. Left effusion."])
    >>> sorted(analysis.claims)
    ['effusion', 'pneumothorax']
    >>> analysis.lengths, analysis.repeated
    ({'left effusion': 4, 'no pneumothorax': 2}, (('left effusion', 2),))
    """
    reports = [sentences_of(text) for text in texts]
    facts = sentence_facts(chain.from_iterable(reports))
    return [_join_sentences(sentences, facts) for sentences in reports]


def _join_sentences(sentences: list[str], facts_of: dict[str, SentenceFacts]) -> ReportAnalysis:
    found = [facts_of[sentence] for sentence in sentences]
    words: dict[tuple[str, int], float] = {}
    lengths: dict[str, int] = {}
    repeated: dict[str, int] = {}
    restated: set[str] = set()
    said = _Said()
    for sentence, facts in zip(sentences, found, strict=True):
        if sentence in lengths:
            repeated[sentence] = facts.length
        elif said.has(facts):
            restated.add(sentence)
        if sentence not in restated:
            for word, weight in facts.weights:
                words[word] = words[word] + weight if word in words else weight
        lengths[sentence] = lengths.get(sentence, 0) + facts.length
    counts = sum_counts([facts.counts for facts in found])
    # Sentences of requests alone have no word.
    is_readable = any(lengths.values()) and is_chest_report(counts)
    mentions = [facts.claims for facts in found]
    merged = merge_claims(chain.from_iterable(mentions))
    vector = finding_vector(merged)
    return ReportAnalysis(
        graph=join_graphs(sentences, restated),
        mentions=tuple(mentions),
        claims=merged,
        unnamed=tuple([facts.unnamed for facts in found if facts.unnamed]),
        words=words,
        vector=vector,
        norm=math.sqrt(sum([x * x for x in vector.values()])),
        lengths=lengths if is_readable else {},
        repeated=tuple(repeated.items()),
        strange=counts.words - counts.known,
        restated=sum([facts_of[sentence].length for sentence in restated]),
    )


class _Said:
    """What the sentences of a report have said so far."""

    def __init__(self) -> None:
        self.sentences: list[SentenceFacts] = []
        self.contents: list[frozenset[tuple[str, int]]] = []
        # Of all sentences, to know fast what none has said.
        self.findings: set[str] = set()

    def has(self, facts: SentenceFacts) -> bool:
        """Return whether a sentence only says again, or contradicts, what was said; remember it."""
        is_said = bool(facts.content) and any(map(facts.content.issubset, self.contents))
        if not is_said and facts.findings and self.findings.issuperset(facts.findings):
            is_said = all([self._has_claim(claim) for claim in facts.claims])
        self.sentences.append(facts)
        self.findings.update(facts.findings)
        if facts.content:
            self.contents.append(facts.content)
        return is_said

    def _has_claim(self, claim: Claim) -> bool:
        # "The lungs are clear. No consolidation": what clear lungs lack may well be named.
        if claim.assertion == ABSENT and claim.finding in claim_lexicon().clear_lungs:
            return False
        return any(
            [
                restates(claim, other)
                for facts in self.sentences
                for other in facts.claims
                if other.finding == claim.finding
            ]
        )


def _read_facts(sentences: list[str]) -> list[SentenceFacts]:
    # One step after the other over the whole batch, as BatchCache explains.
    reads = [read_sentence(sentence) for sentence in sentences]
    claims = [sentence_claims(sentence) for sentence in sentences]
    # The graphs are needed only later, but are read now, while the small caches of
    # `read_sentence` and `sentence_claims` still hold this batch.
    for sentence in sentences:
        sentence_graph(sentence)
    return [
        _sentence_facts(sentence, found, read)
        for sentence, found, read in zip(sentences, claims, reads, strict=True)
    ]


def _sentence_facts(sentence: str, claims: tuple[Claim, ...], read: Sentence) -> SentenceFacts:
    weights, meant = _word_weights(read)
    content = frozenset(meant)
    return SentenceFacts(
        claims,
        tuple(weights),
        _unnamed(read, claims),
        content if len(content) >= _LEAST_CONTENT else _NO_CONTENT,
        frozenset([claim.finding for claim in claims]) if claims else _NO_FINDINGS,
        len(read.words),
        count_words(sentence),
    )


def _unnamed(read: Sentence, claims: tuple[Claim, ...]) -> tuple[str, ...]:
    """Return the meanings of the words by which a sentence asserts what no claim names."""
    affirmed = [claim.mention for claim in claims if claim.assertion != ABSENT]
    words = unnamed_besides(read, affirmed) if affirmed else unnamed_words(read)
    if not words:
        return ()
    meaning = graph_lexicon().meaning
    return tuple([meaning.get(word, word) for word in words])


def _word_weights(read: Sentence) -> tuple[list[WeightedWord], list[tuple[str, int]]]:
    """Return ((meaning, assertion), weight) of each informative word, and without it of a class."""
    lexicon = graph_lexicon()
    meaning = lexicon.meaning
    dull = lexicon.dull
    weights: list[WeightedWord] = []
    content: list[tuple[str, int]] = []
    for word, kind, assertion in zip(read.words, read.kinds, read.assertions, strict=True):
        if word in dull:
            continue
        # As in the graph, only observations can be denied or uncertain.
        if not kind:
            weights.append(((word, PRESENT), _OTHER_WEIGHT))
            continue
        is_placed = kind in _PLACED
        meant = (meaning.get(word, word), PRESENT if is_placed else assertion)
        weights.append((meant, _ANATOMY_WEIGHT if is_placed else 1.0))
        content.append(meant)
    return weights, content


def finding_vector(claims: dict[str, tuple[Claim, ...]]) -> dict[str, float]:
    """Return the sparse vector of a report's findings and their attributes.

    >>> finding_vector({})
    {'normal': 1.0}
    >>> effusion = merge_claims(sentence_claims("left effusion"))
    >>> finding_vector(effusion)
    {'effusion': 1.0, 'kin pleura': 0.4, 'effusion l': 1.2}
    """
    lexicon = claim_lexicon()
    vector: dict[str, float] = {}
    is_normal = True
    for finding, found in claims.items():
        weight = lexicon.weight[finding]
        if found[0].assertion == ABSENT:
            vector[finding] = _DENIED * weight
            continue
        is_normal = is_normal and weight < _INCIDENTAL
        if all([claim.assertion != PRESENT for claim in found]):
            weight *= _SUSPECTED
        family = "kin " + lexicon.kin[finding]
        vector[finding] = weight
        vector[family] = vector.get(family, 0.0) + _KIN * weight
        for claim in found:
            # Of several claims, each has its own zone and severity.
            name = finding if len(found) == 1 else " ".join([finding, *sorted(claim.sides)])
            _add_attributes(vector, claim, name, weight)
    if is_normal:
        vector["normal"] = _NORMAL
    return vector


def _add_attributes(vector: dict[str, float], claim: Claim, name: str, weight: float) -> None:
    """Add the components of one claim's attributes; ``name`` is that of its zone and severity."""
    finding = claim.finding
    for side in sorted(claim.sides):
        vector[f"{finding} {side}"] = _SIDE * weight
    for zone in sorted(claim.zones):
        vector[f"{name} {zone}"] = _ZONE * weight
    # Contradictory severities are none.
    if claim.severity and claim.severity == claim.mildest:
        vector[f"{name} {claim.severity >= _SEVERE}"] = _SEVERITY * weight
    for change in sorted(claim.change - _UNCHANGED):
        vector[f"{finding} {change}"] = _COURSE * weight
    if claim.sizes:
        # A point on a circle: close sizes point the same way, one ten times larger the other way.
        angle = _TURN * math.log(max(claim.sizes) + 1)
        vector[f"{finding} size x"] = _SIZE * weight * math.cos(angle)
        vector[f"{finding} size y"] = _SIZE * weight * math.sin(angle)
    for place in sorted(claim.places):
        vector[f"{finding} at {place}"] = _PLACE * weight


sentence_facts = BatchCache(_read_facts, CACHED_SENTENCES, SENTENCE_BATCH)
"""Sentence -> its facts."""
analyses_of_references = BatchCache(analyse_reports, 8192, REPORT_BATCH)
"""Reference report -> its analysis; a reference comes back in every epoch."""
analyses_of_hypotheses = BatchCache(analyse_reports, 512, REPORT_BATCH)
"""Sampled report -> its analysis; only within a batch is a sample likely to come again."""
