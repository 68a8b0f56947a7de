"""Decide whether the rules can read a text: they know English reports of the chest only (ours)."""

from __future__ import annotations

import re
from functools import cache

from lmrrg.metrics.embedded.lexicon import graph_lexicon

_WORD = re.compile(r"[^\W\d_]+")
# Other languages share the Latin words with English ("pleural", "normal", "pneumothorax"), so one
# known word is not enough. Of 5,977 findings and impressions in IU X-ray the lexicon knows at least
# 40% of the words; of German, Dutch and Romance reports at most a third.
_LEAST_KNOWN = 0.35
# Words of ordinary English that the lexicon leaves out because they carry no finding. Those that
# are words of another European language, too, ("in", "no", "on") are not among them.
_ENGLISH = """
and are as at be been both but by can could did does each for from had has have if is it its may
might of or patient please should some such than that the their then there these they this those
to upon was well were when where which while will with within without would you your
"""


def is_readable(text: str) -> bool:
    """Return whether a text has a known word of the chest, and enough known words around it.

    >>> is_readable("Small left effusion."), is_readable("Derrame pleural izquierdo.")
    (True, False)
    """
    words = _WORD.findall(text.lower())
    if not any(word in graph_lexicon().kind for word in words):
        return False
    known = _known_words()
    return sum(word in known for word in words) >= _LEAST_KNOWN * len(words)


@cache
def _known_words() -> frozenset[str]:
    lexicon = graph_lexicon()
    cues = (word for cue in lexicon.cues for word in cue)
    return frozenset(
        [*lexicon.kind, *lexicon.glued, *lexicon.meaning, *lexicon.dull, *cues, *_ENGLISH.split()]
    )
