"""Test the bound of the feature cache: what is deleted, what stays, what is made anew."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from lmrrg.config.tree import Config
from lmrrg.studies import Study
from lmrrg.vision.cache import Entry, FeatureError, entry_path, make_room, touch, write_entry
from lmrrg.vision.files import FeatureFiles

SHAPE = (4, 8)
SIZE = 128 + 2 * 4 * 8
ZEROS = Entry(torch.zeros(SHAPE, dtype=torch.float16), None)


def fill(cache: Path, count: int) -> list[Path]:
    """Write entries of the same size, the first one longest unused."""
    entries = [entry_path(cache / "encoder", f"{i:02d}{'0' * 62}") for i in range(count)]
    for age, entry in enumerate(entries):
        write_entry(entry, ZEROS)
        assert entry.stat().st_size == SIZE
        os.utime(entry, (1e9 + age, 1e9 + age))
    return entries


def left(entries: list[Path]) -> list[int]:
    return [number for number, entry in enumerate(entries) if entry.is_file()]


def test_the_longest_unused_entries_make_room(tmp_path):
    entries = fill(tmp_path, 10)
    assert make_room(tmp_path, 2 * SIZE, 10 * SIZE, keep=()) == 2
    assert left(entries) == list(range(2, 10))


def test_use_counts_and_own_entries_stay(tmp_path):
    entries = fill(tmp_path, 10)
    assert touch([entries[1], tmp_path / "none.npy"]) == [tmp_path / "none.npy"]
    make_room(tmp_path, 0, 4 * SIZE, keep=[entries[0]])
    assert left(entries) == [0, 1, 8, 9]


def test_nothing_goes_while_there_is_room(tmp_path):
    entries = fill(tmp_path, 3)
    assert make_room(tmp_path, SIZE, 4 * SIZE, keep=()) == 0
    assert left(entries) == [0, 1, 2]


def test_a_run_larger_than_the_bound_is_refused_before_anything_is_deleted(tmp_path):
    entries = fill(tmp_path, 3)
    with pytest.raises(FeatureError, match="cache_too_small"):
        make_room(tmp_path, 2 * SIZE, 3 * SIZE, keep=entries[:2])
    assert left(entries) == [0, 1, 2]


def test_part_files_of_killed_writers_are_deleted_after_a_day(tmp_path):
    old, new = tmp_path / "old.part", tmp_path / "new.part"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 90_000,) * 2)
    make_room(tmp_path, 0, SIZE, keep=())
    assert not old.exists()
    assert new.exists()


def test_runs_that_make_room_at_once_do_not_disturb_each_other(tmp_path):
    entries = fill(tmp_path, 200)
    with ThreadPoolExecutor(4) as pool:
        deleted = list(pool.map(lambda _: make_room(tmp_path, 0, 50 * SIZE, keep=()), range(4)))
    assert max(deleted) <= 150
    assert left(entries)[-1] == 199
    assert len(left(entries)) <= 50


def test_an_entry_that_another_run_removed_is_made_anew(
    tiny_studies: list[Study], tiny_config: Config, tmp_path
):
    data = tiny_config.data.model_copy(update={"cache_dir": tmp_path})
    files = FeatureFiles(tiny_studies[:2], data, progress=False)
    before = files.select([0, 1])
    for entry in tmp_path.rglob("*.npy"):
        entry.unlink()
    torch.testing.assert_close(files.select([0, 1]).patches, before.patches, atol=2e-2, rtol=1e-2)


def test_the_setting_bounds_the_cache(tiny_studies: list[Study], tiny_config: Config, tmp_path):
    small = tiny_config.data.model_copy(update={"cache_dir": tmp_path, "cache_gb": 1e-6})
    with pytest.raises(FeatureError, match="cache_too_small"):
        FeatureFiles(tiny_studies[:2], small, progress=False)


def test_entries_that_the_same_run_reads_stay(
    tiny_studies: list[Study], tiny_config: Config, tmp_path
):
    first, second = tiny_studies[:3], tiny_studies[3:6]
    data = tiny_config.data.model_copy(update={"cache_dir": tmp_path})
    config = tiny_config.model_copy(update={"data": data})
    train = FeatureFiles(first, config.data, progress=False)
    entries = list(tmp_path.rglob("*.npy"))
    size = entries[0].stat().st_size
    small = config.model_copy(
        update={"data": data.model_copy(update={"cache_gb": len(entries) * size / 1e9})}
    )
    with pytest.raises(FeatureError, match="cache_too_small"):
        FeatureFiles(second, small.data, beside=[train], progress=False)
    assert all(entry.is_file() for entry in entries)


def test_an_entry_is_for_all_whom_the_umask_lets_read(tmp_path):
    before = os.umask(0o027)
    try:
        write_entry(tmp_path / "ab" / "x.npy", ZEROS)
    finally:
        os.umask(before)
    assert (tmp_path / "ab" / "x.npy").stat().st_mode & 0o777 == 0o640


def test_a_full_disk_leaves_no_part(tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space"):
        write_entry(tmp_path / "x.npy", ZEROS)
    assert not list(tmp_path.iterdir())


def test_another_users_entry_is_used_without_a_mark(tmp_path, monkeypatch):
    def not_mine(_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "utime", not_mine)
    assert touch([tmp_path / "x.npy"]) == []


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("burned_in_annotation", "refuse"),
        ("allow_secondary_capture", True),
        ("polarity", "pixels"),
    ],
)
def test_an_image_is_read_again_under_another_policy(
    tiny_studies: list[Study], tiny_config: Config, tmp_path, setting: str, value: object
):
    def entries(**settings: object) -> set[Path]:
        data = tiny_config.data.model_copy(update={"cache_dir": tmp_path, **settings})
        FeatureFiles(tiny_studies[:1], data, progress=False)
        return set(tmp_path.rglob("*.npy"))

    assert entries() < entries(**{setting: value})
