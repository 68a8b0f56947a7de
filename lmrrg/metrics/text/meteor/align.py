"""METEOR 1.5's word alignment of two texts.

All possible matches are listed first; a beam search then finds the best set of them. "Test" is
METEOR's word for the hypothesis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from nltk.stem.snowball import EnglishStemmer

from lmrrg.metrics.text.meteor.data import MAX_PHRASE, word_lists

EXACT, STEM, SYNONYM, PARAPHRASE = range(4)
# The original's beam and weights of the stages during the search. The score weighs the stages
# differently (`score._STAGE_WEIGHTS`).
_BEAM = 40
_SEARCH_WEIGHTS = (1.0, 0.5, 0.5, 0.5)
Phrase = tuple[str, ...]
Paraphrases = Mapping[Phrase, Sequence[Phrase]]


class Match:
    """Words of the reference that match words of the test.

    They are ``start .. start+length`` and ``test_start .. test_start+test_length``; ``mask`` and
    ``test_mask`` hold the same as bits. Not a dataclass: thousands are made per report, and slots
    with a short constructor are faster.
    """

    __slots__ = ("length", "mask", "stage", "start", "test_length", "test_mask", "test_start")

    def __init__(self, stage: int, start: int, length: int, test_start: int, test_length: int):
        self.stage = stage
        self.start = start
        self.length = length
        self.test_start = test_start
        self.test_length = test_length
        self.mask = ((1 << length) - 1) << start
        self.test_mask = ((1 << test_length) - 1) << test_start


def align(test: Sequence[str], reference: Sequence[str], paraphrases: Paraphrases) -> list[Match]:
    """Return the matches of the best alignment, in the reference's order.

    >>> found = align(["enlarged", "heart"], ["heart", "enlargement"], paraphrases={})
    >>> [(match.start, match.test_start, match.stage) for match in found]  # 0 exact, 1 stem
    [(0, 1, 0), (1, 0, 1)]
    """
    possible = _exact(test, reference)
    # Equal texts match word for word, and nothing else could be better.
    if tuple(test) != tuple(reference):
        possible += _stems_and_synonyms(test, reference) + _phrase_matches(
            test, reference, paraphrases
        )
    matches: list[list[Match]] = [[] for _ in reference]
    for match in possible:
        matches[match.start].append(match)
    return _search(matches, _certain(matches, len(test)))


def _exact(test: Sequence[str], reference: Sequence[str]) -> list[Match]:
    """Return the matches of equal words."""
    return [
        Match(EXACT, i, 1, j, 1)
        for i, word in enumerate(reference)
        for j, other in enumerate(test)
        if word == other
    ]


def _stems_and_synonyms(test: Sequence[str], reference: Sequence[str]) -> list[Match]:
    """Return the matches of words with the same stem, then of words with a common synonym set.

    The order of the stages decides ties in the search.
    """
    found = []
    for i, word in enumerate(reference):
        found += [
            Match(STEM, i, 1, j, 1)
            for j, other in enumerate(test)
            if word != other and _stem(word) == _stem(other)
        ]
    for i, word in enumerate(reference):
        sets = _synonym_sets(word)
        found += [
            Match(SYNONYM, i, 1, j, 1)
            for j, other in enumerate(test)
            if word != other and not sets.isdisjoint(_synonym_sets(other))
        ]
    return found


def _phrase_matches(
    test: Sequence[str], reference: Sequence[str], paraphrases: Paraphrases
) -> list[Match]:
    """Return the matches of paraphrases; the table is looked up in both directions."""
    found = []
    for i, j, length, other_length in _table_matches(reference, test, paraphrases):
        found.append(Match(PARAPHRASE, i, length, j, other_length))
    for i, j, length, other_length in _table_matches(test, reference, paraphrases):
        found.append(Match(PARAPHRASE, j, other_length, i, length))
    return found


def _table_matches(
    words: Sequence[str], others: Sequence[str], paraphrases: Paraphrases
) -> list[tuple[int, int, int, int]]:
    """Return (start, other start, length, other length) of each phrase with a paraphrase."""
    found = []
    for i in range(len(words)):
        for length in range(1, min(MAX_PHRASE, len(words) - i) + 1):
            for other in paraphrases.get(tuple(words[i : i + length]), ()):
                found += [
                    (i, j, length, len(other))
                    for j in range(len(others) - len(other) + 1)
                    if tuple(others[j : j + len(other)]) == other
                ]
    return found


@lru_cache(maxsize=1)
def _stemmer() -> EnglishStemmer:
    return EnglishStemmer()


@lru_cache(maxsize=65536)
def _stem(word: str) -> str:
    return _stemmer().stem(word)


@lru_cache(maxsize=65536)
def _synonym_sets(word: str) -> frozenset[str]:
    return word_lists().synonym_sets(word)


def _certain(matches: Sequence[Sequence[Match]], test_words: int) -> dict[int, Match]:
    """Return the matches whose words, on both sides, belong to no other match, by their start.

    The original chooses them before the search, because no other match competes with them.
    """
    touched = [0] * len(matches)
    test_touched = [0] * test_words
    for options in matches:
        for match in options:
            for k in range(match.start, match.start + match.length):
                touched[k] += 1
            for k in range(match.test_start, match.test_start + match.test_length):
                test_touched[k] += 1
    certain: dict[int, Match] = {}
    for start, options in enumerate(matches):
        if len(options) != 1:
            continue
        match = options[0]
        own = touched[start : start + match.length]
        test_own = test_touched[match.test_start : match.test_start + match.test_length]
        if all(count == 1 for count in own + test_own):
            certain[start] = match
    return certain


class _Node(NamedTuple):
    """A chosen match, and the ones chosen before it."""

    match: Match
    before: _Node | None


class _Path:
    """A partial alignment.

    Used words are bits of two integers and the chosen matches a linked list, so that a copy, which
    the search makes for each match that it tries, costs the same however long the text is.
    """

    __slots__ = (
        "chosen",
        "chunks",
        "distance",
        "end",
        "next_word",
        "test_used",
        "test_weight",
        "used",
        "weight",
    )

    def __init__(self, used: int, test_used: int):
        self.used = used
        self.test_used = test_used
        self.weight = 0
        self.test_weight = 0
        self.chunks = 0
        self.distance = 0
        self.next_word = 0
        self.end = -1  # where the last match ended in the test, -1 after a gap
        self.chosen: _Node | None = None

    def copy(self) -> _Path:
        """Return a path of its own with the same matches."""
        other = _Path(self.used, self.test_used)
        other.weight = self.weight
        other.test_weight = self.test_weight
        other.chunks = self.chunks
        other.distance = self.distance
        other.next_word = self.next_word
        other.end = self.end
        other.chosen = self.chosen
        return other

    def take(self, match: Match) -> None:
        """Choose a match."""
        # The original adds these weights to integers, so that half a point is cut off every time.
        weight = _SEARCH_WEIGHTS[match.stage]
        self.test_weight = int(self.test_weight + match.test_length * weight)
        self.weight = int(self.weight + match.length * weight)
        if self.end not in (-1, match.test_start):
            self.chunks += 1
        self.next_word = match.start + match.length
        self.end = match.test_start + match.test_length
        self.used |= match.mask
        self.test_used |= match.test_mask
        self.chosen = _Node(match, self.chosen)

    def skip(self) -> None:
        """Leave the next word of the reference without a match."""
        if self.end != -1:
            self.chunks += 1
            self.end = -1
        self.next_word += 1

    def rank(self) -> tuple[int, int, int]:
        """Return the sort key of a path; the smallest is the best."""
        return -(self.weight + self.test_weight), self.chunks, self.distance


def _search(matches: Sequence[Sequence[Match]], certain: Mapping[int, Match]) -> list[Match]:
    """Return the best set of matches, by a beam search from left to right.

    Best is the largest weight of matched words, then fewest chunks, then least movement.
    """
    start = _Path(0, 0)
    for match in certain.values():
        start.used |= match.mask
        start.test_used |= match.test_mask
    paths = [start]
    for word, options in enumerate(matches):
        # Python's sort is stable, like the original's, so paths of equal rank keep their order.
        paths.sort(key=_Path.rank)
        following: list[_Path] = []
        for path in paths[:_BEAM]:
            if path.used >> word & 1:
                if word >= path.next_word:
                    _take_certain(path, certain[path.next_word])
                following.append(path)
            else:
                following += _extend(path, options)
        paths = following
    paths.sort(key=_Path.rank)
    del paths[_BEAM:]
    # A run of matches that reaches the end of the reference is a chunk, too.
    for path in paths:
        path.chunks += path.end != -1
    node = min(paths, key=_Path.rank).chosen
    chosen: list[Match] = []
    while node is not None:
        chosen.append(node.match)
        node = node.before
    return chosen[::-1]


def _take_certain(path: _Path, match: Match) -> None:
    path.take(match)
    path.distance += abs(match.start - match.test_start)


def _extend(path: _Path, options: Sequence[Match]) -> list[_Path]:
    """Return one path per usable match at this word, and the path that leaves the word out.

    The movement of a match is added to the path that leaves it out and to those made after it. This
    is a mistake of the original, kept because it decides ties.
    """
    made = []
    for match in options:
        if path.used & match.mask or path.test_used & match.test_mask:
            continue
        other = path.copy()
        other.take(match)
        path.distance += abs(match.start - match.test_start)
        made.append(other)
    path.skip()
    made.append(path)
    return made
