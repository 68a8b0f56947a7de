"""SHA-256 of many image files, each read once: a later start trusts path, size and time of change."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from lmrrg.studies import atomic_writer

_SETTLED_NS = 2_000_000_000
"""A file changed this recently may change again within the resolution of its file system's clock."""
_WORTH_A_BAR = 1000
Known = tuple[int, int, str]
"""Size, time of change in ns, SHA-256."""


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_hashes(
    paths: Iterable[Path], index: Path | None = None, *, progress: bool = True, threads: int = 8
) -> dict[Path, str]:
    """The SHA-256 of every file.

    Args:
        index: file that remembers the hashes; a file whose size or time of change differs is read again. Of two
            writers at once the later one's index stays: what is lost is read again, and nothing else happens.

    Raises:
        FileNotFoundError: one of the files does not exist.
    """
    wanted = list(dict.fromkeys(paths))
    known = _read_index(index)
    facts = {path: (stat.st_size, stat.st_mtime_ns) for path in wanted for stat in (path.stat(),)}
    place = {path: str(path.absolute()) for path in wanted}
    new = [path for path in wanted if known.get(place[path], (-1, -1, ""))[:2] != facts[path]]
    started = time.time_ns()
    with ThreadPoolExecutor(threads) as pool:
        hashed = pool.map(file_hash, new)
        quiet = not progress or len(new) < _WORTH_A_BAR
        bar = tqdm(hashed, total=len(new), desc="image hashes", unit="image", disable=quiet)
        found = dict(zip(new, bar, strict=True))
    settled = {
        place[path]: (*facts[path], digest) for path, digest in found.items() if facts[path][1] < started - _SETTLED_NS
    }
    if index is not None and settled:
        _write_index(index, _read_index(index) | settled)
    return {path: found[path] if path in found else known[place[path]][2] for path in wanted}


def _read_index(index: Path | None) -> dict[str, Known]:
    if index is None or not index.is_file():
        return {}
    try:
        return {path: (size, changed, digest) for path, (size, changed, digest) in _json(index).items()}
    except (ValueError, TypeError, AttributeError):
        return {}  # damaged: every file is read again, and a whole index is written


def _json(index: Path) -> dict[str, list]:
    loaded: dict[str, list] = json.loads(index.read_text(encoding="utf-8"))
    return loaded


def _write_index(index: Path, known: dict[str, Known]) -> None:
    index.parent.mkdir(parents=True, exist_ok=True)
    with atomic_writer(index) as out:
        json.dump(known, out)
