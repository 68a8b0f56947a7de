"""METEOR 1.5's English word lists, read from the files that ``pycocoevalcap`` installs.

No Java is run. The archive beside its scorer holds function words, abbreviations and WordNet's
synonym sets. A separate table holds five million paraphrases; only those whose words occurred in a
text are kept in memory.
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

# WordNet's detachment rules (nouns, verbs, adjectives) in METEOR's order: an ending and what
# replaces it.
_DETACHMENTS = (
    ("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"),
    ("men", "man"), ("ies", "y"), ("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"),
    ("ed", ""), ("ing", "e"), ("ing", ""), ("er", ""), ("est", ""), ("er", "e"), ("est", "e"),
)  # fmt: skip
_BLOCK = 1 << 22  # bytes read from the paraphrase table at a time
_NUMERIC_MARK = "#NUMERIC_ONLY#"
MAX_PHRASE = 7  # words; longer paraphrases do not occur in the table


@dataclass(frozen=True)
class WordLists:
    """METEOR's data about English words."""

    function_words: frozenset[str]
    abbreviations: Mapping[str, bool]
    """Words that keep their period; the value is True if only before a number."""
    synsets: Mapping[str, frozenset[str]]
    bases: Mapping[str, tuple[str, ...]]
    """The base forms of irregular forms."""

    def synonym_sets(self, word: str) -> frozenset[str]:
        """Return the synonym sets of a word and of its base form."""
        own = self.synsets.get(word, frozenset())
        if word in self.bases:
            return own.union(*(self.synsets.get(base, frozenset()) for base in self.bases[word]))
        return own | self.synsets.get(self._base(word), frozenset())

    def _base(self, word: str) -> str:
        """Return the base form of a regular word, "" where WordNet has none."""
        if word.endswith("ss") or len(word) <= 2:
            return word
        for ending, replacement in _DETACHMENTS:
            base = word.removesuffix(ending) + replacement
            if word.endswith(ending) and base in self.synsets:
                return base
        return ""


@lru_cache(maxsize=1)
def word_lists() -> WordLists:
    """Return the word lists; the archive is read once.

    Raises:
        MetricError: ``meteor_data_missing``.
    """
    with zipfile.ZipFile(_folder() / "meteor-1.5.jar") as archive:
        function_words = _lines(archive, "function/english.words")
        prefixes = _lines(archive, "nonbreaking/english.prefixes")
        synsets = _lines(archive, "synonym/english.synsets")
        exceptions = _lines(archive, "synonym/english.exceptions")
    # Two lines per entry: a base form and its irregular forms, or a word and its synonym sets.
    bases: dict[str, tuple[str, ...]] = {}
    for base, forms in zip(exceptions[::2], exceptions[1::2], strict=True):
        for form in forms.split():
            bases[form] = (*bases.get(form, ()), base)
    return WordLists(
        function_words=frozenset(function_words),
        abbreviations=dict(_abbreviations(prefixes)),
        synsets={
            word: frozenset(sets.split())
            for word, sets in zip(synsets[::2], synsets[1::2], strict=True)
        },
        bases=bases,
    )


def paraphrases(
    phrases: Collection[tuple[str, ...]],
) -> dict[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the paraphrases of each phrase, in the table's order, where both are in ``phrases``.

    The table is read when ``phrases`` has a word that no earlier call had; the rows of known words
    stay in memory.

    Raises:
        MetricError: ``meteor_data_missing``.
    """
    wanted = {" ".join(phrase).encode(): phrase for phrase in phrases}
    rows = _known_rows.of({word for phrase in wanted for word in phrase.split()})
    found: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for key, phrase in wanted.items():
        others = [wanted[other] for other in rows.get(key, ()) if other in wanted]
        if others:
            found[phrase] = others
    return found


class _KnownRows:
    """The rows of the paraphrase table that consist of known words: a few thousand of five million.

    Known are the words of all calls so far.
    """

    def __init__(self) -> None:
        self._words: set[bytes] = set()
        self._rows: dict[bytes, list[bytes]] = {}

    def of(self, words: set[bytes]) -> dict[bytes, list[bytes]]:
        """Return the paraphrases of each phrase that consists of these or of known words."""
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
    """Yield each phrase and its paraphrase.

    The table has three lines per entry; METEOR does not use the first, a probability.
    """
    with gzip.open(_folder() / "data" / "paraphrase-en.gz", "rb") as table:
        rest: list[bytes] = [b""]
        # Blocks are cut into lines here, because reading line by line takes three times as long.
        while block := table.read(_BLOCK):
            lines = (b"\n".join(rest) + block).split(b"\n")
            whole = (len(lines) - 1) // 3 * 3
            yield from zip(lines[1:whole:3], lines[2:whole:3], strict=True)
            rest = lines[whole:]


def _lines(archive: zipfile.ZipFile, name: str) -> list[str]:
    """Return the lines of one file of the archive."""
    return archive.read(name).decode("utf-8").splitlines()


def _abbreviations(lines: list[str]) -> Iterator[tuple[str, bool]]:
    """Yield each abbreviation, and whether it keeps its period only before a number."""
    for line in lines:
        words = line.split()
        if words and not words[0].startswith("#"):
            yield words[0], _NUMERIC_MARK in words[1:]


def _folder() -> Path:
    """Return the folder of METEOR's files inside the package ``pycocoevalcap``."""
    # The package is only located, not imported.
    spec = importlib.util.find_spec("pycocoevalcap")
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not folders:
        raise MetricError(
            "meteor_data_missing",
            "METEOR needs the word lists of the package pycocoevalcap: install it",
        )
    return Path(folders[0]) / "meteor"
