"""Cut text that runs on without stops where a new sentence must begin (ours).

"The lungs are clear there is no effusion the heart is enlarged" is read as three sentences.
Otherwise a report without stops would be one claim with everything in it, and what it invents
would be blurred.
"""

from __future__ import annotations

from lmrrg.metrics.embedded.lexicon import DEVICE, MODIFIER, OBSERVATION, STATE, graph_lexicon
from lmrrg.metrics.embedded.reading.function_words import BE, SEEN, VERBS

_LONGEST = 70
"""Letters; a shorter sentence is not looked at."""
_LEAST_WORDS = 3
"""Words of a sentence that may be cut off."""
_ENDS = frozenset([OBSERVATION, DEVICE, STATE, MODIFIER])
"""Classes of words after which a sentence may be over."""
_LAST = SEEN | {"limits", "lungs", "lung", "chest"}
"""Other words with which a sentence often ends."""
_FIRST = frozenset(["the", "no"])
"""Words that begin a sentence after one that is over."""
_ORGANS = frozenset(["heart", "lungs", "cardiac", "mediastinum", "mediastinal", "bones", "osseous"])
"""Organs with which a sentence begins without "the", after a state."""


def cut_run_on(sentences: list[str]) -> list[str]:
    """Return the sentences, the long ones cut wherever a new one begins.

    >>> text = "the lungs are clear there is no edema no nodule is seen the bony thorax is intact"
    >>> cut_run_on([text])
    ['the lungs are clear', 'there is no edema', 'no nodule is seen', 'the bony thorax is intact']
    """
    if max(map(len, sentences), default=0) < _LONGEST:
        return sentences
    cut: list[str] = []
    for sentence in sentences:
        cut += [sentence] if len(sentence) < _LONGEST else _cut(sentence)
    return cut


def _cut(sentence: str) -> list[str]:
    words = sentence.split()
    starts = [0]
    for i in range(_LEAST_WORDS, len(words) - 1):
        # A shorter part is no sentence.
        if i - starts[-1] >= 2 and _begins(words, i):
            starts.append(i)
    ends = [*starts[1:], len(words)]
    return [" ".join(words[start:end]) for start, end in zip(starts, ends, strict=True)]


def _begins(words: list[str], i: int) -> bool:
    """Return whether a sentence begins at word ``i`` although no stop stands before it."""
    before = words[i - 1]
    kind = graph_lexicon().kind
    is_over = kind.get(before) in _ENDS or before in _LAST
    if words[i] == "there" and words[i + 1] in BE:
        # "If there is", "that there is", "and there is" go on.
        return is_over
    if words[i] in _FIRST:
        return is_over
    # "Lungs are clear heart size ...", but not "stable heart size".
    is_told = kind.get(before) == STATE or before in SEEN
    return words[i] in _ORGANS and is_told and words[i - 2] in VERBS
