"""A fault of a report, and the words that repair it when they are left out."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

FaultKind = Literal["contradicted", "exclusive", "stated_twice", "impossible", "repeated"]
FAULT_KINDS: tuple[FaultKind, ...] = get_args(FaultKind)
"""The kinds of faults.

- contradicted: a finding is both stated and denied;
- exclusive: it has two severities, or sides, that exclude each other;
- stated_twice: it is stated again, with the same side;
- impossible: a device in an effusion, a left middle lobe;
- repeated: a sentence, or a run of words, comes again and adds nothing.
"""


class Cut(NamedTuple):
    """The words ``start`` to ``end`` (exclusive) of a sentence, which a repair leaves out."""

    sentence: int
    start: int
    end: int


class Fault(NamedTuple):
    """One fault of a report."""

    kind: FaultKind
    finding: str
    """The finding that it is about; "" for a repeated sentence."""
    cuts: tuple[Cut, ...]
    """Each of them repairs the fault."""
