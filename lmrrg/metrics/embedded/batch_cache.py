"""Cache the results of a function of texts, and compute what is missing in batches (ours).

The sizes of the caches over sentences are here as well, because four modules share them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

CACHED_SENTENCES = 8192
"""Sentences whose final results a process keeps, since reports repeat sentences.

It bounds the memory of a reward worker.
"""
SENTENCE_BATCH = 512
"""Sentences that go through each step together.

The intermediate results of a step are kept for as many sentences and no more: the later steps of
the same batch ask for them again, nobody does afterwards.
"""


class BatchCache(Generic[Result]):
    """LRU cache that computes misses in batches.

    ``functools.lru_cache`` computes one text after the other. Here every step of the computation
    runs over a whole batch before the next step begins, which keeps the code and the tables of
    one step in the processor's caches.
    """

    def __init__(
        self, compute: Callable[[list[str]], list[Result]], capacity: int, batch_size: int
    ):
        self._compute = compute
        self._capacity = capacity
        self._batch_size = batch_size
        # Ordered by last use: the first entry is the one to drop.
        self._cached: OrderedDict[str, Result] = OrderedDict()

    def __call__(self, texts: Iterable[str]) -> dict[str, Result]:
        """Return text -> result for all texts; the ``capacity`` last used results are kept."""
        asked = dict.fromkeys(texts)
        results: dict[str, Result] = {}
        for text in asked:
            # Taken out here and put back below, at the end of the order of use.
            result = self._cached.pop(text, None)
            if result is not None:
                results[text] = result
        missing = [text for text in asked if text not in results]
        for batch in in_batches(missing, self._batch_size):
            results.update(zip(batch, self._compute(batch), strict=True))
        self._cached.update(results)
        while len(self._cached) > self._capacity:
            self._cached.popitem(last=False)
        return results

    def cache_clear(self) -> None:
        """Drop all results."""
        self._cached.clear()


def in_batches(items: list[Item], size: int) -> Iterator[list[Item]]:
    """Yield the items in lists of ``size``; the last list may be shorter.

    >>> list(in_batches([1, 2, 3, 4, 5], 2))
    [[1, 2], [3, 4], [5]]
    """
    return (items[start : start + size] for start in range(0, len(items), size))
