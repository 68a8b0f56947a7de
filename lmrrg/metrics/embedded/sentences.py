"""Split a report into sentences, and read each word as asserted, denied or uncertain.

Ours: rules of the NegEx family. A *cue* is a phrase of ``lexicons/cues.yaml``, such as "no", "may
represent" or "is not seen". Its *scope* is the run of words that it denies or makes uncertain:

- a *forward* cue (``before`` and ``near`` in the lexicon: it stands before its finding) reaches to
  the end of its clause;
- a *backward* cue (``after``: it stands after its finding) reaches back to the start of its clause;
- ``itself``: the cue denies its own words alone ("no change");
- ``neutral``: the words look like a cue and are none ("not only");
- a *breaker* ("but", "however") ends every scope and starts a clause.

To change what a phrase means, edit ``cues.yaml``. To change how far a scope reaches, edit
:class:`_ScopeReader`: each rule is one method with an example.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from lmrrg.metrics.embedded.batch_cache import SENTENCE_BATCH
from lmrrg.metrics.embedded.lexicon import (
    ANATOMY,
    MODIFIER,
    OBSERVATION,
    STATE,
    GraphLexicon,
    graph_lexicon,
)

# The assertion of a word. PRESENT is 0 (false) and the default: no cue reaches the word.
PRESENT = 0
ABSENT = 1
UNCERTAIN = 2

_SENTENCE_END = re.compile(
    # a full stop that is no decimal point; other marks; an empty line; the number of a list item
    r"\.(?!\d)|[;!?]|\n\s*\n|(?<!\S)\d+[.)](?!\S)"
    # the bullet of a list item; the heading of a line in a structured report ("heart: ...")
    r"|\n\s*(?=[-*•])|\n(?=[a-z][a-z /]{2,40}:)"
)
_NUMBER_OR_BREAK = re.compile(r"[\d\n]")
_STOPS = str.maketrans(";!?", "...")
_WORD = re.compile(r"\d+(?:\.\d+)?|[a-z]+(?:\d+)?(?:'[a-z]+)?|,")

_BE = frozenset(["is", "are", "was", "were", "be", "been"])
_VERBS = _BE | {"appear", "appears", "remain", "remains", "has", "have"}
_SEEN = frozenset(["seen", "identified", "noted", "visualized", "demonstrated", "appreciated"]) | {
    "present",
    "evident",
}
_JOINTS = frozenset([",", "and", "with"])
"""Words that may join a clause to the one before."""
_CLAUSE_ENDS = frozenset([",", "given"])
"""Words after a forward cue that, like the sentence's end, leave no word for it to reach."""
_NEAR_ENDS = frozenset([",", "with"])
"""Words that end the scope of a ``near`` cue in any case."""
_NEGATED_LISTS = frozenset([",", "and", "no", "without"])
"""Words that show that the words before them were one more item of a list."""
_TIPS = frozenset(["tip", "tips"])
CHOICE = frozenset(["or", "versus", "vs"])
"""Words between two findings of which one is meant."""

_FORWARD = {"negation.before": ABSENT, "negation.near": ABSENT, "uncertainty.before": UNCERTAIN}
_BACKWARD = {"negation.after": ABSENT, "uncertainty.after": UNCERTAIN}
_TURNED_BACK = {
    "negation.before": "negation.after",
    "uncertainty.before": "uncertainty.after",
}


class Sentence(NamedTuple):
    """One sentence as three tuples of the same length, one entry per word."""

    words: tuple[str, ...]
    """Lower-case words, numbers and commas."""
    kinds: tuple[str, ...]
    """One of :data:`~lmrrg.metrics.embedded.lexicon.WORD_CLASSES`; "" for any other word."""
    assertions: tuple[int, ...]
    """``PRESENT``, ``ABSENT`` or ``UNCERTAIN``."""


def sentences_of(text: str) -> list[str]:
    """Return the sentences of a report in lower case, without their final stops.

    Prose, the "a . b . c ." form of tokenised data sets, numbered lists and reports with one
    heading a line are read alike.

    >>> sentences_of("Heart size is 5.5 cm. No effusion; lungs are clear.")
    ['heart size is 5.5 cm', 'no effusion', 'lungs are clear']
    >>> sentences_of("1. No pneumothorax\\n2. Mild edema")
    ['no pneumothorax', 'mild edema']
    """
    text = text.lower().replace(" vs.", " vs")
    if _NUMBER_OR_BREAK.search(text):
        parts = _SENTENCE_END.split(text)
    else:
        # Without a number or a line break only stops end a sentence; this way is much faster.
        parts = text.translate(_STOPS).split(".")
    return [sentence for sentence in map(str.strip, parts) if sentence]


