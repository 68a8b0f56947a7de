"""Split a report into sentences, and read each word as asserted, denied or uncertain (ours).

How far a negation reaches is in :mod:`lmrrg.metrics.embedded.reading.scopes`, which forms a report
may have in :mod:`lmrrg.metrics.embedded.reading.layout`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import repeat
from typing import NamedTuple

from lmrrg.metrics.embedded.batch_cache import SENTENCE_BATCH
from lmrrg.metrics.embedded.lexicon import graph_lexicon
from lmrrg.metrics.embedded.reading.assertions import ABSENT as ABSENT
from lmrrg.metrics.embedded.reading.assertions import ASKED
from lmrrg.metrics.embedded.reading.assertions import PRESENT as PRESENT
from lmrrg.metrics.embedded.reading.assertions import UNCERTAIN as UNCERTAIN
from lmrrg.metrics.embedded.reading.choices import doubt_choices
from lmrrg.metrics.embedded.reading.ellipsis import with_names
from lmrrg.metrics.embedded.reading.layout import join_cut_short, plain_prose, without_heading
from lmrrg.metrics.embedded.reading.run_on import cut_run_on
from lmrrg.metrics.embedded.reading.scopes import CHOICE, read_scopes

_SENTENCE_END = re.compile(r"\.(?!\d)|[;!?]")
"""A full stop that is no decimal point, and other marks."""
_ASIDE = re.compile(
    r"[;.] *(?=(?:(?:a|an|one|small|tiny|trace|mild|minimal|moderate|large|present|seen) )+"
    r"(?:on|in|at) (?:the )?(?:left|right)(?:$|[.;,]))"
)
"""A stop before the place of what the sentence before names: "; a small one on the left"."""
_OTHER_SIDE = re.compile(
    r"[;.] *(?=the (?:left|right) (?:is|was) (?:tiny|trace|small|moderate|large|smaller|larger)\b)"
)
"""A stop before the other side of what the sentence before names: ". The left is small"."""
_ANSWER = re.compile(r"[.;,] *(?=none(?:(?: is| was| are)? [a-z]+)?(?:$|[.;,]))")
"""A mark before the answer to the words before it: "suspected fracture; none seen"."""
_DIGIT = re.compile(r"\d")
_WORD = re.compile(r"\d+(?:\.\d+)?|[a-z]+(?:\d+)?(?:'[a-z]+)?|,")


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

    Prose, lists, one sentence a line and all that :mod:`lmrrg.metrics.embedded.layout` knows are
    read alike.

    >>> sentences_of("Heart size is 5.5 cm. No effusion; lungs are clear.")
    ['heart size is 5.5 cm', 'no effusion', 'lungs are clear']
    >>> sentences_of("1. No pneumothorax\\n2. Mild edema")
    ['no pneumothorax', 'mild edema']
    """
    text = plain_prose(text)
    if ";" in text or " one " in text or "none" in text:
        text = _ANSWER.sub(" ", _ASIDE.sub(", ", text))
    if " left is " in text or " right is " in text:
        text = _OTHER_SIDE.sub(", ", text)
    if _DIGIT.search(text):
        parts = _SENTENCE_END.split(text)
    else:
        # Without a number every stop ends a sentence; this way is much faster.
        parts = text.replace(";", ".").replace("!", ".").replace("?", ".").split(".")
    parts = cut_run_on(join_cut_short(parts))
    if ":" in text:
        parts = [without_heading(part.strip()) for part in parts]
    # The number of a list item is no sentence.
    return [part for part in map(str.strip, parts) if part and not part.isdigit()]


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
    if "left" in words and "right" in words:
        words = with_names(words, lexicon)
    kinds = list(map(lexicon.kind.get, words, repeat("")))
    # Most sentences hold no cue, and most no choice: both passes are skipped for them.
    if lexicon.cue_lengths.keys().isdisjoint(words):
        assertions = [PRESENT] * len(words)
    else:
        assertions = read_scopes(words, kinds, lexicon)
        if ASKED in assertions:
            words, kinds, assertions = _without_requests(words, kinds, assertions)
    if not CHOICE.isdisjoint(words):
        doubt_choices(words, kinds, assertions)
    return Sentence(tuple(words), tuple(kinds), tuple(assertions))


def _without_requests(
    words: list[str], kinds: list[str], assertions: list[int]
) -> tuple[list[str], list[str], list[int]]:
    """Return the three lists without the words of requests."""
    kept = [i for i, assertion in enumerate(assertions) if assertion != ASKED]
    return [words[i] for i in kept], [kinds[i] for i in kept], [assertions[i] for i in kept]
