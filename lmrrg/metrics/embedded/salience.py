"""Compute how likely RadGraph's model marks a word as an entity, and gives it a relation (ours).

A learned tagger does not mark every word that a lexicon knows: it is sure of "effusion", less so
of "degenerative" in a sentence about the spine. Two small logistic models over a word's class,
assertion and surroundings estimate both probabilities. Their weights are a table in
``lexicons/salience.yaml``, fitted by ``benchmarks/embedded_fit.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from lmrrg.metrics.embedded.lexicon import WORD_CLASSES, graph_lexicon, read_yaml
from lmrrg.metrics.embedded.sentences import Sentence

_EDGE = "^"
"""Stands for the start and the end of a sentence."""
_CODE_OF_CLASS = {word_class: word_class[0].upper() for word_class in WORD_CLASSES}
"""The capital that stands for a word class in the names of features."""
_CODES = frozenset([_EDGE, *_CODE_OF_CLASS.values()])
_SHORTEST_PLURAL = 3
"""Words of so many letters keep their "s"."""
_CONTEXT_CACHE = 8192
"""Contexts whose chances are kept; a few thousand occur in most reports."""


def _codes_of_assertions(word_class: str) -> list[str]:
    return [f"{_CODE_OF_CLASS[word_class]}{assertion}" for assertion in range(3)]


_CODES_OF_CLASS = {word_class: _codes_of_assertions(word_class) for word_class in WORD_CLASSES}
"""Class of an entity word -> its code with each assertion: "O0" is an asserted observation."""


@dataclass(frozen=True)
class Salience:
    """The fitted tables: feature -> weight, for being an entity and for having a relation."""

    entity: dict[str, float]
    relation: dict[str, float]
    same_sentence: float
    """How far the tagger decides alike on two copies of one sentence; 1 always, 0 independently."""
    other_sentence: float
    """The same for one word in two different sentences."""


WordContext = tuple[str, str, str, bool, str, str]
"""What the two models see of an entity word: the arguments of :func:`feature_names`.

