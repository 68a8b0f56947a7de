from __future__ import annotations

from lmrrg.metrics.embedded.batch_cache import Remembered, portions


def counting(most: int, at_once: int) -> tuple[Remembered[int], list[list[str]]]:
    """A memory of the lengths of texts, and the lists of texts that it had to compute."""
    computed: list[list[str]] = []

    def lengths(texts: list[str]) -> list[int]:
        computed.append(texts)
        return [len(text) for text in texts]

    return Remembered(lengths, most, at_once), computed


def test_every_text_is_computed_once_and_in_portions() -> None:
    lengths, computed = counting(most=9, at_once=2)
    assert lengths(["a", "bb", "a", "ccc", ""]) == {"a": 1, "bb": 2, "ccc": 3, "": 0}
    assert lengths(["ccc", "dddd", ""]) == {"ccc": 3, "dddd": 4, "": 0}
    assert computed == [["a", "bb"], ["ccc", ""], ["dddd"]]


def test_only_those_asked_for_last_are_kept() -> None:
    lengths, computed = counting(most=2, at_once=9)
    for texts in (["a", "b"], ["a"], ["c"], ["a", "c"], ["b"]):
        assert lengths(texts) == dict.fromkeys(texts, 1)
    assert computed == [["a", "b"], ["c"], ["b"]]


def test_more_than_are_kept_are_found_all_the_same() -> None:
    lengths, _ = counting(most=1, at_once=2)
    assert lengths(["a", "bb", "ccc"]) == {"a": 1, "bb": 2, "ccc": 3}


def test_nothing_is_remembered_once_cleared() -> None:
    lengths, computed = counting(most=9, at_once=9)
    for _ in range(2):
        lengths(["a"])
        lengths.cache_clear()
    assert computed == [["a"], ["a"]]


def test_portions() -> None:
    assert list(portions([1, 2, 3], 2)) == [[1, 2], [3]]
    assert list(portions([], 2)) == []
