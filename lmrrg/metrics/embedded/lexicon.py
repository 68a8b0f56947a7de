"""Read the vocabulary of the embedded backend from its YAML files, once per process (ours).

The files lie in ``lexicons/``: ``graph.yaml`` (word classes), ``synonyms.yaml``, ``cues.yaml``
(negation and doubt), ``claims.yaml`` (findings and their attributes), ``labels.yaml`` (the 14
classes) and ``salience.yaml`` (fitted weights). Most changes of a rule are changes of these files.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from lmrrg.errors import CodedError

ANATOMY = "anatomy"
LOCATION = "location"
OBSERVATION = "observation"
DEVICE = "device"
MODIFIER = "modifier"
STATE = "state"
WORD_CLASSES = (ANATOMY, LOCATION, OBSERVATION, DEVICE, MODIFIER, STATE)
"""The classes of entity words; any other word has the class ""."""

Phrases = dict[str, list[tuple[tuple[str, ...], str]]]
"""First word -> [(all words, what the phrase means)], longest first."""

_SPELLINGS = [
    (re.compile(american), british)
    for american, british in (
        ("edema", "oedema"),
        ("esophag", "oesophag"),
        ("^(hem)(?=[ao])", "haem"),
        ("(?<=isch)em", "aem"),
        ("(?<=an)em(?=i[ac])", "aem"),
        ("tumor", "tumour"),
        ("artifact", "artefact"),
        ("favor", "favour"),
        ("(?<=cent)er(?=s?$|ed$)", "re"),
        ("(?<=[a-z]{3})iz(?=e|ing|ation)", "is"),
    )
]
"""American -> British spelling."""

_SHORTEST_CUT = 5
"""Letters of a word that are left at least when it is cut."""
_FOLDER = Path(__file__).parent / "lexicons"


class LexiconError(CodedError):
    """A lexicon file that contradicts itself; ``code`` is stable."""


@dataclass(frozen=True)
class GraphLexicon:
    """Word classes and cues of the report graph."""

    kind: dict[str, str]
    """Word -> one of :data:`WORD_CLASSES`."""
    glued: dict[str, tuple[str, ...]]
    """A word that stands for others -> these: without a hyphen, short or in British spelling."""
    skeletal: frozenset[str]
    """Words that make a sentence one about bones."""
    thoracic: frozenset[str]
    """Words that make a sentence one about the inside of the chest."""
    meaning: dict[str, str]
    """Word -> the word that stands for all of its meaning; words without a synonym are absent."""
    suggest: frozenset[str]
    """Words between a finding and what it suggests."""
    dull: frozenset[str]
    """Words that carry no information when reports are compared."""
    affirming: frozenset[str]
    """Words that open a new fact after a denied one: "no pneumothorax, mild edema"."""
    cues: dict[tuple[str, ...], str]
    """Words of a cue -> its meaning: ``negation.before``, ``uncertainty.after``, ``neutral``,
    ``breaker``; see :mod:`lmrrg.metrics.embedded.sentences`."""
    cue_lengths: dict[str, list[int]]
    """First word of a cue -> the lengths in words of the cues that begin with it, longest first."""
    cue_pairs: frozenset[tuple[str, str]]
    """First two words of every cue that has two."""


def read_yaml(name: str) -> dict[str, Any]:
    """Return the content of one of the lexicon files."""
    return yaml.safe_load((_FOLDER / name).read_text(encoding="utf-8"))


def phrase_table(phrases: Iterable[tuple[str, str]]) -> Phrases:
    """Index (phrase, meaning) pairs by their first word, longest phrase first.

    >>> phrase_table([("pleural effusion", "effusion"), ("pleural effusion sign", "")])
    {'pleural': [(('pleural', 'effusion', 'sign'), ''), (('pleural', 'effusion'), 'effusion')]}
    """
    table: Phrases = {}
    for phrase, meaning in phrases:
        words = tuple(phrase.split())
        table.setdefault(words[0], []).append((words, meaning))
    for entries in table.values():
        # The sort is stable: of two phrases of one length, the first listed stays first.
        entries.sort(key=lambda entry: -len(entry[0]))
    return table


@cache
def graph_lexicon() -> GraphLexicon:
    """Return the lexicon of the report graph.

    Raises:
        LexiconError: ``two_classes`` when a word is listed under two classes.
    """
    words = read_yaml("graph.yaml")
    kind = _word_classes(words)
    cues = _cues(read_yaml("cues.yaml"))
    return GraphLexicon(
        kind=kind,
        glued=_cut(words["cut"].split(), {*kind, *read_yaml("language.yaml")["words"].split()})
        | _british([*kind, *(word for cue in cues for word in cue)])
        | {word: tuple(parts.split()) for word, parts in words["glued"].items()},
        skeletal=frozenset(words["skeletal"].split()),
        thoracic=frozenset(words["thoracic"].split()),
        meaning=_meanings(read_yaml("synonyms.yaml")["synonyms"]),
        suggest=frozenset(words["suggest"].split()),
        dull=frozenset(words["dull"].split()),
        affirming=frozenset(words["affirming"].split()),
        cues=cues,
        cue_lengths=_cue_lengths(cues),
        cue_pairs=frozenset((cue[0], cue[1]) for cue in cues if len(cue) > 1),
    )


def _word_classes(words: dict[str, Any]) -> dict[str, str]:
    """Return word -> class, after a check that no word has two."""
    kind: dict[str, str] = {}
    for word_class in WORD_CLASSES:
        for word in words[word_class].split():
            if kind.setdefault(word, word_class) != word_class:
                raise LexiconError(
                    "two_classes", f"{word!r} is listed as {kind[word]} and as {word_class}"
                )
    return kind


def _british(words: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the British spelling of every word that has one -> (the word,).

    >>> _british(["edema", "hematoma", "lung", "visualized"])
    {'oedema': ('edema',), 'haematoma': ('hematoma',), 'visualised': ('visualized',)}
    """
    found: dict[str, tuple[str, ...]] = {}
    for word in words:
        spelled = word
        for american, british in _SPELLINGS:
            spelled = american.sub(british, spelled)
        if spelled != word:
            found[spelled] = (word,)
    return found