@lru_cache(maxsize=SENTENCE_BATCH)
def read_sentence(sentence: str) -> Sentence:
    """Return the words of a lower-case sentence with their classes and assertions.

    >>> read = read_sentence("no effusion, but mild edema")
    >>> read.words
    ('no', 'effusion', ',', 'but', 'mild', 'edema')
    >>> read.kinds
    ('', 'observation', '', '', 'modifier', 'observation')
    >>> read.assertions == (ABSENT, ABSENT, ABSENT, PRESENT, PRESENT, PRESENT)
    True
    """
    lexicon = graph_lexicon()
    words: list[str] = _WORD.findall(sentence)
    if not lexicon.glued.keys().isdisjoint(words):
        words = [part for word in words for part in lexicon.glued.get(word, (word,))]
    kind_of = lexicon.kind.get
    kinds = [kind_of(word, "") for word in words]
    # Most sentences hold no cue, and most no choice: both passes are skipped for them.
    if lexicon.cue_lengths.keys().isdisjoint(words):
        assertions = [PRESENT] * len(words)
    else:
        assertions = _ScopeReader(words, kinds, lexicon).read()
    if not CHOICE.isdisjoint(words):
        _doubt_choices(words, kinds, assertions)
    return Sentence(tuple(words), tuple(kinds), tuple(assertions))


