"""Find the relations between the entities of a sentence: modify, located_at, suggestive_of (ours).

A sentence is cut into *runs*: entity words that follow each other without another word between
them. Relations inside a run come first ("small left effusion"); then each run is tied to what the
runs before it named last ("effusion" - "in" - "left base").
"""

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

_LIST_WORDS = frozenset(["and", "or", ",", "nor", "without", "with"])
_OBSERVED = (OBSERVATION, DEVICE)
_PLACED = (ANATOMY, LOCATION)
_DESCRIBING = (STATE, MODIFIER)


# Plain tuples, because named ones cost 5% of the speed of the reward.
_Subject = tuple[int | None, int | None]
"""What a run of entity words is about: (index of an observation, index of an anatomy)."""
_Run = tuple[list[int], str]
"""(indices of entity words in a row, what links them to the run before)

The link is "suggest", "list", or "in" for any other words; "" at the start of a sentence.
"""


def relations_of(sentence: Sentence) -> list[Relation]:
    """Return the relations of a sentence, each between two of its entity words.

    >>> from lmrrg.metrics.embedded.sentences import read_sentence
    >>> read = read_sentence("small opacity in the lung")
    >>> [(read.words[h], kind, read.words[t]) for h, t, kind in relations_of(read)]
    [('small', 'modify', 'opacity'), ('opacity', 'located_at', 'lung')]
    """
    runs = _runs(sentence)
    found: list[Relation] = []
    # All relations inside the runs are listed before those between them: readers keep this order.
    subjects = [_relate_inside(sentence.kinds, indices, found) for indices, _ in runs]
    last: _Subject = (None, None)
    for subject, (_, link) in zip(subjects, runs, strict=True):
        if last != (None, None):
            _relate_between(sentence.kinds, last, subject, link, found)
        observation, anatomy = subject
        last = (
            last[0] if observation is None else observation,
            last[1] if anatomy is None else anatomy,
        )
    return found


def _runs(sentence: Sentence) -> list[_Run]:
    """Return the runs of entity words, each with what links it to the run before."""
    runs: list[_Run] = []
    suggest = graph_lexicon().suggest
    in_run = False
    link = ""
    for i, kind in enumerate(sentence.kinds):
        if kind:
            if not in_run:
                runs.append(([], link))
            runs[-1][0].append(i)
            in_run = True
            link = ""
            continue
        in_run = False
        # The first word decides ("and in the": a list), but a suggestion decides anywhere.
        if sentence.words[i] in suggest:
            link = "suggest"
        elif not link:
            link = "list" if sentence.words[i] in _LIST_WORDS else "in"
    return runs


def _relate_inside(kinds: tuple[str, ...], run: list[int], found: list[Relation]) -> _Subject:
    """Add the relations inside a run to ``found``, and return what the run is about.

    The last observation and the last anatomy are the subject: in "small left pleural effusion"
    the words before describe them.
    """
    if len(run) == 1:  # most runs
        return (None, run[0]) if kinds[run[0]] in _PLACED else (run[0], None)
    anatomies: list[int] = []
    observations: list[int] = []
    for i in run:
        if kinds[i] in _PLACED:
            anatomies.append(i)
        elif kinds[i] in _OBSERVED:
            observations.append(i)
    anatomy = anatomies.pop() if anatomies else None
    if anatomy is not None:
        found += [(i, anatomy, "modify") for i in anatomies]
    if observations:
        observation = observations.pop()
        describing = [i for i in run if i != observation and kinds[i] not in _PLACED]
        found += [(i, observation, "modify") for i in describing]
        if anatomy is not None:
            found.append((observation, anatomy, "located_at"))
        return observation, anatomy
    if anatomy is not None:
        # "Clear lungs": a state is a fact at its organ; a modifier only describes the organ.
        found += [(i, anatomy, "located_at") for i in run if kinds[i] == STATE]
        found += [(i, anatomy, "modify") for i in run if kinds[i] == MODIFIER]
        return None, anatomy
    # Neither: "mildly enlarged". The last word stands for the observation.
    found += [(i, run[-1], "modify") for i in run[:-1]]
    return run[-1], None


def _relate_between(
    kinds: tuple[str, ...], last: _Subject, subject: _Subject, link: str, found: list[Relation]
) -> None:
    """Add the relation of a run to what the runs before it named last."""
    observation, anatomy = subject
    last_observation, last_anatomy = last
    if link == "suggest" and observation is not None and last_observation is not None:
        found.append((last_observation, observation, "suggestive_of"))
    elif link == "list":
        # "Effusion and atelectasis", "no edema, no nodule": items of a list are not related.
        return
    elif observation is None and anatomy is not None and last_observation is not None:
        found.append((last_observation, anatomy, "located_at"))
    elif observation is not None and anatomy is None and kinds[observation] in _DESCRIBING:
        # "The heart is enlarged", "the effusion is small".
        if last_anatomy is not None:
            found.append((observation, last_anatomy, "located_at"))
        elif last_observation is not None:
            found.append((observation, last_observation, "modify"))
