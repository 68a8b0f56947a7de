"""The interfaces of backends, labelers and functions of somebody's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from lmrrg.metrics.parts import Parts

Labels = Mapping[str, int]
"""The classes that a report mentions: 1 positive, 0 negative, -1 uncertain."""


class PairScorer(Protocol):
    """A reward or a metric of somebody's own: ``reward.function``, ``evaluation.extra_metrics``."""

    def __call__(self, hypotheses: list[str], references: list[str]) -> Sequence[float]:
        """Return one number for each of N pairs; NaN for one that cannot be scored."""


class Labeler(Protocol):
    """Reads the 14 classes from reports."""

    @property
    def name(self) -> str:
        """Return the name that a results file gives it."""

    def label(self, reports: Sequence[str]) -> Sequence[Labels]:
        """Return 1, 0 or -1 for each class that a report mentions."""


class Backend(Protocol):
    """Computes :class:`Parts` of report pairs."""

    @property
    def name(self) -> str:
        """Return what its score may be called.

        It is "radcliq" with the published weights and "radcliq-embedded" with the rules.
        """

    @property
    def version(self) -> str:
        """Return a version that changes whenever a score can change.

        It is part of every results file and of every cache key.
        """

    @property
    def labeler(self) -> Labeler:
        """Return the labeler of the 14 classes: the published CheXbert, or the rules."""

    def score(self, hypotheses: Sequence[str], references: Sequence[str]) -> Parts:
        """Score N pairs; a pair that cannot be scored is NaN in every field."""
