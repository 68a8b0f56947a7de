"""Relations between the entities of a sentence: modify, located_at, suggestive_of (ours)."""

from __future__ import annotations

from lmrrg.metrics.embedded.lexicon import (
    ANATOMY,
    DEVICE,
    LOCATION,
    MODIFIER,
    OBSERVATION,
    STATE,
    graph_lexicon,
)
from lmrrg.metrics.embedded.sentences import Sentence

Relation = tuple[int, int, str]
"""(index of the head word, index of the target word, type)"""
Head = tuple[int | None, int | None]
"""(index of an observation, index of an anatomy): what a run of entity words is about"""

_SPLIT = frozenset(["and", "or", ",", "nor", "without", "with"])
_OBSERVED = (OBSERVATION, DEVICE)
_PLACED = (ANATOMY, LOCATION)


def relations_of(sentence: Sentence) -> list[Relation]:
    """Relations of a sentence, each between two of its entity words."""
    phrases = _phrases(sentence)
    found: list[Relation] = []
    heads = [_inside(sentence.kinds, phrase, found) for phrase, _ in phrases]
    before: Head = (None, None)
    for head, (_, joint) in zip(heads, phrases, strict=True):
        if before != (None, None):
            _between(sentence.kinds, before, head, joint, found)
        thing, place = head
        before = (before[0] if thing is None else thing, before[1] if place is None else place)
    return found


def _phrases(sentence: Sentence) -> list[tuple[list[int], str]]:
    """Runs of entity words that no other word interrupts, each with what joined it to the run before."""
    phrases: list[tuple[list[int], str]] = []
    suggest = graph_lexicon().suggest
    open_run, joint = False, ""
    for i, kind in enumerate(sentence.kinds):
        if kind:
            if not open_run:
                phrases.append(([], joint))
            phrases[-1][0].append(i)
            open_run, joint = True, ""
        else:
            open_run = False
            word = sentence.words[i]
            if word in suggest:
                joint = "suggest"
            elif not joint:
                joint = "list" if word in _SPLIT else "in"
    return phrases


def _inside(kinds: tuple[str, ...], run: list[int], found: list[Relation]) -> Head:
    """Relations inside a run of entity words; returns its last observation and its last anatomy."""
    if len(run) == 1:
        return (None, run[0]) if kinds[run[0]] in _PLACED else (run[0], None)
    places = [i for i in run if kinds[i] in _PLACED]
    things = [i for i in run if kinds[i] in _OBSERVED]
    place = places[-1] if places else None
    thing = things[-1] if things else None
    found.extend((i, place, "modify") for i in places[:-1] if place is not None)
    if thing is not None:
        found.extend(
            (i, thing, "modify")
            for i in run
            if kinds[i] in (MODIFIER, STATE) or (i in things and i != thing)
        )
        if place is not None:
            found.append((thing, place, "located_at"))
    elif place is not None:
        found.extend((i, place, "located_at") for i in run if kinds[i] == STATE)
        found.extend((i, place, "modify") for i in run if kinds[i] == MODIFIER)
    else:
        states = [i for i in run if kinds[i] in (STATE, MODIFIER)]
        thing = states[-1] if states else None
        found.extend((i, thing, "modify") for i in states[:-1] if thing is not None)
    return thing, place


def _between(
    kinds: tuple[str, ...], before: Head, head: Head, joint: str, found: list[Relation]
) -> None:
    """The relation of a run to what the runs before it named last."""
    thing, place = head
    before_thing, before_place = before
    if joint == "suggest" and thing is not None and before_thing is not None:
        found.append((before_thing, thing, "suggestive_of"))
    elif joint == "list":
        return
    elif thing is None and place is not None and before_thing is not None:
        found.append((before_thing, place, "located_at"))
    elif thing is not None and place is None and kinds[thing] in (STATE, MODIFIER):
        if before_place is not None:
            found.append((thing, before_place, "located_at"))
        elif before_thing is not None:
            found.append((thing, before_thing, "modify"))
