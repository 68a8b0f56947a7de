"""Find the cues of a sentence, and what each means where it stands (ours).

The cues are listed in ``lexicons/cues.yaml``; how far each reaches is in
:mod:`lmrrg.metrics.embedded.reading.scopes`.
"""

from __future__ import annotations

from lmrrg.metrics.embedded.lexicon import (
    ANATOMY,
    DEVICE,
    MODIFIER,
    OBSERVATION,
    STATE,
    GraphLexicon,
)
from lmrrg.metrics.embedded.reading.function_words import BE, JOINTS, VERBS

TURNING = VERBS | JOINTS
_CLAUSE_ENDS = frozenset([",", "given"])
"""Words after a forward cue that, like the sentence's end, leave no word for it to reach."""
FACTS = frozenset([OBSERVATION, DEVICE])
"""Classes of words that a negation is about."""
_TURNED_BACK = {
    name: name.replace("before", "after") for name in ("negation.before", "uncertainty.before")
}
_AT_THE_EDGE = frozenset(["request.opening", "request.closing"])
_ALONE = [1]
_PAST_ENDS = frozenset([",", "with"])
"""Words after which a disease of the past is no longer meant."""
_COMPARING = frozenset(
    [
        "as",
        "than",
        "to",
        "again",
        "unchanged",
        "stable",
        "compared",
        "like",
        "similar",
        "since",
        "from",
    ]
) | {"also", "not", "still", "now", "known", "correlates"}
"""Words that tie what another study shows to this one."""
_TOLD = frozenset([STATE, MODIFIER])
"""Classes of words that say how something is."""
ARTICLES = frozenset(["a", "an", "the"])


