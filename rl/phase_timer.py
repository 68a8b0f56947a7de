"""Seconds of the phases of one PPO iteration."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")


class PhaseTimer:
    """Measure how long each phase of an iteration takes; a phase that runs twice is added up."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)

    def run(
        self, phase: str, work: Callable[_P, _R], *arguments: _P.args, **keywords: _P.kwargs
    ) -> _R:
        """Call ``work``, add its seconds to ``phase``, and return its result."""
        # Monotonic: the clock of day may be set back during a run of days.
        started = time.perf_counter()
        result = work(*arguments, **keywords)
        self._seconds[phase] += time.perf_counter() - started
        return result

    def metrics(self, tokens: float) -> dict[str, float]:
        """Return the seconds of every phase, their sum, and report tokens per second.

        Args:
            tokens: report tokens of the iteration. They are divided by the seconds of the phase
                ``sample``, and by those of the whole iteration.
        """
        # Not the time from start to end: metrics and logging between the phases are left out.
        total = sum(self._seconds.values())
        seconds = {f"{phase}_s": spent for phase, spent in self._seconds.items()}
        return seconds | {
            "iteration_s": total,
            "sampled_tokens_per_s": tokens / self._seconds["sample"],
            "tokens_per_s": tokens / total,
        }
