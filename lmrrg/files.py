"""Write files atomically, and hash them."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Literal
from uuid import uuid4

from lmrrg.errors import CodedError
from lmrrg.progress import progress_bar


class atomic_writer:
    """Context manager for a file that gets its name only when the block ends without an error.

    The file takes text, which is stored as UTF-8, or bytes with ``mode`` "wb".
    """

    def __init__(self, path: Path, mode: Literal["w", "wb"] = "w"):
        self._path = Path(path)
        self._mode = mode

    def __enter__(self):
        # Not the module tempfile: its files are readable by their owner alone, and would stay so.
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


class directory_writer:
    """Context manager for a directory that gets its name only when the block ends without an error.

    It replaces an older directory of that name. On Linux's local file systems the name exists all
    the time. A file system that cannot exchange two directories (NFS) lacks it for a moment, and a
    crash in that moment leaves the older one beside it as ``.<name>.<random>.old``. A process that
    is still reading the older one misses its remaining files, or finds those of the new one.
    """

    def __init__(self, directory: Path):
        self._directory = Path(directory)

    def __enter__(self) -> Path:
        self._directory.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder, because a rename works only inside one file system.
        self._part = Path(
            tempfile.mkdtemp(prefix=f".{self._directory.name}.", dir=self._directory.parent)
        )
        return self._part

    def __exit__(self, error_type, error, traceback) -> None:
        try:
            if error_type is None:
                self._part.chmod(0o755)  # mkdtemp lets only the owner read it
                _replace_directory(self._part, self._directory)
        finally:
            shutil.rmtree(self._part, ignore_errors=True)


def _replace_directory(part: Path, directory: Path) -> None:
    """Rename a finished folder to ``directory``; the older one is deleted, or back after an error.

    POSIX `rename` replaces a file, but no directory that is not empty. So the two folders exchange
    their names in one step, where that is possible; else the older one moves aside first.
    """
    if not directory.exists():
        os.replace(part, directory)
        return
    if _exchange(part, directory):
        shutil.rmtree(part, ignore_errors=True)  # holds the older model now
        return
    old = Path(f"{part}.old")
    os.replace(directory, old)
    try:
        os.replace(part, directory)
    except OSError:
        os.replace(old, directory)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two paths atomically; return False where that is not possible.

    Python has no function for Linux's renameat2 with RENAME_EXCHANGE, so the C library is called.
    It lacks it on other systems, and NFS refuses the flag.
    """
    rename: Any = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    working_directory = -100  # AT_FDCWD: relative paths start here
    exchange = 2  # RENAME_EXCHANGE
    arguments = (working_directory, os.fsencode(one), working_directory, os.fsencode(other))
    return bool(rename(*arguments, exchange) == 0)


def check_outputs(outputs: Iterable[Path], inputs: Iterable[Path] = ()) -> None:
    """Refuse files that cannot be written, or that would overwrite one another.

    A command calls this before its work, which may take hours.

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
    # Missing folders are made later: the nearest one that exists decides.
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        return f"{folder} is no directory"
    return None if os.access(folder, os.W_OK | os.X_OK) else f"{folder} is not writable"


_SETTLED_NS = 2_000_000_000
"""Age of a file from which its hash is remembered: a younger one may change again within the
resolution of its file system's clock, with the same size and time."""

_WORTH_A_BAR = 1000
"""Files from which on hashing takes long enough for a progress bar."""

Known = tuple[int, int, str]
"""Size, time of change in ns, SHA-256."""


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
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
    """Return the SHA-256 of every file.

    Args:
        index: file that remembers the hashes. A file whose size or time of change differs is read
            again. If two processes write the index at once, one of the two writes is lost, and the
            next call reads those files again.

    Raises:
        FileNotFoundError: one of the files does not exist.
    """
    wanted = list(dict.fromkeys(paths))
    known = _read_index(index)
    facts = {path: _size_and_time(path) for path in wanted}
    names = {path: str(path.absolute()) for path in wanted}
    new = [path for path in wanted if known.get(names[path], (-1, -1, ""))[:2] != facts[path]]
    started = time.time_ns()
    found = _hash_all(new, progress, threads)
    settled: dict[str, Known] = {}
    for path, digest in found.items():
        size, changed = facts[path]
        if changed < started - _SETTLED_NS:
            settled[names[path]] = (size, changed, digest)
    if index is not None and settled:
        # Read again: another process may have written it while this one hashed.
        _write_index(index, _read_index(index) | settled)
    return {path: found[path] if path in found else known[names[path]][2] for path in wanted}


def _size_and_time(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns


def _hash_all(paths: list[Path], progress: bool, threads: int) -> dict[Path, str]:
    # Threads help: reading and hashing run outside of Python's lock.
    with ThreadPoolExecutor(threads) as pool:
        hashed = pool.map(file_hash, paths)
        quiet = not progress or len(paths) < _WORTH_A_BAR
        bar = progress_bar(
            hashed, total=len(paths), desc="image hashes", unit="image", disable=quiet
        )
        return dict(zip(paths, bar, strict=True))


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
