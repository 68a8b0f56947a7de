"""Words without a meaning of their own that tell where a clause starts and what it says (ours)."""

from __future__ import annotations

BE = frozenset(["is", "are", "was", "were", "be", "been"])
VERBS = BE | {"appear", "appears", "remain", "remains", "has", "have", "persists", "persist"}
PLURALS = frozenset(["are", "were", "have"])
SEEN = frozenset(["seen", "identified", "noted", "visualized", "demonstrated", "appreciated"]) | {
    "present",
    "evident",
    "detected",
}
JOINTS = frozenset([",", "and", "with"])
"""Words that may join a clause to the one before."""
