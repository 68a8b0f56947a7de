"""A report as a graph in the RadGraph schema, built by rules, and the F1 scores between two graphs.

Ours: no model. Entities are single words with one of ANAT-DP, OBS-DP, OBS-U, OBS-DA; relations are modify, located_at
and suggestive_of. RadCliQ's RG compares the graphs as sets of meanings, so that "cardiac" is "heart". The reward levels of the ``radgraph`` package are
*expected* F1 scores: an entity counts with the chance that RadGraph's model marks it (:mod:`report_graph_salience`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from lmrrg.metrics.lexicon import ANATOMY, LOCATION, graph_lexicon
from lmrrg.metrics.report_graph_claims import sentence_claims
from lmrrg.metrics.report_graph_relations import Relation, relations_of
from lmrrg.metrics.report_graph_salience import expectations, salience
from lmrrg.metrics.report_graph_scope import Sentence, read_sentence, sentences_of

LABEL_OF_ASSERTION = ("OBS-DP", "OBS-DA", "OBS-U")
Entity = tuple[str, str]
"""(tokens, label)"""
Chances = tuple[float, float]
"""(chance that an entity is marked, chance that it then has a relation)"""


@dataclass(frozen=True, slots=True)
class ReportGraph:
    """Entities and relations of a sentence or a report."""

    entities: frozenset[Entity]
    """As the words stand in the text."""
    meanings: frozenset[Entity]
    """The same with one word for all words of one meaning: what RG compares."""
    relations: frozenset[tuple[Entity, Entity, str]]
    """(head, tail, type) between meanings"""
    chances: dict[Entity, Chances]
    typed: dict[tuple[str, ...], float]
    """(tokens, label, relation, target tokens), or (tokens, label) without a relation -> chance"""
    sentences: frozenset[str]
    """The lower-case sentences that the graph was read from."""


@dataclass(frozen=True, slots=True)
class GraphScores:
    """F1 of one pair at every level of the ``radgraph`` package, and RadCliQ's RG."""

    rg_e: float
    rg_er: float
    rg_bar_er: float
    radgraph: float


@lru_cache(maxsize=65536)
def sentence_graph(sentence: str) -> ReportGraph:
    """Graph of one lower-case sentence; reports repeat sentences, so they are remembered."""
    return _graph(read_sentence(sentence), sentence)


def build_graph(text: str) -> ReportGraph:
    """Graph of a report: the union of its sentences' graphs."""
    graphs = [sentence_graph(sentence) for sentence in dict.fromkeys(sentences_of(text))]
    return ReportGraph(
        frozenset().union(*(g.entities for g in graphs)),
        frozenset().union(*(g.meanings for g in graphs)),
        frozenset().union(*(g.relations for g in graphs)),
        _merge_chances([item for g in graphs for item in g.chances.items()]),
        _merge_typed([item for g in graphs for item in g.typed.items()]),
        frozenset().union(*(g.sentences for g in graphs)),
    )


def graph_scores(hypothesis: ReportGraph, reference: ReportGraph) -> GraphScores:
    """F1 levels of a pair; RG = (entity F1 + relation F1) / 2; 0 wherever a side is empty (method.md section 4)."""
    marked, linked = _expected_f1(hypothesis, reference)
    entity = set_f1(hypothesis.meanings, reference.meanings)
    relation = set_f1(hypothesis.relations, reference.relations)
    return GraphScores(marked, linked, weighted_f1(hypothesis.typed, reference.typed), (entity + relation) / 2)


def set_f1(a: frozenset, b: frozenset) -> float:
    """2|a∩b| / (|a|+|b|); 0 where either is empty."""
    return 2 * len(a & b) / (len(a) + len(b)) if a and b else 0.0


def weighted_f1(a: dict, b: dict) -> float:
    """F1 of two weighted sets: a shared item counts with its smaller weight."""
    total = sum(a.values()) + sum(b.values())
    return 2 * sum(min(a[item], b[item]) for item in a.keys() & b.keys()) / total if total else 0.0


