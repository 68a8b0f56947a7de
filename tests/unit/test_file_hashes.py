"""The index of file hashes: right after every change of a file, and quick when nothing changed."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lmrrg import files
from lmrrg.files import file_hashes

LONG_AGO = 1_600_000_000


def film(path: Path, content: bytes, changed: int = LONG_AGO) -> Path:
    path.write_bytes(content)
    os.utime(path, (changed, changed))
    return path


def test_a_second_call_reads_no_file(tmp_path, monkeypatch):
    films = [film(tmp_path / f"{i}.png", b"film %d" % i) for i in range(5)]
    index = tmp_path / "index.json"
    first = file_hashes(films, index)
    assert first == {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in films}
    monkeypatch.setattr(files, "file_hash", lambda path: pytest.fail("read again"))
    assert file_hashes(films, index) == first


@pytest.mark.parametrize(
    ("content", "changed"), [(b"other!", LONG_AGO + 1), (b"longer than before", LONG_AGO)]
)
def test_a_changed_file_is_read_again(tmp_path, content, changed):
    path, index = film(tmp_path / "a.png", b"before"), tmp_path / "index.json"
    before = file_hashes([path], index)[path]
    after = file_hashes([film(path, content, changed)], index)[path]
    assert after == hashlib.sha256(content).hexdigest() != before


def test_a_file_that_changed_just_now_is_not_trusted_later(tmp_path):
    path, index = tmp_path / "a.png", tmp_path / "index.json"
    path.write_bytes(b"before")
    stat = path.stat()
    file_hashes([path], index)
    path.write_bytes(b"after!")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as a coarse clock would have it
    assert file_hashes([path], index)[path] == hashlib.sha256(b"after!").hexdigest()


def test_a_damaged_index_is_made_anew(tmp_path):
    path, index = film(tmp_path / "a.png", b"film"), tmp_path / "index.json"
    for damage in ("", "[1, 2]", '{"a": 3}', '{"a": [1, 2]}'):
        index.write_text(damage)
        assert file_hashes([path], index)[path] == hashlib.sha256(b"film").hexdigest()
    assert index.read_text() != damage


def test_writers_at_once_give_right_hashes_and_a_whole_index(tmp_path):
    films = [film(tmp_path / f"{i}.png", b"film %d" % i) for i in range(40)]
    index = tmp_path / "index.json"
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(lambda start: file_hashes(films[start : start + 10], index), range(30))
        )
    for part in found:
        assert part == {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in part}
    assert file_hashes(films, index) == file_hashes(films)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        file_hashes([tmp_path / "none.png"])