A plain tuple, because one is made for every entity word of a report.
"""


@cache
def salience() -> Salience:
    """Return the fitted tables that come with the package."""
    return Salience(**read_yaml("salience.yaml"))


def features(sentence: Sentence, linked: frozenset[int]) -> list[tuple[int, list[str]]]:
    """Return (index, names of its features) of every entity word.

    Args:
        sentence: the sentence, read.
        linked: indices of the words at which a relation starts.
    """
    return [(i, feature_names(*context)) for i, context in _contexts(sentence, linked)]


def feature_names(
    word: str, own: str, topic: str, is_linked: bool, before: str, after: str
) -> list[str]:
    """Return the names of the features of one word in its context.

    Args:
        word: the word itself.
        own: code of its class and assertion.
        topic: topic of its sentence: "s" bones, "c" the inside of the chest, "x" neither.
        is_linked: whether a relation starts at the word.
        before: the code of the class of the entity word before, an edge, or any other word itself.
        after: the same of the word after.

    The first letter tells what a feature looks at: "w" the word, "m" its meaning in the singular,
    "d" the word with its class and assertion, "k" its class and assertion alone, "t" the topic, "r"
    whether it is linked, "p" and "n" the class of the previous and the next word ("-": no entity
    word), "b" and "a" the word itself before and after, where it is no entity.

    >>> feature_names("effusion", "O1", "c", False, "no", "^")[:5]
    ['w effusion', 'm effusion', 'd effusion O1', 'k O1', 't cO1']
    >>> feature_names("effusion", "O1", "c", False, "no", "^")[5:]
    ['r O10', 'p O1-', 'b no O1', 'n O1^']
    """
    return _names_of_word(word, own) + _names_of_surroundings(own, topic, is_linked, before, after)


def _names_of_word(word: str, own: str) -> list[str]:
    return [f"w {word}", f"m {_singular_meaning(word)}", f"d {word} {own}", f"k {own}"]


def _names_of_surroundings(
    own: str, topic: str, is_linked: bool, before: str, after: str
) -> list[str]:
    return (
        _names_of_role(own, topic, is_linked)
        + _names_before(own, before)
        + _names_after(own, after)
    )


def _names_of_role(own: str, topic: str, is_linked: bool) -> list[str]:
    return [f"t {topic}{own}", f"r {own}{int(is_linked)}"]


def _names_before(own: str, before: str) -> list[str]:
    return [f"p {own}{before}"] if before in _CODES else [f"p {own}-", f"b {before} {own}"]


def _names_after(own: str, after: str) -> list[str]:
    return [f"n {own}{after}"] if after in _CODES else [f"n {own}-", f"a {own} {after}"]


def _singular_meaning(word: str) -> str:
    """Return one word for all words of one meaning, in the singular as far as an "s" tells."""
    meaning = graph_lexicon().meaning.get(word, word)
    return meaning[:-1] if meaning.endswith("s") and len(meaning) > _SHORTEST_PLURAL else meaning


def expectations(sentence: Sentence, linked: frozenset[int]) -> list[tuple[float, float]]:
    """Return (chance to be marked, chance of a relation if marked) of every entity word in turn.

    Args:
        sentence: the sentence, read.
        linked: indices of the words at which a relation starts.
    """
    return [_chances(context) for _, context in _contexts(sentence, linked)]


@lru_cache(maxsize=_CONTEXT_CACHE)
def _chances(context: WordContext) -> tuple[float, float]:
    """Return the two probabilities of a word in its context; contexts repeat, so a cache pays."""
    word, own, topic, is_linked, before, after = context
    # What looks at one or two of the six repeats even more.
    around = _sum_of_weights(
        _known_weights(_names_of_role, own, topic, is_linked)
        + _known_weights(_names_before, own, before)
        + _known_weights(_names_after, own, after)
    )
    of_word = _logits_of_word(word, own)
    marked = of_word[0] + around[0]
    related = of_word[1] + around[1]
    return 1 / (1 + math.exp(-marked)), 1 / (1 + math.exp(-related))


@lru_cache(maxsize=_CONTEXT_CACHE)
def _logits_of_word(word: str, own: str) -> tuple[float, float]:
    """Return both models' sums over what looks at the word alone, with their biases."""
    marked, related = _weights()["bias"]
    word_marked, word_related = _sum_of_weights(_known_weights(_names_of_word, word, own))
    return marked + word_marked, related + word_related


@lru_cache(maxsize=_CONTEXT_CACHE)
def _known_weights(names: Callable[..., list[str]], *seen: Any) -> list[tuple[float, float]]:
    """Return both models' weights of the features that they have; a rare word has few."""
    weights = _weights()
    return [weights[name] for name in names(*seen) if name in weights]


def _sum_of_weights(weights: list[tuple[float, float]]) -> tuple[float, float]:
    marked = related = 0.0
    for weight in weights:
        marked += weight[0]
        related += weight[1]
    return marked, related


@cache
def _weights() -> dict[str, tuple[float, float]]:
    """Return feature -> its weight in each of the two models."""
    entity = salience().entity
    relation = salience().relation
    return {name: (entity.get(name, 0.0), relation.get(name, 0.0)) for name in entity | relation}


def _contexts(sentence: Sentence, linked: frozenset[int]) -> list[tuple[int, WordContext]]:
    """Return (index, context) of every entity word."""
    words, kinds, assertions = sentence
    around = list(map(_CODE_OF_CLASS.get, kinds, words))
    # One edge serves both ends: the word before the first has the index -1.
    around.append(_EDGE)
    topic = _topic(sentence)
    contexts: list[tuple[int, WordContext]] = []
    for i, kind in enumerate(kinds):
        if kind:
            own = _CODES_OF_CLASS[kind][assertions[i]]
            context = (words[i], own, topic, i in linked, around[i - 1], around[i + 1])
            contexts.append((i, context))
    return contexts


def _topic(sentence: Sentence) -> str:
    """Return the topic of a sentence: "s" bones, "c" the inside of the chest, "x" neither."""
    lexicon = graph_lexicon()
    if not lexicon.skeletal.isdisjoint(sentence.words):
        return "s"
    return "x" if lexicon.thoracic.isdisjoint(sentence.words) else "c"
