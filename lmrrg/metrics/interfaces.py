"""What a backend and a labeler must offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from lmrrg.metrics.parts import Parts

Labels = Mapping[str, int]


class Labeler(Protocol):
    """Reads the 14 classes from reports."""

    @property
    def name(self) -> str:
        """What a results file calls it."""

    def label(self, reports: Sequence[str]) -> Sequence[Labels]:
        """1, 0 or -1 for each class that a report mentions."""


class Backend(Protocol):
    """Computes :class:`Parts` of report pairs."""

    @property
    def name(self) -> str:
        """What its score may be called: "radcliq" with the published weights, "radcliq-embedded" with the rules."""

    @property
    def version(self) -> str:
        """Changes whenever a score can change; part of every results file and cache key."""

    @property
    def labeler(self) -> Labeler:
        """Who reads the 14 classes: the published CheXbert, or the rules."""

    def score(self, hypotheses: Sequence[str], references: Sequence[str]) -> Parts:
        """Score N pairs; a pair that cannot be scored is NaN in every field."""