class CueReader:
    """A sentence, and the clause of it that is being read."""

    def __init__(self, words: list[str], kinds: list[str], lexicon: GraphLexicon):
        self.words = words
        self.kinds = kinds
        self.lexicon = lexicon
        self.clause_start = 0
        """Index of the first word that a backward cue reaches."""

    def cue_at(self, start: int) -> tuple[str, int]:
        """Return the meaning and length of the longest cue that starts here, or ("", 1)."""
        words = self.words
        lengths = self.lexicon.cue_lengths[words[start]]
        if tuple(words[start : start + 2]) not in self.lexicon.cue_pairs:
            lengths = _ALONE
        for length in lengths:
            cue = tuple(words[start : start + length])
            meaning = self.lexicon.cues.get(cue)
            if meaning:
                # Not `length`: the sentence may end before it.
                return meaning, len(cue)
        return "", 1

    def meaning_here(self, cue: str, start: int, end: int) -> str:
        """Return what a cue with several meanings means where it stands; "neutral" for nothing."""
        if cue == "negation.around" and self._is_said_before(start, end):
            cue = "negation.after"
        if cue in _AT_THE_EDGE:
            return self._request_here(cue, start, end)
        if cue == "negation.answer":
            return cue if self._answers(start, end) else "neutral"
        if cue == "negation.sign":
            return self._sign_here(start, end)
        if cue == "request.past":
            return self._past_here(start, end)
        if cue == "request.elsewhere":
            return self._elsewhere_here(start, end)
        if cue == "negation.course":
            # "No enlargement of the nodule" leaves a nodule, "of the heart" denies what it names.
            is_known = self.names_fact(end, self.clause_end(end))
            return "negation.itself" if is_known else "negation.before"
        if cue == "negation.after" and self.words[end : end + 1] and self.words[end][0].isdigit():
            return "neutral"  # "the tube was withdrawn 2 cm": moved
        if cue in _TURNED_BACK and self._ends_its_clause(start, end):
            return _TURNED_BACK[cue]
        return cue

    def _sign_here(self, start: int, end: int) -> str:
        """Return what "negative" means in "effusion: negative", "neg effusion", "neg chest"."""
        if self._answers(start, end):
            return "negation.answer"
        item_end = end
        while item_end < len(self.words) and self.words[item_end] not in TURNING:
            item_end += 1
        return "negation.before" if self.names_fact(end, item_end) else "neutral"

    def _past_here(self, start: int, end: int) -> str:
        """Return what a disease of the past means: nothing, unless words say how it is now.

        "Status post pneumonia" is the patient's history, "prior effusion has resolved" is not.
        """
        last = end
        while last < len(self.words) and self.words[last] not in _PAST_ENDS:
            last += 1
        rest = self.words[end:last]
        is_told = not VERBS.isdisjoint(rest) or not _TOLD.isdisjoint(self.kinds[end:last])
        if is_told or any(self._starts_cue(i) for i in range(end, last)):
            return "breaker" if self.words[start + 1] == "post" else "neutral"
        is_first = start == self.clause_start or self.words[start + 1] == "post"
        return "request.near" if is_first else "neutral"

    def _starts_cue(self, i: int) -> bool:
        """Return whether a cue about the present starts here."""
        if self.words[i] not in self.lexicon.cue_lengths:
            return False
        return self.cue_at(i)[0] not in ("", "request.elsewhere")

    def _elsewhere_here(self, start: int, end: int) -> str:
        """Return what another study means: "pneumonia on prior CT" does not speak of this one."""
        before = self.words[:start]
        is_alone = TURNING.isdisjoint(before) and _COMPARING.isdisjoint(before)
        is_last = end == len(self.words) or self.words[end].isdigit()
        return "request.after" if start and is_alone and is_last else "neutral"

    def _request_here(self, cue: str, start: int, end: int) -> str:
        """Return what a request means that is one only where a sentence starts or ends."""
        if start == 0 or (start == 1 and self.words[0] in ARTICLES):
            return "request.before" if cue == "request.opening" else "neutral"
        # "Pneumonia follow up": a mere name before.
        is_request = end == len(self.words) and TURNING.isdisjoint(self.words[:start])
        return "request.after" if is_request else "neutral"

    def _is_said_before(self, start: int, end: int) -> bool:
        """Return whether "resolved" or the like speaks of what stands before it."""
        item = self.item_start(start)
        if self.names_fact(item, start):
            return True
        # "Chest drain, lung re-expanded": an organ of its own, not the drain.
        if item > self.clause_start and ANATOMY in self.kinds[item:start]:
            return False
        # "Pleural effusion, now resolved": nothing follows.
        return start > 0 and not self.names_fact(end, self.clause_end(end))

    def names_fact(self, start: int, end: int) -> bool:
        """Return whether one of these words is a finding or a device."""
        return not FACTS.isdisjoint(self.kinds[start:end])

    def item_start(self, end: int) -> int:
        """Return where the last item of the clause before ``end`` starts."""
        for i in range(end - 1, self.clause_start - 1, -1):
            if self.words[i] in JOINTS:
                return i + 1
        return self.clause_start

    def clause_end(self, start: int) -> int:
        """Return the index of the comma that follows, or the sentence's length."""
        for i in range(start, len(self.words)):
            if self.words[i] == ",":
                return i
        return len(self.words)

    def _answers(self, start: int, end: int) -> bool:
        """Return whether "none" or the like ends its clause right after a finding or its verb."""
        if start == 0 or self.words[end : end + 1] not in ([], [","]):
            return False
        subject = start - 2 if self.words[start - 1] in BE else start - 1
        return subject >= 0 and self.kinds[subject] in FACTS

    def _ends_its_clause(self, start: int, end: int) -> bool:
        """Return whether a forward cue has nothing after it, so that it reaches back instead.

        Examples: "effusion: no", "pneumonia is suspected".
        """
        if end < len(self.words) and self.words[end] not in _CLAUSE_ENDS:
            return False
        if start == 0:
            return False
        return bool(self.kinds[start - 1]) or self.words[start - 1] in VERBS
