"""A report as a graph in the RadGraph schema, built by rules, and the F1 scores between two graphs.

Ours: no model. Entities are single words (or a fixed phrase) with one of ANAT-DP, OBS-DP, OBS-U, OBS-DA; relations
are modify, located_at and suggestive_of. Scores follow the ``radgraph`` package's reward levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from lmrrg.metrics.lexicon import ANATOMY, LOCATION
from lmrrg.metrics.report_graph_relations import Relation, relations_of
from lmrrg.metrics.report_graph_scope import Sentence, read_sentence, sentences_of

LABEL_OF_ASSERTION = ("OBS-DP", "OBS-DA", "OBS-U")
Entity = tuple[str, str]


@dataclass(frozen=True, slots=True)
class ReportGraph:
    """Sets of a report: what the F1 levels compare."""

    entities: frozenset[Entity]
    """(tokens, label)"""
    linked: frozenset[tuple[str, str, bool]]
    """(tokens, label, whether it has a relation)"""
    typed: frozenset[tuple[str, ...]]
    """(tokens, label, relation, target tokens), or (tokens, label) without a relation"""
    relations: frozenset[tuple[Entity, Entity, str]]
    """(head, tail, type)"""


@dataclass(frozen=True, slots=True)
class GraphScores:
    """F1 of one pair at every level of the ``radgraph`` package, and RadCliQ's RG."""

    rg_e: float
    rg_er: float
    rg_bar_er: float
    radgraph: float


EMPTY = ReportGraph(frozenset(), frozenset(), frozenset(), frozenset())


@lru_cache(maxsize=65536)
def analyse_sentence(sentence: str) -> tuple[Sentence, ReportGraph]:
    """Words and graph of one lower-case sentence; reports repeat sentences, so they are remembered."""
    read = read_sentence(sentence)
    return read, _graph(read)


def build_graph(text: str) -> ReportGraph:
    """Graph of a report: the union of its sentences' graphs."""
    graphs = [analyse_sentence(sentence)[1] for sentence in sentences_of(text)]
    return ReportGraph(
        frozenset().union(*(g.entities for g in graphs)),
        frozenset().union(*(g.linked for g in graphs)),
        frozenset().union(*(g.typed for g in graphs)),
        frozenset().union(*(g.relations for g in graphs)),
    )


def graph_scores(hypothesis: ReportGraph, reference: ReportGraph) -> GraphScores:
    """F1 levels of a pair; RG = (entity F1 + relation F1) / 2; 0 wherever a side is empty (method.md section 4)."""
    entity = set_f1(hypothesis.entities, reference.entities)
    relation = set_f1(hypothesis.relations, reference.relations)
    return GraphScores(
        entity,
        set_f1(hypothesis.linked, reference.linked),
        set_f1(hypothesis.typed, reference.typed),
        (entity + relation) / 2,
    )


def set_f1(a: frozenset, b: frozenset) -> float:
    """2|a∩b| / (|a|+|b|); 0 where either is empty."""
    return 2 * len(a & b) / (len(a) + len(b)) if a and b else 0.0


def _graph(sentence: Sentence) -> ReportGraph:
    entities: dict[int, Entity] = {}
    for i, kind in enumerate(sentence.kinds):
        if kind in (ANATOMY, LOCATION):
            entities[i] = (sentence.words[i], "ANAT-DP")
        elif kind:
            entities[i] = (sentence.words[i], LABEL_OF_ASSERTION[sentence.assertions[i]])
    if not entities:
        return EMPTY
    relations: list[Relation] = relations_of(sentence)
    heads = {head for head, _, _ in relations}
    typed = [(*entities[h], kind, entities[t][0]) for h, t, kind in relations]
    return ReportGraph(
        frozenset(entities.values()),
        frozenset((*entity, i in heads) for i, entity in entities.items()),
        frozenset(typed) | frozenset(entity for i, entity in entities.items() if i not in heads),
        frozenset((entities[h], entities[t], kind) for h, t, kind in relations),
    )
