"""Find how far each cue of a sentence reaches: which words are denied, uncertain or asked for.

Ours: rules of the NegEx family. A *cue* is a phrase of ``lexicons/cues.yaml``, such as "no", "may
represent" or "is not seen". Its *scope* is the run of words that it denies, makes uncertain or
takes out of the report:

- a *forward* cue (``before`` and ``near`` in the lexicon: it stands before its finding) reaches to
  the end of its clause;
- a *backward* cue (``after``: it stands after its finding) reaches back to the start of its clause;
- ``around``: "resolved" and the like reach back where a finding stands before, else forward;
- ``itself``: the cue denies its own words alone ("no change");
- ``answer``: "none" and the like deny the finding right before ("effusion: none");
- a ``request`` ("evaluate for pneumonia", "if pneumonia is suspected") says nothing about the
  image: its words are dropped;
- ``neutral``: the words look like a cue and are none ("not only");
- a *breaker* ("but", "however") ends every scope and starts a clause.

To change what a phrase means, edit ``cues.yaml``. To change how far a scope reaches, edit
the rules below: each rule is one method with an example.
"""

from __future__ import annotations

from lmrrg.metrics.embedded.lexicon import (
    ANATOMY,
    DEVICE,
    LOCATION,
    MODIFIER,
    OBSERVATION,
    STATE,
    GraphLexicon,
)
from lmrrg.metrics.embedded.reading.assertions import ABSENT, ASKED, BACKWARD, FORWARD, PRESENT
from lmrrg.metrics.embedded.reading.cue_reader import ARTICLES, TURNING, CueReader
from lmrrg.metrics.embedded.reading.function_words import BE, JOINTS, PLURALS, SEEN, VERBS

_ENDABLE = (ABSENT, ASKED)
"""Scopes that other words than these may end."""
_NEAR_ENDS = frozenset([",", "with"])
"""Words that end the scope of a ``near`` cue in any case."""
_NEGATED_LISTS = frozenset([",", "and", "no", "without"])
"""Words that show that the words before them were one more item of a list."""
_REQUEST_ENDS = BE | {"because", "due", "secondary", "limited", "demonstrates", "reveals", "shows"}
"""Words that end a request once it has named something: "evaluation for edema is limited"."""
_TIPS = frozenset(["tip", "tips"])
_FILLERS = ARTICLES | {"and", "with"}
"""Words before the first that tells whether a new fact begins."""
_SUBORDINATE = frozenset(["although", "though", "while", "whereas", "despite", "rather", "instead"])
"""First words of a sentence whose main clause follows a comma."""
CHOICE = frozenset(["or", "versus", "vs"])
"""Words between two findings of which one is meant."""

_NEAR = frozenset(["negation.near", "negation.around", "request.near"])
_SHOWING = frozenset(["show", "shows", "contain", "contains", "demonstrate", "demonstrates"]) | {
    "reveal",
    "reveals",
    "exhibit",
    "exhibits",
}
"""Verbs of an organ that has a finding: "lungs show opacities"."""
_DISEASE_ENDS = frozenset(["resolved", "healed", "cleared", "subsided", "dissipated", "resorbed"])
"""What becomes of a finding and never of a device."""
_HEALED = "healed"
"""What has healed is gone, unless it is a bone."""


def read_scopes(words: list[str], kinds: list[str], lexicon: GraphLexicon) -> list[int]:
    """Return the assertion of every word: one of the constants above.

    Args:
        words, kinds: lower-case words of a sentence, and their classes.
        lexicon: the cues.
    """
    return _ScopeReader(words, kinds, lexicon).read()


