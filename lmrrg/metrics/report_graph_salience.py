"""How likely RadGraph's model marks a word as an entity, and gives it a relation (ours; a fitted logistic model).

A learned tagger does not mark every word that a lexicon knows: it is sure of "effusion", less so of "degenerative" in a
sentence about the spine. Two small logistic models over a word's class, assertion and surroundings say how sure; their
weights are a table in ``lexicon_salience.yaml``, fitted by ``benchmarks/embedded_fit.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

from lmrrg.metrics.lexicon import graph_lexicon, read_yaml
from lmrrg.metrics.report_graph_scope import Sentence

_EDGE, _OTHER = "^", "-"


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
    return Salience(**read_yaml("lexicon_salience.yaml"))


def features(sentence: Sentence, linked: frozenset[int]) -> list[tuple[int, list[str]]]:
    """(index, names of its features) of every entity word; ``linked`` are the words with a relation."""
    words, kinds = sentence.words, sentence.kinds
    code = [kind[0] if kind else _OTHER for kind in kinds]
    topic = _topic(sentence)
    last = len(words) - 1
    out = []
    for i, word in enumerate(words):
        if not kinds[i]:
            continue
        own = code[i] + str(sentence.assertions[i])
        before = code[i - 1] if i else _EDGE
        after = code[i + 1] if i < last else _EDGE
        names = [f"w {word}", f"k {own}", f"p {own}{before}", f"n {own}{after}", f"t {topic}{own}"]
        names.append(f"r {own}{int(i in linked)}")
        if before == _OTHER:
            names.append(f"b {words[i - 1]} {own}")
        if after == _OTHER:
            names.append(f"a {own} {words[i + 1]}")
        out.append((i, names))
    return out


def expectations(sentence: Sentence, linked: frozenset[int]) -> dict[int, tuple[float, float]]:
    """Index of each entity word -> (chance to be marked, chance to have a relation where marked)."""
    table = salience()
    entity, relation = table.entity, table.relation
    out = {}
    for i, names in features(sentence, linked):
        marked, related = entity["bias"], relation["bias"]
        for name in names:
            marked += entity.get(name, 0.0)
            related += relation.get(name, 0.0)
        out[i] = (1 / (1 + math.exp(-marked)), 1 / (1 + math.exp(-related)))
    return out


def _topic(sentence: Sentence) -> str:
    """ "s" for a sentence about bones, "c" about the chest's inside, "x" about neither."""
    lexicon = graph_lexicon()
    if not lexicon.skeletal.isdisjoint(sentence.words):
        return "s"
    return "x" if lexicon.thoracic.isdisjoint(sentence.words) else "c"
