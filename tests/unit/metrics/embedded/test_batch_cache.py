"""The LRU cache computes each miss once, in batches, and keeps what was used last."""

from __future__ import annotations

from lmrrg.metrics.embedded.batch_cache import BatchCache, in_batches


def counting(capacity: int, batch_size: int) -> tuple[BatchCache[int], list[list[str]]]:
    """Return a cache of the lengths of texts, and the batches that it had to compute."""
    computed: list[list[str]] = []

    def lengths(texts: list[str]) -> list[int]:
        computed.append(texts)
        return [len(text) for text in texts]

    return BatchCache(lengths, capacity, batch_size), computed


def test_every_text_is_computed_once_and_in_batches() -> None:
    lengths, computed = counting(capacity=9, batch_size=2)
    assert lengths(["a", "bb", "a", "ccc", ""]) == {"a": 1, "bb": 2, "ccc": 3, "": 0}
    assert lengths(["ccc", "dddd", ""]) == {"ccc": 3, "dddd": 4, "": 0}
    assert computed == [["a", "bb"], ["ccc", ""], ["dddd"]]


def test_only_the_last_used_results_are_kept() -> None:
    lengths, computed = counting(capacity=2, batch_size=9)
    for texts in (["a", "b"], ["a"], ["c"], ["a", "c"], ["b"]):
        assert lengths(texts) == dict.fromkeys(texts, 1)
    assert computed == [["a", "b"], ["c"], ["b"]]


def test_more_texts_than_the_capacity_are_all_returned() -> None:
    lengths, _ = counting(capacity=1, batch_size=2)
    assert lengths(["a", "bb", "ccc"]) == {"a": 1, "bb": 2, "ccc": 3}


def test_nothing_is_cached_after_a_clear() -> None:
    lengths, computed = counting(capacity=9, batch_size=9)
    for _ in range(2):
        lengths(["a"])
        lengths.cache_clear()
    assert computed == [["a"], ["a"]]


def test_in_batches() -> None:
    assert list(in_batches([1, 2, 3], 2)) == [[1, 2], [3]]
    assert list(in_batches([], 2)) == []
