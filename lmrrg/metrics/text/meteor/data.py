"""METEOR 1.5's English word lists, read from the files that ``pycocoevalcap`` installs. No Java is run.

The archive next to the scorer holds function words, abbreviations and WordNet's synonym sets; a separate table holds
five million paraphrases, of which only those made of words that occurred in a text are kept.
"""

from __future__ import annotations

import gzip
import importlib.util
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lmrrg.metrics.errors import MetricError

# WordNet's detachment rules (nouns, verbs, adjectives), in METEOR's order: ending and what replaces it.
_DETACHMENTS = (
    ("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man"), ("ies", "y"),
    ("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", ""),
    ("er", ""), ("est", ""), ("er", "e"), ("est", "e"),
)  # fmt: skip
_BLOCK = 1 << 22  # bytes
_NUMERIC_MARK = "#NUMERIC_ONLY#"
MAX_PHRASE = 7  # words; longer paraphrases do not occur in the table


@dataclass(frozen=True)
class WordLists:
    """What METEOR knows about English words."""

    function_words: frozenset[str]
    abbreviations: Mapping[str, bool]
    """Words that keep their period; True: only before a number."""
    synsets: Mapping[str, frozenset[str]]
    bases: Mapping[str, tuple[str, ...]]
    """Irregular forms and their base forms."""

    def synonym_sets(self, word: str) -> frozenset[str]:
        """The synonym sets of a word and of its base form."""
        own = self.synsets.get(word, frozenset())
        if word in self.bases:
            return own.union(*(self.synsets.get(base, frozenset()) for base in self.bases[word]))
        return own | self.synsets.get(self._base(word), frozenset())

    def _base(self, word: str) -> str:
        if word.endswith("ss") or len(word) <= 2:
            return word
        for ending, replacement in _DETACHMENTS:
            if (
                word.endswith(ending)
                and (base := word.removesuffix(ending) + replacement) in self.synsets
            ):
                return base
        return ""


@lru_cache(maxsize=1)
def word_lists() -> WordLists:
    """Read the archive once.

    Raises:
        MetricError: ``meteor_data_missing``.
    """
    with zipfile.ZipFile(_folder() / "meteor-1.5.jar") as archive:
        read = {
            name: archive.read(f"{name}").decode("utf-8").splitlines()
            for name in (
                "function/english.words",
                "nonbreaking/english.prefixes",
                "synonym/english.synsets",
                "synonym/english.exceptions",
            )
        }
    synsets = read["synonym/english.synsets"]
    exceptions = read["synonym/english.exceptions"]
    bases: dict[str, tuple[str, ...]] = {}
    for base, forms in zip(exceptions[::2], exceptions[1::2], strict=True):
        for form in forms.split():
            bases[form] = (*bases.get(form, ()), base)
    return WordLists(
        function_words=frozenset(read["function/english.words"]),
        abbreviations=dict(_abbreviations(read["nonbreaking/english.prefixes"])),
        synsets={
            word: frozenset(sets.split())
            for word, sets in zip(synsets[::2], synsets[1::2], strict=True)
        },
        bases=bases,
    )


def paraphrases(
    phrases: Collection[tuple[str, ...]],
) -> dict[tuple[str, ...], list[tuple[str, ...]]]:
    """For each phrase its paraphrases, in the table's order, where both are in ``phrases``.

    The table is read when ``phrases`` has a word that no call before had; rows of known words stay in memory.

    Raises:
        MetricError: ``meteor_data_missing``.
    """
    wanted = {" ".join(phrase).encode(): phrase for phrase in phrases}
    rows = _known_rows.of({word for phrase in wanted for word in phrase.split()})
    found = {
        phrase: [wanted[other] for other in rows.get(key, ()) if other in wanted]
        for key, phrase in wanted.items()
    }
    return {phrase: others for phrase, others in found.items() if others}


class _KnownRows:
    """The rows of the paraphrase table that consist of the words seen so far: a few thousand of five million."""

    def __init__(self) -> None:
        self._words: set[bytes] = set()
        self._rows: dict[bytes, list[bytes]] = {}

    def of(self, words: set[bytes]) -> dict[bytes, list[bytes]]:
        """Phrase -> paraphrases, of these words and of those that were asked for before."""
        if not words <= self._words:
            known = self._words | words
            rows: dict[bytes, list[bytes]] = {}
            for phrase, other in _table_rows():
                if known.issuperset(phrase.split()) and known.issuperset(other.split()):
                    rows.setdefault(phrase, []).append(other)
            self._words, self._rows = known, rows
        return self._rows


_known_rows = _KnownRows()


def _table_rows() -> Iterator[tuple[bytes, bytes]]:
    """Each phrase and paraphrase. Three lines per entry; the first, a probability, is not used by METEOR."""
    with gzip.open(_folder() / "data" / "paraphrase-en.gz", "rb") as table:
        rest: list[bytes] = [b""]
        # Cut by hand: reading line by line takes three times as long.
        while block := table.read(_BLOCK):
            lines = (b"\n".join(rest) + block).split(b"\n")
            whole = (len(lines) - 1) // 3 * 3
            yield from zip(lines[1:whole:3], lines[2:whole:3], strict=True)
            rest = lines[whole:]


def _abbreviations(lines: list[str]) -> Iterator[tuple[str, bool]]:
    for line in lines:
        words = line.split()
        if words and not words[0].startswith("#"):
            yield words[0], _NUMERIC_MARK in words[1:]


def _folder() -> Path:
    spec = importlib.util.find_spec("pycocoevalcap")
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not places:
        raise MetricError(
            "meteor_data_missing",
            "METEOR needs the word lists of the package pycocoevalcap: install it",
        )
    return Path(places[0]) / "meteor"
