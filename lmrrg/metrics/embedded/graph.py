"""Build a report's graph in the RadGraph schema by rules, and compare two graphs by F1.

Ours: no model. Entities are single words with one of ANAT-DP, OBS-DP, OBS-U, OBS-DA; relations are
modify, located_at and suggestive_of. RadCliQ's RG compares the graphs as sets of meanings
("cardiac" is "heart"). The reward levels rg_e and rg_er of the ``radgraph`` package are *expected*
F1 scores here: an entity counts with the chance that RadGraph's model marks it
(:mod:`lmrrg.metrics.embedded.salience`).
"""

from __future__ import annotations

from collections.abc import Set
from functools import lru_cache
from typing import Any, NamedTuple

from lmrrg.metrics.embedded.batch_cache import CACHED_SENTENCES
from lmrrg.metrics.embedded.claims import Claim, sentence_claims
from lmrrg.metrics.embedded.lexicon import ANATOMY, LOCATION, graph_lexicon
from lmrrg.metrics.embedded.relations import Relation, relations_of
from lmrrg.metrics.embedded.salience import expectations, salience
from lmrrg.metrics.embedded.sentences import Sentence, read_sentence, sentences_of
from lmrrg.metrics.parts import set_f1

LABEL_OF_ASSERTION = ("OBS-DP", "OBS-DA", "OBS-U")
"""RadGraph's label of an observation, by the assertion of its word."""
_ANATOMY_LABEL = "ANAT-DP"
_PLACED = (ANATOMY, LOCATION)

Entity = tuple[str, str]
"""(tokens, label)"""
Chances = tuple[float, float]
"""(chance that an entity is marked, chance that it then has a relation)"""
MeaningRelation = tuple[Entity, Entity, str]
"""(head, tail, type), with meanings as head and tail"""


class SentenceGraph(NamedTuple):
    """Entities and relations of one sentence.

    A union with a set is twice as fast as one with a tuple: the hashes of its items are known.
    """

    entities: tuple[tuple[Entity, Chances], ...]
    """The entities as they stand in the text, with their chances."""
    meanings: frozenset[Entity]
    """The same entities with one word for all words of one meaning: what RG compares."""
    relations: frozenset[MeaningRelation]
    typed: frozenset[tuple[str, ...]]
    """(tokens, label, relation, target tokens), or (tokens, label) without a relation"""


class ReportGraph(NamedTuple):
    """The union of a report's sentence graphs."""

    chances: dict[Entity, Chances]
    meanings: set[Entity]
    relations: set[MeaningRelation]
    typed: set[tuple[str, ...]]
    sentences: frozenset[str]
    """The lower-case sentences that the graph was read from."""
    size: float
    """Expected number of entities."""

    @property
    def entities(self) -> frozenset[Entity]:
        """Return (tokens, label) of every entity, as the words stand in the text."""
        return frozenset(self.chances)


class GraphScores(NamedTuple):
    """F1 of one pair at every level of the ``radgraph`` package, and RadCliQ's RG."""

    rg_e: float
    rg_er: float
    rg_bar_er: float
    radgraph: float


@lru_cache(maxsize=CACHED_SENTENCES)
def sentence_graph(sentence: str) -> SentenceGraph:
    """Return the graph of one lower-case sentence.

    >>> sentence_graph("no effusion").typed
    frozenset({('effusion', 'OBS-DA')})
    """
    read = read_sentence(sentence)
    entities = entities_of(read)
    meanings = _meanings(entities)
    relations = relations_of(read)
    heads = frozenset([head for head, _, _ in relations])
    typed: list[tuple[str, ...]] = [entity for i, entity in entities.items() if i not in heads]
    typed += [(*entities[h], kind, entities[t][0]) for h, t, kind in relations]
    return SentenceGraph(
        tuple(zip(entities.values(), expectations(read, heads), strict=True)),
        frozenset(meanings.values()),
        frozenset(_meaning_relations(sentence_claims(sentence), meanings, relations)),
        frozenset(typed),
    )


def build_graph(text: str) -> ReportGraph:
    """Return the graph of a report: the union of its sentences' graphs.

    >>> graph = build_graph("The heart is enlarged. No effusion.")
    >>> sorted(graph.entities)
    [('effusion', 'OBS-DA'), ('enlarged', 'OBS-DP'), ('heart', 'ANAT-DP')]
    >>> ("enlarged", "OBS-DP", "located_at", "heart") in graph.typed
    True
    """
    return join_graphs(sentences_of(text))


def join_graphs(sentences: list[str], restated: Set[str] = frozenset()) -> ReportGraph:
    """Return the graph of a report that is already split into its lower-case sentences.

    The ``restated`` ones say or contradict what others say; they add nothing to what RG compares.
    """
    chances: dict[Entity, Chances] = {}
    meanings: set[Entity] = set()
    relations: set[MeaningRelation] = set()
    typed: set[tuple[str, ...]] = set()
    for sentence in dict.fromkeys(sentences):
        graph = sentence_graph(sentence)
        if sentence not in restated:
            meanings.update(graph.meanings)
            relations.update(graph.relations)
        typed.update(graph.typed)
        for entity, chance in graph.entities:
            if entity in chances:
                chances[entity] = _joined_chances(chances[entity], chance)
            else:
                chances[entity] = chance
    size = sum([marked for marked, _ in chances.values()])
    return ReportGraph(chances, meanings, relations, typed, frozenset(sentences), size)