class _ScopeReader:
    """One pass over a sentence, from left to right, that gives every word its assertion."""

    def __init__(self, words: list[str], kinds: list[str], lexicon: GraphLexicon):
        self.words = words
        self.kinds = kinds
        self.lexicon = lexicon
        self.assertions = [PRESENT] * len(words)
        self.scope = PRESENT
        """Assertion that the open forward cue gives to the next words; PRESENT: none is open."""
        self.is_near = False
        """Whether the open cue is a ``near`` one, whose scope ends at the next comma or "with"."""
        self.clause_start = 0
        """Index of the first word that a backward cue reaches."""
        self.clause_has_verb = False
        """Whether the clause has a verb; only after one does "and" or a comma end the clause."""

    def read(self) -> list[int]:
        """Return the assertion of every word."""
        i = 0
        while i < len(self.words):
            cue, length = self._cue_at(i)
            if cue:
                self._apply_cue(cue, i, length)
            else:
                self._pass_word(i)
            if self.scope != PRESENT:
                self.assertions[i : i + length] = [self.scope] * length
            i += length
        return self.assertions

    def _cue_at(self, start: int) -> tuple[str, int]:
        """Return the meaning and length of the longest cue that starts here, or ("", 1)."""
        for length in self.lexicon.cue_lengths.get(self.words[start], ()):
            cue = tuple(self.words[start : start + length])
            meaning = self.lexicon.cues.get(cue)
            if meaning:
                # Not `length`: the sentence may end before it.
                return meaning, len(cue)
        return "", 1

    def _apply_cue(self, cue: str, start: int, length: int) -> None:
        if cue in _TURNED_BACK and self._ends_its_clause(start, start + length):
            cue = _TURNED_BACK[cue]
            self._start_clause_after_last_comma(start)
        if cue == "breaker":
            self.scope = PRESENT
            self._start_clause(start + 1)
        elif cue in _BACKWARD:
            self._reach_back(cue, start)
        elif cue == "negation.itself":
            self.assertions[start : start + length] = [ABSENT] * length
            # "No effusion, no change in the edema": what has a course is there.
            self.scope = PRESENT
        elif cue in _FORWARD and self.scope != ABSENT:
            # "No signs to suggest pneumonia": a doubt inside a denial does not end the denial.
            self.scope = _FORWARD[cue]
            self.is_near = cue == "negation.near"

    def _ends_its_clause(self, start: int, end: int) -> bool:
        """Return whether a forward cue has nothing after it, so that it reaches back instead.

        Examples: "effusion: no", "pneumonia is suspected".
        """
        if end < len(self.words) and self.words[end] not in _CLAUSE_ENDS:
            return False
        if start == 0:
            return False
        return bool(self.kinds[start - 1]) or self.words[start - 1] in _VERBS

    def _reach_back(self, cue: str, end: int) -> None:
        """Give the clause before a backward cue its assertion: "the edema has resolved"."""
        clause = slice(self.clause_start, end)
        # A tube whose tip is not seen is still there.
        if cue == "negation.after" and not _TIPS.isdisjoint(self.words[clause]):
            return
        self.assertions[clause] = [_BACKWARD[cue]] * (end - self.clause_start)

    def _pass_word(self, i: int) -> None:
        """Update the state at a word that is part of no cue."""
        word = self.words[i]
        if word in _VERBS:
            self.clause_has_verb = True
        elif word in _JOINTS:
            if self._scope_ends_at(i):
                self.scope = PRESENT
            if self.clause_has_verb:
                self._start_clause(i + 1)
        elif self.scope == ABSENT and self.kinds[i] == STATE and self.words[i - 1] != "not":
            # "No pneumothorax heart size normal": a state describes something that is there.
            # After "not" it is the state itself that is denied ("not normal").
            self.scope = PRESENT

    def _scope_ends_at(self, joint: int) -> bool:
        """Return whether an open scope ends at this comma, "and" or "with"."""
        if self.scope == PRESENT:
            return False
        if self.is_near and self.words[joint] in _NEAR_ENDS:
            return True
        return self._new_fact_begins(joint + 1)

    def _new_fact_begins(self, start: int) -> bool:
        """Return whether the words from ``start`` are a new statement, not one more list item.

        Three signs are known: "and there is ..."; a degree after a denial ("no pneumothorax, mild
        edema"), unless an "or" follows ("no consolidation, small effusion, or pneumothorax"); a
        clause with a verb of its own.
        """
        following = self.words[start:]
        if not following:
            return False
        if following[0] == "there":
            return True
        if self.scope == ABSENT and following[0] in self.lexicon.affirming:
            return CHOICE.isdisjoint(following) or self._is_clause(start)
        return self._is_clause(start)

    def _is_clause(self, start: int) -> bool:
        """Return whether a subject with its verb or state begins at ``start``.

        Examples: "... and the heart is normal", "... and the effusions are unchanged". But "no
        pneumothorax and effusion is seen" goes on with the denial: being seen is no new fact.
        """
        has_anatomy = False
        for i in range(start, len(self.words)):
            word = self.words[i]
            kind = self.kinds[i]
            # Another joint comes first: what stood before it was one more item of the list.
            if word in _NEGATED_LISTS:
                return False
            if kind == OBSERVATION:
                return self._has_predicate(i)
            if has_anatomy and (kind == STATE or (word in _VERBS and not self._is_seen(i + 1))):
                return True
            has_anatomy = has_anatomy or kind == ANATOMY
        return False

    def _is_seen(self, i: int) -> bool:
        """Return whether the sentence ends here or goes on with "seen" and the like."""
        return i >= len(self.words) or self.words[i] in _SEEN

    def _has_predicate(self, observation: int) -> bool:
        """Return whether a verb and a state or modifier follow: "effusions are unchanged"."""
        verb = observation + 1
        predicate = observation + 2
        if predicate >= len(self.words) or self.words[verb] not in _VERBS:
            return False
        return self.kinds[predicate] in (STATE, MODIFIER)

    def _start_clause(self, start: int) -> None:
        self.clause_start = start
        self.clause_has_verb = False

    def _start_clause_after_last_comma(self, end: int) -> None:
        """Limit a turned cue to its own list item: "atelectasis, edema difficult to exclude"."""
        for i in range(self.clause_start, end):
            if self.words[i] == ",":
                self.clause_start = i + 1


def _doubt_choices(words: list[str], kinds: list[str], assertions: list[int]) -> None:
    """Make both findings of a choice uncertain: "scarring or atelectasis". Denied ones stay so."""
    for i, word in enumerate(words):
        if word not in CHOICE or assertions[i] == ABSENT:
            continue
        before = _entity_run(words, kinds, i - 1, -1)
        after = _entity_run(words, kinds, i + 1, 1)
        if _has_observation(before, kinds) and _has_observation(after, kinds):
            for j in (*before, *after):
                if assertions[j] == PRESENT:
                    assertions[j] = UNCERTAIN


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
