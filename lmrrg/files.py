"""Files: written whole or not at all, and known by their hashes."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Literal
from uuid import uuid4

from lmrrg.errors import CodedError
from lmrrg.progress import progress_bar


class atomic_writer:
    """Context manager: a file that appears under its name only when the block ended without an error.

    It takes text in UTF-8, with ``mode`` "wb" bytes.
    """

    def __init__(self, path: Path, mode: Literal["w", "wb"] = "w"):
        self._path, self._mode = Path(path), mode

    def __enter__(self):
        # Not tempfile's: its files are for their owner alone, and what is shared is for the umask to say.
        part = self._path.with_name(f".{self._path.name}.{uuid4().hex}")
        self._file: IO[Any] = (
            part.open("x", encoding="utf-8") if self._mode == "w" else part.open("xb")
        )
        return self._file

    def __exit__(self, error_type, error, traceback) -> None:
        try:
            self._file.close()
            if error_type is None:
                os.replace(self._file.name, self._path)
        finally:
            Path(self._file.name).unlink(missing_ok=True)  # gone already where it was renamed


def check_outputs(outputs: Iterable[Path], inputs: Iterable[Path] = ()) -> None:
    """Refuse, before the work, files that :class:`atomic_writer` cannot write or that would overwrite one another.

    Raises:
        CodedError: ``bad_output``; the message names the file.
    """
    taken = {path.resolve() for path in inputs}
    for path in outputs:
        obstacle = _obstacle(path, taken)
        if obstacle:
            raise CodedError("bad_output", f"{path} cannot be written: {obstacle}")
        taken.add(path.resolve())


def _obstacle(path: Path, taken: Set[Path]) -> str | None:
    if path.is_dir():
        return "it is a directory"
    if path.exists() and not path.is_file():
        return "it is no regular file"
    if path.resolve() in taken:
        return "it is another file of the same command"
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        return f"{folder} is no directory"
    return None if os.access(folder, os.W_OK | os.X_OK) else f"{folder} is not writable"


_SETTLED_NS = 2_000_000_000
"""A file changed this recently may change again within the resolution of its file system's clock."""


_WORTH_A_BAR = 1000


Known = tuple[int, int, str]
"""Size, time of change in ns, SHA-256."""


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def directory_hash(directory: Path) -> str:
    """Return the SHA-256 over the relative paths and the bytes of all files in a directory."""
    digest = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(directory)}\0{file_hash(path)}\n".encode())
    return digest.hexdigest()


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
        bar = progress_bar(hashed, total=len(new), desc="image hashes", unit="image", disable=quiet)
        found = dict(zip(new, bar, strict=True))
    settled = {
        place[path]: (*facts[path], digest)
        for path, digest in found.items()
        if facts[path][1] < started - _SETTLED_NS
    }
    if index is not None and settled:
        _write_index(index, _read_index(index) | settled)
    return {path: found[path] if path in found else known[place[path]][2] for path in wanted}


def _read_index(index: Path | None) -> dict[str, Known]:
    if index is None or not index.is_file():
        return {}
    try:
        return {
            path: (size, changed, digest) for path, (size, changed, digest) in _json(index).items()
        }
    except (ValueError, TypeError, AttributeError):
        return {}  # damaged: every file is read again, and a whole index is written


def _json(index: Path) -> dict[str, list]:
    loaded: dict[str, list] = json.loads(index.read_text(encoding="utf-8"))
    return loaded


def _write_index(index: Path, known: dict[str, Known]) -> None:
    index.parent.mkdir(parents=True, exist_ok=True)
    with atomic_writer(index) as out:
        json.dump(known, out)
