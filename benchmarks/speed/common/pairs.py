"""Measure contenders in turns and report ratios.

The order alternates, so that a busy machine slows all alike.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Median and range of repeated measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Return the spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g})"


def measure_in_turns(
    contenders: Mapping[str, Callable[[], float]], rounds: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Return what each contender returns, ``rounds`` values each.

    Every second round runs in reverse order. The first ``warmup`` rounds are thrown away.
    """
    names = list(contenders)
    values: dict[str, list[float]] = {name: [] for name in names}
    for number in range(warmup + rounds):
        for name in names if number % 2 == 0 else reversed(names):
            value = contenders[name]()
            if number >= warmup:
                values[name].append(value)
                print(f"round {number - warmup + 1}: {name} {value:.4g}", flush=True)
    return values


def ratio(values: Mapping[str, list[float]], above: str, below: str) -> Spread:
    """Return the spread of ``above / below``, round by round."""
    return Spread.of([a / b for a, b in zip(values[above], values[below], strict=True)])


def verdict(
    what: str, found: float, *, at_least: float | None = None, at_most: float | None = None
) -> str:
    """Return one line with what was found and its target; give one of the two bounds."""
    low = at_least if at_least is not None else -float("inf")
    high = at_most if at_most is not None else float("inf")
    target = f">= {at_least:g}" if at_least is not None else f"<= {at_most:g}"
    return f"{what}: {found:.3g}, target {target}: {'met' if low <= found <= high else 'NOT met'}"
