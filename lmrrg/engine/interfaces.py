"""What goes into the engine and what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lmrrg.errors import CodedError
from lmrrg.vision.study_features import StudyFeatures

if TYPE_CHECKING:
    pass


class EngineError(CodedError):
    """Input or weights that the engine refuses before vLLM sees them."""


@dataclass(frozen=True)
class GeneratedReport:
    """One sampled report.

    ``token_ids`` include EOS where it was produced; ``logprobs`` are those of the sampled tokens, in nats, at
    temperature 1 whatever temperature they were sampled with; ``text`` is decoded without special tokens;
    ``finished`` is False for a report that was cut at ``max_new_tokens``.
    """

    token_ids: list[int]
    logprobs: list[float]
    text: str
    finished: bool


class SelectableFeatures(Protocol):
    """Features of studies, in memory (:class:`StudyFeatures`) or read from the cache when they are asked for."""

    def __len__(self) -> int: ...

    def select(self, index: Sequence[int]) -> StudyFeatures: ...
