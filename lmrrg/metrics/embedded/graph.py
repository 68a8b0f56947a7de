"""A report as a graph in the RadGraph schema, built by rules, and the F1 scores between two graphs.

Ours: no model. Entities are single words with one of ANAT-DP, OBS-DP, OBS-U, OBS-DA; relations are modify, located_at
and suggestive_of. RadCliQ's RG compares the graphs as sets of meanings ("cardiac" is "heart"). The reward
levels rg_e and rg_er of the ``radgraph`` package are *expected* F1 scores: an entity counts with the chance that
RadGraph's model marks it (:mod:`report_graph_salience`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from lmrrg.metrics.embedded.claims import sentence_claims
from lmrrg.metrics.embedded.lexicon import ANATOMY, LOCATION, graph_lexicon
from lmrrg.metrics.embedded.relations import Relation, relations_of
from lmrrg.metrics.embedded.salience import expectations, salience
from lmrrg.metrics.embedded.sentences import (
    REMEMBERED_SENTENCES,
    Sentence,
    read_sentence,
    sentences_of,
)
from lmrrg.metrics.parts import set_f1

LABEL_OF_ASSERTION = ("OBS-DP", "OBS-DA", "OBS-U")
_ANATOMY_LABEL, _PLACES = "ANAT-DP", (ANATOMY, LOCATION)
Entity = tuple[str, str]
"""(tokens, label)"""
Chances = tuple[float, float]
"""(chance that an entity is marked, chance that it then has a relation)"""


class SentenceGraph(NamedTuple):
    """Entities and relations of one sentence; plain tuples, because thousands of them are kept."""

    entities: tuple[tuple[Entity, Chances], ...]
    """The entities as they stand in the text; chances are shared with all who have the same."""
    meanings: tuple[Entity, ...]
    """The same entities with one word for all words of one meaning: what RG compares."""
    relations: tuple[tuple[Entity, Entity, str], ...]
    """(head, tail, type) between meanings"""
    typed: tuple[tuple[str, ...], ...]
    """(tokens, label, relation, target tokens), or (tokens, label) without a relation"""


class ReportGraph(NamedTuple):
    """The union of a report's sentence graphs."""

    chances: dict[Entity, Chances]
    meanings: set[Entity]
    relations: set[tuple[Entity, Entity, str]]
    typed: set[tuple[str, ...]]
    sentences: frozenset[str]
    """The lower-case sentences that the graph was read from."""
    size: float
    """Expected number of entities."""

    @property
    def entities(self) -> frozenset[Entity]:
        """(tokens, label) of every entity, as the words stand in the text."""
        return frozenset(self.chances)


class GraphScores(NamedTuple):
    """F1 of one pair at every level of the ``radgraph`` package, and RadCliQ's RG."""

    rg_e: float
    rg_er: float
    rg_bar_er: float
    radgraph: float


@lru_cache(maxsize=REMEMBERED_SENTENCES)
def sentence_graph(sentence: str) -> SentenceGraph:
    """Graph of one lower-case sentence."""
    read = read_sentence(sentence)
    entities = entities_of(read)
    meanings = _meanings(entities)
    relations = relations_of(read)
    heads = frozenset([head for head, _, _ in relations])
    chances = expectations(read, heads)
    typed: list[tuple[str, ...]] = [entity for i, entity in entities.items() if i not in heads]
    typed += [(*entities[h], kind, entities[t][0]) for h, t, kind in relations]
    return SentenceGraph(
        tuple([(entities[i], chance) for i, chance in chances]),
        tuple(meanings.values()),
        tuple(_clinical_relations(sentence, meanings, relations)),
        tuple(typed),
    )


def build_graph(text: str) -> ReportGraph:
    """Graph of a report: the union of its sentences' graphs."""
    return join_graphs(sentences_of(text))


