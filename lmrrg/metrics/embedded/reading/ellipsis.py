"""Name a finding again where a sentence tells its two sides apart (ours).

"No effusion on the left, moderate on the right" becomes "no effusion on the left, moderate
effusion on the right"; "the right effusion is large, the left is small" names it twice as well.
"""

from __future__ import annotations

from lmrrg.metrics.embedded.lexicon import MODIFIER, OBSERVATION, GraphLexicon
from lmrrg.metrics.embedded.reading.function_words import BE

_SIDES = frozenset(["left", "right"])
_JOINTS = frozenset([",", "and", "but", "while", "whereas", "though", "although", "yet", "with"])
_STANDS_FOR = frozenset(["one", "ones", "that"])
"""Words in place of the finding's name: "a small one on the left"."""
_PLACES = frozenset(["on", "in", "at", "to"])
_PLACED = frozenset(["is", "are", "was", "a", "an", "only", "just", "present", "seen", "noted"]) | {
    "there",
    "evident",
    "visible",
    "persists",
    "remains",
    "some",
    "more",
    "still",
}
"""Words beside degrees between a joint and the other side."""
_DENIALS = frozenset(
    ["no", "not", "without", "absent", "nil", "none", "resolved", "cleared", "gone"]
)
_GOES_ON = frozenset(["persists", "remains", "is", "has", "one", "appears", "continues"])
"""Words after a side that stands for the finding on it: "the right persists"."""
_DEGREES = frozenset(["tiny", "trace", "small", "moderate", "large", "smaller", "larger"])
_LINKS = frozenset(["the", "side"])


def with_names(words: list[str], lexicon: GraphLexicon) -> list[str]:
    """Return the words of a sentence, with a finding of one side named on the other.

    >>> from lmrrg.metrics.embedded.lexicon import graph_lexicon
    >>> words = "no edema on the right , mild on the left".split()
    >>> " ".join(with_names(words, graph_lexicon()))
    'no edema on the right , mild edema on the left'
    """
    named: list[str] = []
    start = 0
    for joint, word in enumerate(words):
        if word not in _JOINTS:
            continue
        at = _unnamed_place(words, joint + 1, lexicon)
        is_told_apart = not _DENIALS.isdisjoint(words[start:at]) or _is_sized(words, at)
        name = _last_finding(words[start:joint], lexicon) if at and is_told_apart else []
        if name:
            last = at - 1 if words[at - 1] in _STANDS_FOR else at
            named += [*words[start:last], *name]
            start = at
    return [*named, *words[start:]] if start else words


def _is_sized(words: list[str], at: int) -> bool:
    """Return whether a degree follows the verb at ``at``: "is small"."""
    return words[at] in BE and words[at + 1 : at + 2] != [] and words[at + 1] in _DEGREES


def _unnamed_place(words: list[str], start: int, lexicon: GraphLexicon) -> int:
    """Return where "on the left" begins after nothing but degrees from ``start``, or 0."""
    if words[start : start + 1] == ["the"] and words[start + 2 : start + 3] != []:
        is_subject = words[start + 1] in _SIDES and words[start + 2] in _GOES_ON
        return start + 2 if is_subject else 0
    i = start
    while i < len(words) and _is_degree(words[i], lexicon):
        i += 1
    side = i + 1
    while side < len(words) and words[side] in _LINKS:
        side += 1
    if i == start or side >= len(words) or words[i] not in _PLACES or words[side] not in _SIDES:
        return 0
    return i if words[side + 1 : side + 2] in ([], [","], ["side"]) else 0


def _is_degree(word: str, lexicon: GraphLexicon) -> bool:
    """Return whether a word may stand between a joint and the place of an unnamed finding."""
    return word in _PLACED or word in _STANDS_FOR or lexicon.kind.get(word) == MODIFIER


def _last_finding(words: list[str], lexicon: GraphLexicon) -> list[str]:
    """Return the last finding that these words name with a side, and what belongs to its name."""
    if _SIDES.isdisjoint(words):
        return []
    for i in range(len(words) - 1, -1, -1):
        if lexicon.kind.get(words[i]) == OBSERVATION:
            start = i
            while start and words[start - 1] in ("pleural", "pulmonary", "airspace"):
                start -= 1
            return words[start : i + 1]
    return []
