"""A memory of results that computes many new ones together (ours)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Remembered(Generic[Result]):
    """``functools.lru_cache`` for a function of many texts, which takes each of its steps for all of them in turn.

    One text after the other, every step would find the processor's caches full of the other steps' code and tables.
    """

    def __init__(self, compute: Callable[[list[str]], list[Result]], most: int, at_once: int):
        self._compute, self._most, self._at_once = compute, most, at_once
        self._known: OrderedDict[str, Result] = OrderedDict()

    def __call__(self, texts: Iterable[str]) -> dict[str, Result]:
        """Text -> its result; ``at_once`` new ones are computed together, the last ``most`` asked for are kept."""
        asked, known = dict.fromkeys(texts), self._known
        found = {text: result for text in asked if (result := known.pop(text, None)) is not None}
        for new in portions([text for text in asked if text not in found], self._at_once):
            found.update(zip(new, self._compute(new), strict=True))
        known.update(found)
        while len(known) > self._most:
            known.popitem(last=False)
        return found

    def cache_clear(self) -> None:
        """Forget everything."""
        self._known.clear()


def portions(items: list[Item], size: int) -> Iterator[list[Item]]:
    """The items in lists of ``size``; the last may be shorter."""
    return (items[start : start + size] for start in range(0, len(items), size))
