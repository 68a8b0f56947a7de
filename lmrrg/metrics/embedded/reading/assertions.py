"""What a cue makes of the words that it reaches."""

from __future__ import annotations

# The assertion of a word. PRESENT is 0 (false) and the default: no cue reaches the word.
PRESENT = 0
ABSENT = 1
UNCERTAIN = 2
ASKED = 3
"""The words of a request, which are dropped."""

FORWARD = {
    "negation.before": ABSENT,
    "negation.near": ABSENT,
    "negation.around": ABSENT,
    "uncertainty.before": UNCERTAIN,
    "request.before": ASKED,
    "request.near": ASKED,
}
"""Cue that stands before its finding -> assertion that it gives."""
BACKWARD = {
    "negation.after": ABSENT,
    "negation.answer": ABSENT,
    "uncertainty.after": UNCERTAIN,
    "request.after": ASKED,
}
"""Cue that stands after its finding -> assertion that it gives."""
