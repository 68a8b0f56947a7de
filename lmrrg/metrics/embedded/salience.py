"""How likely RadGraph's model marks a word as an entity, and gives it a relation (ours; a fitted logistic model).

A learned tagger does not mark every word that a lexicon knows: it is sure of "effusion", less so of "degenerative" in a
sentence about the spine. Two small logistic models over a word's class, assertion and surroundings say how sure; their
weights are a table in ``lexicons/salience.yaml``, fitted by ``benchmarks/embedded_fit.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from lmrrg.metrics.embedded.lexicon import WORD_CLASSES, graph_lexicon, read_yaml
from lmrrg.metrics.embedded.sentences import Sentence

_EDGE = "^"
_CODE = {word_class: word_class[0].upper() for word_class in WORD_CLASSES}
_CODES = frozenset([_EDGE, *_CODE.values()])
_OWN = {
    word_class: [f"{code}{assertion}" for assertion in range(3)]
    for word_class, code in _CODE.items()
}
"""Class of an entity word -> what stands for it with each assertion."""


@dataclass(frozen=True)
class Salience:
    """The fitted tables: feature -> weight, for being an entity and for having a relation."""

    entity: dict[str, float]
    relation: dict[str, float]
    same_sentence: float
    """How far two copies of one sentence share the tagger's decisions (1: wholly, 0: they are independent)."""
    other_sentence: float
    """The same for one word in two different sentences."""


@cache
def salience() -> Salience:
    """The fitted tables that come with the package."""
    return Salience(**read_yaml("salience.yaml"))


def features(sentence: Sentence, linked: frozenset[int]) -> list[tuple[int, list[str]]]:
    """(index, names of its features) of every entity word; ``linked`` are the words with a relation."""
    return [(i, feature_names(*context)) for i, context in _contexts(sentence, linked)]


def feature_names(
    word: str, own: str, topic: str, linked: bool, before: str, after: str
) -> list[str]:
    """Names of the features of one word in its surroundings.

    ``own`` is its class and assertion; ``before`` and ``after`` are the class of an entity word, an edge, or any other
    word itself.
    """
    names = [f"w {word}", f"k {own}", f"t {topic}{own}", f"r {own}{int(linked)}"]
    if before in _CODES:
        names.append(f"p {own}{before}")
    else:
        names += [f"p {own}-", f"b {before} {own}"]
    if after in _CODES:
        names.append(f"n {own}{after}")
    else:
        names += [f"n {own}-", f"a {own} {after}"]
    return names


def expectations(
    sentence: Sentence, linked: frozenset[int]
) -> list[tuple[int, tuple[float, float]]]:
    """(index, (chance to be marked, chance to have a relation where marked)) of every entity word."""
    return [(i, _chances(*context)) for i, context in _contexts(sentence, linked)]


@lru_cache(maxsize=8192)
def _chances(*context: Any) -> tuple[float, float]:
    """The two chances of a word in its surroundings; surroundings repeat, so they are remembered."""
    weights = _weights()
    marked, related = weights["bias"]
    for name in feature_names(*context):
        if weight := weights.get(name):
            marked += weight[0]
            related += weight[1]
    return 1 / (1 + math.exp(-marked)), 1 / (1 + math.exp(-related))


@cache
def _weights() -> dict[str, tuple[float, float]]:
    """Feature -> its weight in each of the two models."""
    entity, relation = salience().entity, salience().relation
    return {name: (entity.get(name, 0.0), relation.get(name, 0.0)) for name in entity | relation}


def _contexts(sentence: Sentence, linked: frozenset[int]) -> list[tuple[int, tuple[Any, ...]]]:
    """(index, arguments of :func:`feature_names`) of every entity word."""
    words, kinds, assertions = sentence
    around = [_CODE[kind] if kind else word for word, kind in zip(words, kinds, strict=True)]
    around.append(_EDGE)  # [-1] is the edge on both sides
    topic = _topic(sentence)
    return [
        (i, (words[i], _OWN[kind][assertions[i]], topic, i in linked, around[i - 1], around[i + 1]))
        for i, kind in enumerate(kinds)
        if kind
    ]


def _topic(sentence: Sentence) -> str:
    """ "s" for a sentence about bones, "c" about the chest's inside, "x" about neither."""
    lexicon = graph_lexicon()
    if not lexicon.skeletal.isdisjoint(sentence.words):
        return "s"
    return "x" if lexicon.thoracic.isdisjoint(sentence.words) else "c"