def join_graphs(sentences: list[str]) -> ReportGraph:
    """Graph of a report that is already split into its lower-case sentences."""
    chances: dict[Entity, Chances] = {}
    meanings: set[Entity] = set()
    relations: set[tuple[Entity, Entity, str]] = set()
    typed: set[tuple[str, ...]] = set()
    for graph in map(sentence_graph, dict.fromkeys(sentences)):
        meanings.update(graph.meanings)
        relations.update(graph.relations)
        typed.update(graph.typed)
        for entity, chance in graph.entities:
            known = chances.get(entity)
            chances[entity] = chance if known is None else _either(known, chance)
    size = sum([marked for marked, _ in chances.values()])
    return ReportGraph(chances, meanings, relations, typed, frozenset(sentences), size)


def graph_scores(hypothesis: ReportGraph, reference: ReportGraph) -> GraphScores:
    """F1 levels of a pair; RG = (entity F1 + relation F1) / 2; 0 wherever a side is empty (method.md section 4)."""
    marked, linked = _expected_f1(hypothesis, reference)
    entity = set_f1(hypothesis.meanings, reference.meanings)
    relation = set_f1(hypothesis.relations, reference.relations)
    return GraphScores(
        marked, linked, set_f1(hypothesis.typed, reference.typed), (entity + relation) / 2
    )


def weighted_f1(a: dict[Any, float], b: dict[Any, float]) -> float:
    """F1 of two weighted sets: a shared item counts with its smaller weight."""
    total = sum(a.values()) + sum(b.values())
    return (
        2 * sum([min(weight, b[item]) for item, weight in a.items() if item in b]) / total
        if total
        else 0.0
    )


def entities_of(sentence: Sentence) -> dict[int, Entity]:
    """(tokens, label) of every entity word, by its index."""
    words, kinds, assertions = sentence
    return {
        i: (words[i], _ANATOMY_LABEL if kind in _PLACES else LABEL_OF_ASSERTION[assertions[i]])
        for i, kind in enumerate(kinds)
        if kind
    }


def _meanings(entities: dict[int, Entity]) -> dict[int, Entity]:
    """Every entity with the word for all words of its meaning; an entity without a synonym is kept itself."""
    meaning = graph_lexicon().meaning
    return {i: (meaning[e[0]], e[1]) if e[0] in meaning else e for i, e in entities.items()}


def _clinical_relations(
    sentence: str, meanings: dict[int, Entity], relations: list[Relation]
) -> set[tuple[Entity, Entity, str]]:
    """Relations between meanings: of a claim's words to its finding, however it is phrased; else by the phrase."""
    found: set[tuple[Entity, Entity, str]] = set()
    claimed: set[int] = set()
    for claim in sentence_claims(sentence):
        if claim.attributes:
            finding = (claim.finding, LABEL_OF_ASSERTION[claim.assertion])
            found.update(
                [(meanings[i], finding, "modify") for i in claim.attributes if i in meanings]
            )
            claimed.update(claim.attributes, claim.mention)
    found.update([(meanings[h], meanings[t], kind) for h, t, kind in relations if h not in claimed])
    return found


def _either(a: Chances, b: Chances) -> Chances:
    """An entity named twice is marked unless it is missed twice; its relation is the average of both."""
    (p, r), (q, s) = a, b
    return 1 - (1 - p) * (1 - q), (p * r + q * s) / (p + q)


def _expected_f1(a: ReportGraph, b: ReportGraph) -> tuple[float, float]:
    """Expected F1 over entities, and over entities with whether they have a relation."""
    if not a.chances or not b.chances:
        return 0.0, 0.0
    if a.sentences == b.sentences:
        return 1.0, 1.0
    table, total = salience(), a.size + b.size
    repeated = {
        entity
        for sentence in a.sentences & b.sentences
        for entity, _ in sentence_graph(sentence).entities
    }
    marked = linked = 0.0
    for entity, (p, r) in a.chances.items():
        if entity not in b.chances:
            continue
        q, s = b.chances[entity]
        share = table.same_sentence if entity in repeated else table.other_sentence
        both = _agree(p, q, share)
        marked += both
        linked += both * (_agree(r, s, share) + _agree(1 - r, 1 - s, share))
    return 2 * marked / total, 2 * linked / total


def _agree(p: float, q: float, share: float) -> float:
    """Chance that both of two events happen, between independent (``share`` 0) and nested (1)."""
    return share * min(p, q) + (1 - share) * p * q
