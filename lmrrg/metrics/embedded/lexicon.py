"""The vocabulary of the embedded backend: word classes and cue phrases, read once from YAML (ours)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from lmrrg.errors import CodedError

ANATOMY, LOCATION, OBSERVATION, DEVICE, MODIFIER, STATE = (
    "anatomy",
    "location",
    "observation",
    "device",
    "modifier",
    "state",
)
WORD_CLASSES = (ANATOMY, LOCATION, OBSERVATION, DEVICE, MODIFIER, STATE)
Phrases = dict[str, list[tuple[tuple[str, ...], str]]]
"""First word -> [(all words, what the phrase means)], longest first."""

_FOLDER = Path(__file__).parent / "lexicons"


class LexiconError(CodedError):
    """A lexicon file that contradicts itself; ``code`` is stable."""


@dataclass(frozen=True)
class GraphLexicon:
    """Word classes and cues of the report graph."""

    kind: dict[str, str]
    """Word -> one of :data:`WORD_CLASSES`."""
    glued: dict[str, tuple[str, ...]]
    """A word that lost its hyphen or space -> its parts."""
    skeletal: frozenset[str]
    """Words that make a sentence one about bones."""
    thoracic: frozenset[str]
    """Words that make a sentence one about the inside of the chest."""
    meaning: dict[str, str]
    """Word -> the word that stands for all of its meaning; words without a synonym are absent."""
    suggest: frozenset[str]
    """Words between a finding and what it suggests."""
    dull: frozenset[str]
    """Words that tell nothing."""
    affirming: frozenset[str]
    """Words that open a new fact behind a denied one: "no pneumothorax, mild edema"."""
    cues: dict[tuple[str, ...], str]
    """Words of a cue -> its meaning: ``negation.before``, ``uncertainty.after``, ``neutral``, ``breaker``."""
    cue_lengths: dict[str, list[int]]
    """First word of a cue -> how many words the cues have that begin with it, longest first."""


def read_yaml(name: str) -> dict[str, Any]:
    """One of the lexicon files beside this module."""
    return yaml.safe_load((_FOLDER / name).read_text(encoding="utf-8"))


def phrase_table(phrases: list[tuple[str, str]]) -> Phrases:
    """Index (phrase, meaning) pairs by their first word, longest phrase first."""
    table: Phrases = {}
    for phrase, meaning in phrases:
        words = tuple(phrase.split())
        table.setdefault(words[0], []).append((words, meaning))
    for entries in table.values():
        entries.sort(key=lambda entry: -len(entry[0]))
    return table


@cache
def graph_lexicon() -> GraphLexicon:
    """The lexicon of the report graph.

    Raises:
        LexiconError: ``two_classes`` when a word is listed under two classes.
    """
    words = read_yaml("graph.yaml")
    kind: dict[str, str] = {}
    for word_class in WORD_CLASSES:
        for word in words[word_class].split():
            if kind.setdefault(word, word_class) != word_class:
                raise LexiconError(
                    "two_classes", f"{word!r} is listed as {kind[word]} and as {word_class}"
                )
    glued = {word: tuple(parts.split()) for word, parts in words["glued"].items()}
    skeletal, thoracic = (frozenset(words[topic].split()) for topic in ("skeletal", "thoracic"))
    meaning = {
        word: line.split()[0]
        for line in read_yaml("synonyms.yaml")["synonyms"]
        for word in line.split()
    }
    suggest, dull, affirming = (
        frozenset(words[name].split()) for name in ("suggest", "dull", "affirming")
    )
    data = read_yaml("cues.yaml")
    cues = {
        words: sense
        for phrase, sense in _cue_phrases(data)
        for words in _spelled_out(phrase, data["groups"])
    }
    lengths: dict[str, set[int]] = {}
    for cue in cues:
        lengths.setdefault(cue[0], set()).add(len(cue))
    longest_first = {word: sorted(found, reverse=True) for word, found in lengths.items()}
    return GraphLexicon(
        kind, glued, skeletal, thoracic, meaning, suggest, dull, affirming, cues, longest_first
    )


def _spelled_out(phrase: str, groups: dict[str, list[str]]) -> list[tuple[str, ...]]:
    """ "not SEEN" once for every entry of the group SEEN."""
    choices = [
        [tuple(entry.split()) for entry in groups.get(word, [word])] for word in phrase.split()
    ]
    return [sum(chosen, ()) for chosen in product(*choices)]


def _cue_phrases(cues: dict[str, Any]) -> list[tuple[str, str]]:
    found = [(phrase, "neutral") for phrase in cues["neutral"]]
    found += [(phrase, "breaker") for phrase in cues["breakers"]]
    for assertion in ("negation", "uncertainty"):
        for direction, phrases in cues[assertion].items():
            found += [(phrase, f"{assertion}.{direction}") for phrase in phrases]
    return found