def graph_scores(hypothesis: ReportGraph, reference: ReportGraph) -> GraphScores:
    """Return the F1 levels of a pair; RG = (entity F1 + relation F1) / 2.

    Every F1 is 0 where a side is empty, as in RadCliQ: two equal reports without any relation
    have an RG of 0.5.

    >>> graph = build_graph("small effusion")
    >>> graph_scores(graph, graph)
    GraphScores(rg_e=1.0, rg_er=1.0, rg_bar_er=1.0, radgraph=1.0)
    >>> graph_scores(graph, build_graph("no effusion")).radgraph
    0.0
    """
    marked, linked = _expected_f1(hypothesis, reference)
    entity = set_f1(hypothesis.meanings, reference.meanings)
    relation = set_f1(hypothesis.relations, reference.relations)
    typed = set_f1(hypothesis.typed, reference.typed)
    return GraphScores(marked, linked, typed, (entity + relation) / 2)


def weighted_f1(a: dict[Any, float], b: dict[Any, float]) -> float:
    """Return the F1 of two weighted sets, in which a common item counts with its smaller weight.

    >>> weighted_f1({"effusion": 1.0, "small": 0.5}, {"effusion": 0.5})
    0.5
    """
    total = sum(a.values()) + sum(b.values())
    if not total:
        return 0.0
    return 2 * sum([min(weight, b[item]) for item, weight in a.items() if item in b]) / total


def entities_of(sentence: Sentence) -> dict[int, Entity]:
    """Return index -> (tokens, label) of every entity word.

    >>> entities_of(read_sentence("the heart may be enlarged"))
    {1: ('heart', 'ANAT-DP'), 4: ('enlarged', 'OBS-U')}
    """
    words, kinds, assertions = sentence
    entities: dict[int, Entity] = {}
    for i, kind in enumerate(kinds):
        if kind:
            # RadGraph asserts anatomy always: only observations are denied or doubted.
            label = _ANATOMY_LABEL if kind in _PLACED else LABEL_OF_ASSERTION[assertions[i]]
            entities[i] = (words[i], label)
    return entities


def _meanings(entities: dict[int, Entity]) -> dict[int, Entity]:
    """Return every entity with the word that stands for its meaning; itself without a synonym."""
    meaning = graph_lexicon().meaning
    return {i: (meaning[e[0]], e[1]) if e[0] in meaning else e for i, e in entities.items()}


def _meaning_relations(
    claims: tuple[Claim, ...], meanings: dict[int, Entity], relations: list[Relation]
) -> set[MeaningRelation]:
    """Return the relations of a sentence between meanings.

    The attributes of a claim modify its finding, however the sentence is built: "small left
    effusion" and "the effusion on the left is small" have the same relations. Other words keep the
    relations of their phrase.
    """
    found: set[MeaningRelation] = set()
    claimed: set[int] = set()
    for claim in claims:
        if claim.attributes:
            finding = (claim.finding, LABEL_OF_ASSERTION[claim.assertion])
            found.update(
                [(meanings[i], finding, "modify") for i in claim.attributes if i in meanings]
            )
            claimed.update(claim.attributes, claim.mention)
    found.update([(meanings[h], meanings[t], kind) for h, t, kind in relations if h not in claimed])
    return found


def _joined_chances(a: Chances, b: Chances) -> Chances:
    """Return the chances of an entity that a report names twice.

    It is marked unless it is missed twice; its relation is the average of both, weighted by how
    likely each is marked.
    """
    marked_a, related_a = a
    marked_b, related_b = b
    marked = 1 - (1 - marked_a) * (1 - marked_b)
    return marked, (marked_a * related_a + marked_b * related_b) / (marked_a + marked_b)


def _expected_f1(a: ReportGraph, b: ReportGraph) -> tuple[float, float]:
    """Return the expected F1 over entities, and over entities with whether they have a relation."""
    if not a.chances or not b.chances:
        return 0.0, 0.0
    if a.sentences == b.sentences:
        # One text tagged twice: the tagger decides the same both times.
        return 1.0, 1.0
    table = salience()
    repeated = _entities_of_common_sentences(a, b)
    marked = 0.0
    linked = 0.0
    for entity, (marked_a, related_a) in a.chances.items():
        if entity not in b.chances:
            continue
        marked_b, related_b = b.chances[entity]
        dependence = table.same_sentence if entity in repeated else table.other_sentence
        both = _both(marked_a, marked_b, dependence)
        both_related = _both(related_a, related_b, dependence)
        none_related = _both(1 - related_a, 1 - related_b, dependence)
        marked += both
        linked += both * (both_related + none_related)
    total = a.size + b.size
    return 2 * marked / total, 2 * linked / total


def _entities_of_common_sentences(a: ReportGraph, b: ReportGraph) -> set[Entity]:
    """Return the entities that stand in a sentence which both reports have."""
    entities: set[Entity] = set()
    for sentence in a.sentences & b.sentences:
        entities.update([entity for entity, _ in sentence_graph(sentence).entities])
    return entities


def _both(p: float, q: float, dependence: float) -> float:
    """Return the chance that two events of chances p and q both happen.

    ``dependence`` is 0 for independent events and 1 where the likelier one contains the other.
    """
    return dependence * min(p, q) + (1 - dependence) * p * q
