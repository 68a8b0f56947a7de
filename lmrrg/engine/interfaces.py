"""Define what goes into the engine and what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lmrrg.errors import CodedError
from lmrrg.vision.study_features import StudyFeatures


class EngineError(CodedError):
    """The engine refuses input or weights before vLLM sees them."""


@dataclass(frozen=True)
class GeneratedReport:
    """One sampled report."""

    token_ids: list[int]
    """With EOS where it was produced."""
    logprobs: list[float]
    """Of the sampled tokens, in nats, at temperature 1 whatever they were sampled with."""
    text: str
    """Decoded without special tokens."""
    finished: bool
    """False for a report that was cut at ``max_new_tokens``."""


class SelectableFeatures(Protocol):
    """Features of studies: in memory (:class:`StudyFeatures`), or read from the cache by batch."""

    def __len__(self) -> int: ...

    def select(self, index: Sequence[int]) -> StudyFeatures: ...