def _cut(words: Iterable[str], known: Container[str]) -> dict[str, tuple[str, ...]]:
    """Return every form that cuts one of the words -> (the word,); not what is a word itself.

    A form is the start of the word, with or without its last letter.

    >>> _cut(["effusion"], {"effusion"})
    {'effus': ('effusion',), 'effusn': ('effusion',), 'effusi': ('effusion',), \
'effusin': ('effusion',), 'effusio': ('effusion',)}
    """
    found: dict[str, tuple[str, ...]] = {}
    for word in words:
        for length in range(_SHORTEST_CUT, len(word)):
            for form in (word[:length], word[:length] + word[-1]):
                if form not in known:
                    found.setdefault(form, (word,))
    return found


def _meanings(lines: list[str]) -> dict[str, str]:
    """Return word -> first word of its line of synonyms; the last line that has a word counts."""
    meaning: dict[str, str] = {}
    for line in lines:
        synonyms = line.split()
        meaning |= dict.fromkeys(synonyms, synonyms[0])
    return meaning


def _cues(data: dict[str, Any]) -> dict[tuple[str, ...], str]:
    """Return the words of every cue -> its meaning, with the groups of words spelled out."""
    # Spelled out once, a cue in a sentence is found by one look-up of its words.
    cues: dict[tuple[str, ...], str] = {}
    for phrase, meaning in _cue_phrases(data):
        cues |= dict.fromkeys(_spelled_out(phrase, data["groups"]), meaning)
    return cues


def _cue_phrases(data: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (phrase, meaning) of every line of the file.

    Negation, uncertainty and requests come last, since a later meaning replaces an earlier one of
    the same words.
    """
    found = [(phrase, "neutral") for phrase in data["neutral"]]
    found += [(phrase, "breaker") for phrase in data["breakers"]]
    for assertion in ("negation", "uncertainty", "request"):
        for direction, phrases in data[assertion].items():
            found += [(phrase, f"{assertion}.{direction}") for phrase in phrases]
    return found


def _spelled_out(phrase: str, groups: dict[str, list[str]]) -> list[tuple[str, ...]]:
    """Return a phrase once for every choice of entries of its groups: "not SEEN" for each SEEN."""
    choices = [groups.get(word, [word]) for word in phrase.split()]
    # An entry may have several words, or none ("" makes a group optional).
    return [tuple(" ".join(chosen).split()) for chosen in product(*choices)]


def _cue_lengths(cues: Iterable[tuple[str, ...]]) -> dict[str, list[int]]:
    lengths: dict[str, set[int]] = {}
    for cue in cues:
        lengths.setdefault(cue[0], set()).add(len(cue))
    return {word: sorted(found, reverse=True) for word, found in lengths.items()}
