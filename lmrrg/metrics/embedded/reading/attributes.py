"""Find the words of a sentence that describe each of its findings (ours).

In "small left effusion, no pneumothorax on the right", the first two words are the effusion's and
the last one the pneumothorax's.
"""

from __future__ import annotations

from lmrrg.metrics.embedded.claim_lexicon import claim_lexicon
from lmrrg.metrics.embedded.lexicon import ANATOMY
from lmrrg.metrics.embedded.reading.mentions import Mention
from lmrrg.metrics.embedded.sentences import ABSENT, Sentence

_VERBS = frozenset(["is", "are", "has", "have", "appears"])
_OPENERS = _VERBS | {"in", "of", "on", "at", "within", "over", "overlying", "projecting", "along"}
"""After these words, attributes belong to the finding before: "effusion on the left"."""
_JOINTS = frozenset([",", "and", "or", "with", "but", "no", "without"])
"""After these words, attributes belong to the next finding again."""
_TURNS = _OPENERS | _JOINTS | {"there"}
_SIDED_NAMES = frozenset(["atrium", "atrial", "ventricle", "ventricular"])
"""Before these names, "right" and "left" are part of the name and no side of the chest."""


def attributes_of(read: Sentence, mentions: list[Mention]) -> list[list[int]]:
    """Return for each mention the indices of the words that give its attributes, in their order.

    >>> from lmrrg.metrics.embedded.reading.mentions import mentions_of
    >>> from lmrrg.metrics.embedded.sentences import read_sentence
    >>> read = read_sentence("small left effusion and an opacity on the right")
    >>> attributes_of(read, mentions_of(read))
    [[0, 1], [8]]
    """
    found: list[list[int]] = []
    for mention, owned in zip(mentions, _owned_words(read, mentions), strict=True):
        found.append(sorted([i for i in owned if _is_attribute(read, i, mention)]))
    return found


def _owned_words(read: Sentence, mentions: list[Mention]) -> list[list[int]]:
    """Return for each mention the indices of the attributes that may describe it.

    These are the attributes before it, and those after "in", "is" and the like.
    """
    # Two findings may start at one word: "clear" denies two.
    starts: dict[int, list[int]] = {}
    for number, mention in enumerate(mentions):
        starts.setdefault(mention.start, []).append(number)
    owners = _AttributeOwners(mentions)
    attributes = claim_lexicon().attributes
    for i, word in enumerate(read.words):
        if i in starts:
            owners.on_mentions(starts[i])
        elif word in _TURNS:
            owners.on_turn(word)
        else:
            # A zone ("apex") is both.
            if read.kinds[i] == ANATOMY:
                owners.on_anatomy()
            if word in attributes:
                owners.on_attribute(i)
    return owners.finish()


class _AttributeOwners:
    """One pass over a sentence that gives every attribute to the finding that it may describe."""

    def __init__(self, mentions: list[Mention]):
        self.mentions = mentions
        self.owned: list[list[int]] = [[] for _ in mentions]
        """Indices of the attributes of each mention, and of all the words that name it."""
        self.current: list[int] = []
        """Numbers of the last mentions, which own what follows an opener ("in", "is")."""
        self.pending: list[int] = []
        """Indices of attributes that wait for the next mention."""
        self._start_phrase()

    def _start_phrase(self) -> None:
        self.after_opener = False
        self.after_joint = False
        self.has_other_subject = False
        """Whether the words since the last joint speak of something else than the mention."""

    def on_mentions(self, numbers: list[int]) -> None:
        """Pass the first word of one or more mentions."""
        for number in numbers:
            mention = self.mentions[number]
            self.owned[number] += [*self.pending, *range(mention.start, mention.end)]
        self.current = numbers
        self.pending = []
        self._start_phrase()

    def on_turn(self, word: str) -> None:
        """Pass a word that decides whose the words after it are."""
        if word == "there":
            self.has_other_subject = True
        elif self.has_other_subject and word in _VERBS:
            # "Effusion and the mediastinum is shifted", "effusion, and there is": a new statement.
            self.current = []
            self._start_phrase()
        elif word in _OPENERS:
            self.after_opener = True
        else:
            self.after_opener = False
            self.after_joint = True

    def on_anatomy(self) -> None:
        """Pass the name of an organ or a part of it."""
        if self.after_joint:
            self.has_other_subject = True

    def on_attribute(self, i: int) -> None:
        """Pass the word of an attribute."""
        if self.after_opener and self.current:
            for number in self.current:
                self.owned[number].append(i)
        else:
            self.pending.append(i)

    def finish(self) -> list[list[int]]:
        """Return the attributes of each mention; what none took later goes to the last ones."""
        for number in self.current:
            self.owned[number] += self.pending
        return self.owned


def _is_attribute(read: Sentence, i: int, mention: Mention) -> bool:
    """Return whether a word gives an attribute of this mention."""
    lexicon = claim_lexicon()
    word = read.words[i]
    if word not in lexicon.attributes:
        return False
    # "The effusion is not significantly changed": denied words beside a finding that is there
    # are no attributes of it.
    if mention.assertion != ABSENT and read.assertions[i] == ABSENT:
        return False
    if word in lexicon.places:
        # "Subclavian catheter": the way of a device is no place where it ends.
        return mention.finding in lexicon.proper and not mention.start <= i < mention.end
    return _SIDED_NAMES.isdisjoint(read.words[i + 1 : i + 2])
