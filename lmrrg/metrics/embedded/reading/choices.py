"""Make both findings of a choice uncertain: "scarring or atelectasis" (ours)."""

from __future__ import annotations

from lmrrg.metrics.embedded.lexicon import OBSERVATION
from lmrrg.metrics.embedded.reading.assertions import ABSENT, PRESENT, UNCERTAIN
from lmrrg.metrics.embedded.reading.scopes import CHOICE


def doubt_choices(words: list[str], kinds: list[str], assertions: list[int]) -> None:
    """Make both findings of a choice uncertain: "scarring or atelectasis". Denied ones stay so."""
    for i, word in enumerate(words):
        if word not in CHOICE or assertions[i] == ABSENT:
            continue
        before = _entity_run(words, kinds, i - 1, -1)
        after = _entity_run(words, kinds, i + 1, 1)
        if _follows_denial(words, assertions, before):
            continue
        if _has_observation(before, kinds) and _has_observation(after, kinds):
            for j in (*before, *after):
                if assertions[j] == PRESENT:
                    assertions[j] = UNCERTAIN


def _follows_denial(words: list[str], assertions: list[int], run: list[int]) -> bool:
    """Return whether a choice names what has not changed: "no change in the edema or effusion"."""
    start = min(run, default=0) - 1
    while start > 0 and words[start] in ("the", "in", "of"):
        start -= 1
    return start >= 0 and assertions[start] == ABSENT


def _has_observation(indices: list[int], kinds: list[str]) -> bool:
    return any(kinds[i] == OBSERVATION for i in indices)


def _entity_run(words: list[str], kinds: list[str], start: int, step: int) -> list[int]:
    """Return the indices of the entity words in a row from ``start``, in steps of 1 or -1.

    One other word may stand among them; a second one, a comma or the sentence's end ends the row.
    """
    found: list[int] = []
    has_skipped = False
    i = start
    while 0 <= i < len(kinds):
        if kinds[i]:
            found.append(i)
        elif has_skipped or words[i] == ",":
            break
        else:
            has_skipped = True
        i += step
    return found