def entity_of(sentence: Sentence, i: int) -> Entity:
    """(tokens, label) of the entity word at index ``i``."""
    anatomy = sentence.kinds[i] in (ANATOMY, LOCATION)
    return sentence.words[i], "ANAT-DP" if anatomy else LABEL_OF_ASSERTION[sentence.assertions[i]]


def _graph(read: Sentence, sentence: str) -> ReportGraph:
    entities = {i: entity_of(read, i) for i, kind in enumerate(read.kinds) if kind}
    get = graph_lexicon().meaning.get
    meanings = {i: (get(word, word), label) for i, (word, label) in entities.items()}
    relations = relations_of(read)
    heads = frozenset(head for head, _, _ in relations)
    chances = expectations(read, heads)
    typed = [((*entities[h], kind, entities[t][0]), chances[h][0]) for h, t, kind in relations]
    typed += [(entity, chances[i][0]) for i, entity in entities.items() if i not in heads]
    return ReportGraph(
        frozenset(entities.values()),
        frozenset(meanings.values()),
        _clinical_relations(sentence, meanings, relations),
        _merge_chances([(entities[i], chance) for i, chance in chances.items()]),
        _merge_typed(typed),
        frozenset([sentence]),
    )


def _clinical_relations(
    sentence: str, meanings: dict[int, Entity], relations: list[Relation]
) -> frozenset[tuple[Entity, Entity, str]]:
    """Relations between meanings: of a claim's words to its finding, however it is phrased; else by the phrase."""
    found = set()
    claimed: set[int] = set()
    for claim in sentence_claims(sentence):
        finding = (claim.finding, LABEL_OF_ASSERTION[claim.assertion])
        found.update((meanings[i], finding, "modify") for i in claim.attributes if i in meanings)
        if claim.attributes:
            claimed.update(claim.attributes, claim.mention)
    found.update((meanings[h], meanings[t], kind) for h, t, kind in relations if h not in claimed)
    return frozenset(found)


def _merge_chances(items: list[tuple[Entity, Chances]]) -> dict[Entity, Chances]:
    """An entity named twice is marked unless it is missed twice; its relation is the average of both."""
    merged: dict[Entity, Chances] = {}
    for entity, (marked, related) in items:
        if entity in merged:
            before, tied = merged[entity]
            tied = (before * tied + marked * related) / (before + marked)
            merged[entity] = (1 - (1 - before) * (1 - marked), tied)
        else:
            merged[entity] = (marked, related)
    return merged


def _merge_typed(items: list[tuple[tuple[str, ...], float]]) -> dict[tuple[str, ...], float]:
    merged: dict[tuple[str, ...], float] = {}
    for item, chance in items:
        merged[item] = max(chance, merged.get(item, 0.0))
    return merged


def _expected_f1(a: ReportGraph, b: ReportGraph) -> tuple[float, float]:
    """Expected F1 over entities, and over entities with whether they have a relation."""
    total = sum(p for p, _ in a.chances.values()) + sum(p for p, _ in b.chances.values())
    if not a.chances or not b.chances:
        return 0.0, 0.0
    table, common = salience(), a.sentences & b.sentences
    identical = a.sentences == b.sentences
    repeated: set[Entity] = set()
    for sentence in common:
        repeated.update(sentence_graph(sentence).entities)
    marked = linked = 0.0
    for entity in a.chances.keys() & b.chances.keys():
        share = 1.0 if identical else table.same_sentence if entity in repeated else table.other_sentence
        (p, r), (q, s) = a.chances[entity], b.chances[entity]
        both = _agree(p, q, share)
        marked += both
        linked += both * (_agree(r, s, share) + _agree(1 - r, 1 - s, share))
    return 2 * marked / total, 2 * linked / total


def _agree(p: float, q: float, share: float) -> float:
    """Chance that both of two events happen, between independent (``share`` 0) and nested (1)."""
    return share * min(p, q) + (1 - share) * p * q