class _ScopeReader(CueReader):
    """One pass over a sentence, from left to right, that gives every word its assertion."""

    def __init__(self, words: list[str], kinds: list[str], lexicon: GraphLexicon):
        super().__init__(words, kinds, lexicon)
        self.assertions = [PRESENT] * len(words)
        self.scope = PRESENT
        """Assertion that the open forward cue gives to the next words; PRESENT: none is open."""
        self.scope_start = 0
        """Index of the cue that opened the scope."""
        self.is_near = False
        """Whether the open cue is a ``near`` one, whose scope ends at the next comma or "with"."""
        self.subject_start = 0
        """Where the clause with the last subject starts: "the cavity closed and is not seen"."""
        self.clause_has_verb = False
        """Whether the clause has a verb; only after one does "and" or a comma end the clause."""

    def read(self) -> list[int]:
        """Return the assertion of every word."""
        words = self.words
        starts = self.lexicon.cue_lengths
        i = 0
        while i < len(words):
            word = words[i]
            # Most words start no cue and change nothing, so they are passed without a call.
            cue, length = self.cue_at(i) if word in starts else ("", 1)
            if cue:
                self._apply_cue(cue, i, length)
            elif word in TURNING or self.scope in _ENDABLE:
                self._pass_word(i)
            if self.scope != PRESENT:
                self.assertions[i : i + length] = [self.scope] * length
            i += length
        return self.assertions

    def _apply_cue(self, cue: str, start: int, length: int) -> None:
        cue = self.meaning_here(cue, start, start + length)
        if cue == "breaker":
            self.scope = PRESENT
            self._start_clause(start + length)
        elif cue in BACKWARD:
            self._reach_back(cue, start, start + length)
        elif cue == "negation.itself":
            self.assertions[start : start + length] = [ABSENT] * length
            # "No effusion, no change in the edema": what has a course is there.
            self.scope = PRESENT
        elif cue in FORWARD and self._may_open(cue, start):
            self.scope = FORWARD[cue]
            self.scope_start = start
            self.is_near = cue in _NEAR
        elif cue in FORWARD and self.scope == ABSENT and self.is_near:
            self.is_near = cue in _NEAR

    def _may_open(self, cue: str, start: int) -> bool:
        """Return whether a forward cue opens a scope here, rather than stand inside another.

        "No signs to suggest pneumonia" stays a denial, "no effusion, possible pneumonia" doubts;
        "screening for cancer, no nodule" denies.
        """
        if self.scope not in (ABSENT, ASKED):
            return True
        if self.words[start - 1] != ",":
            return False
        is_doubt = cue == "uncertainty.before" and CHOICE.isdisjoint(self.words[start:])
        return self.scope == ASKED or is_doubt

    def _reach_back(self, cue: str, start: int, end: int) -> None:
        """Give the clause before a backward cue its assertion: "the edema has resolved"."""
        clause_start = self._reach(cue, start, end)
        # A tube whose tip is not seen is still there.
        is_tip = not _TIPS.isdisjoint(self.words[clause_start:start])
        if cue == "negation.after" and (is_tip or self._is_healed_bone(clause_start, start, end)):
            return
        reached = BACKWARD[cue]
        is_disease = not _DISEASE_ENDS.isdisjoint(self.words[start:end])
        if reached == ASKED:
            self.assertions[start:end] = [ASKED] * (end - start)
        for i in range(clause_start, start):
            # "Rule out pneumonia: none seen": the answer is about what was asked for.
            if self.kinds[i] == DEVICE and is_disease:
                continue
            if self.assertions[i] != ASKED or (cue == "negation.answer" and self.kinds[i]):
                self.assertions[i] = reached

    def _is_meant(self, first: int, start: int, end: int) -> bool:
        """Return whether the words from ``first`` name what a backward cue may speak of."""
        if _DISEASE_ENDS.isdisjoint(self.words[start:end]):
            return self.names_fact(first, start)
        return OBSERVATION in self.kinds[first:start]

    def _is_healed_bone(self, clause_start: int, start: int, end: int) -> bool:
        """Return whether a cue says that a bone has healed: its fracture can still be seen."""
        if _HEALED not in self.words[start:end]:
            return False
        return not self.lexicon.skeletal.isdisjoint(self.words[clause_start:start])

    def _reach(self, cue: str, start: int, end: int) -> int:
        """Return the index of the first word that a backward cue reaches.

        A list goes together: "effusion, edema and nodule have resolved". Otherwise only the last
        item is meant: "chest tube, pneumothorax has resolved", "opacity, edema is not excluded".
        """
        words = self.words
        # "The cavity has closed and *is no longer seen*": the verb's subject stands before.
        if words[self.clause_start] in VERBS:
            return self.subject_start
        if not PLURALS.isdisjoint(words[start:end]) or words[start - 1] in PLURALS:
            return self.clause_start
        # "Cardiomegaly with edema resolved", but "opacity with effusion has resolved".
        has_verb = not VERBS.isdisjoint(words[start - 1 : end])
        last = start
        while last > self.clause_start and words[last - 1] != ",":
            if words[last - 1] == "with" and not has_verb:
                break
            last -= 1
        is_item = last > self.clause_start and self._is_meant(last, start, end)
        if not is_item or words[last] in ("and", "or"):
            return self.clause_start
        is_list = cue == "negation.after" and not CHOICE.isdisjoint(words[last:start])
        return self.clause_start if is_list else last

    def _pass_word(self, i: int) -> None:
        """Update the state at a word that is part of no cue."""
        word = self.words[i]
        if self.scope == ASKED and self._ends_request(i):
            self.scope = PRESENT
            self._start_clause(i)
        if word in VERBS:
            self.clause_has_verb = True
        elif word in JOINTS:
            if self._scope_ends_at(i):
                self.scope = PRESENT
            if self.clause_has_verb:
                self._start_clause(i + 1)
        elif self.scope == ABSENT and self.kinds[i] and self._begins_without_joint(i):
            self.scope = PRESENT
            self._start_clause(i)

    def _ends_request(self, i: int) -> bool:
        """Return whether a request ends here: "evaluation for edema *is* limited"."""
        return self.words[i] in _REQUEST_ENDS and any(self.kinds[self.scope_start : i])

    def _begins_without_joint(self, i: int) -> bool:
        """Return whether a new fact begins at a word without any joint before it.

        Examples: "no pneumothorax heart size normal", "no pneumothorax small left effusion".
        """
        before = self.words[i - 1]
        if self.kinds[i] == STATE:
            # A state describes something that is there; after "not" the state is denied itself.
            return before != "not"
        word = self.words[i]
        affirming = self.lexicon.affirming
        # "No pneumothorax large effusion" lost its "or": small ones are rarely denied.
        if self.kinds[i - 1] != OBSERVATION or word == "large" or word not in affirming:
            return False
        end = i
        while end < len(self.words) and self.kinds[end]:
            end += 1
        return self.names_fact(i, end) and CHOICE.isdisjoint(self.words[i:])

    def _scope_ends_at(self, joint: int) -> bool:
        """Return whether an open scope ends at this comma, "and" or "with"."""
        if self.scope == PRESENT:
            return False
        if self.is_near and self.words[joint] in _NEAR_ENDS:
            return True
        if self.words[joint : joint + 2] == [",", "with"]:
            return True
        return self._new_fact_begins(joint + 1)

    def _new_fact_begins(self, start: int) -> bool:
        """Return whether the words from ``start`` are a new statement, not one more list item.

        Six signs are known: "and there is ..."; "and show ..."; a comma after "no ... is seen"; a
        degree or side ("no pneumothorax, mild edema"), unless an "or" follows ("no consolidation,
        small effusion, or pneumothorax"); a device after a finding; a clause with its own verb.
        """
        while start < len(self.words) and self.words[start] in _FILLERS:
            start += 1
        following = self.words[start:]
        if not following:
            return False
        if self.words[0] in _SUBORDINATE and self.words[start - 1] == ",":
            return CHOICE.isdisjoint(following)
        if following[0] == "there" or following[0] in _SHOWING:
            return True
        is_list = not CHOICE.isdisjoint(following)
        if following[0] in self.lexicon.affirming and not self._is_sided_list(start):
            return not is_list or self._is_clause(start)
        if self.scope == ABSENT and not is_list and self._is_new_subject(start):
            return True
        return self._is_clause(start)

    def _is_sided_list(self, start: int) -> bool:
        """Return whether both items of a list have a side: "no right effusion, left effusion"."""
        if self.kinds[start] != LOCATION:
            return False
        return LOCATION in self.kinds[self.scope_start : start - 1]

    def _is_new_subject(self, start: int) -> bool:
        """Return whether a new subject follows a complete denial, or a device follows a finding."""
        if self.words[start - 1] == "," and self.words[start - 2] in SEEN:
            return self.words[start] not in self.lexicon.cue_lengths
        end = self.clause_end(start)
        denied = self.kinds[self.scope_start : start - 1]
        return DEVICE in self.kinds[start:end] and DEVICE not in denied

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
            if has_anatomy and (kind == STATE or (word in VERBS and not self._is_seen(i + 1))):
                return True
            if has_anatomy and word in _SHOWING:
                return True
            # "..., lungs hazy": an organ and its state end the clause.
            if has_anatomy and kind == MODIFIER and self.clause_end(i) == i + 1:
                return True
            has_anatomy = has_anatomy or kind == ANATOMY
        return False

    def _is_seen(self, i: int) -> bool:
        """Return whether the sentence ends here or goes on with "seen" and the like."""
        return i >= len(self.words) or self.words[i] in SEEN

    def _has_predicate(self, observation: int) -> bool:
        """Return whether a verb and a state or modifier follow: "effusions are unchanged"."""
        verb = observation + 1
        if self.words[verb : verb + 1] and self.words[verb] in SEEN:  # "effusion noted on the left"
            return verb + 1 < len(self.words)
        predicate = observation + 2
        if predicate >= len(self.words) or self.words[verb] not in VERBS:
            return False
        if self.words[predicate] in SEEN:
            # "... and effusion is seen" ends the list, "..., effusion is seen there" is new.
            return predicate + 1 < len(self.words)
        return self.kinds[predicate] in (STATE, MODIFIER)

    def _start_clause(self, start: int) -> None:
        if self.words[self.clause_start] not in VERBS:
            self.subject_start = self.clause_start
        self.clause_start = start
        self.clause_has_verb = False
