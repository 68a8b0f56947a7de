"""The lock of a run's folder: two commands never write into one run at the same time."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

from lmrrg.run.errors import TrackingError
from lmrrg.run.layout import RunLayout

_BEAT_S = 15.0
"""Seconds between two signs of life of the owner."""
_DEAD_S = 6 * _BEAT_S
"""A lock of another machine without a sign of life for so long belongs to nobody."""
_POLL_S = 1.0


@contextmanager
def run_lock(run_dir: Path) -> Iterator[None]:
    """Hold a run's folder while the block runs.

    The lock is a file that names host and process, so that it works on storage that machines share.
    A lock whose process is gone is taken over: on this machine by its process id; of another
    machine when its file was not touched for 90 s, which is waited for. Blocks of one process may
    be nested.

    Raises:
        TrackingError: ``run_in_use``, with who holds the folder.
    """
    path = RunLayout(run_dir).lock
    run_dir.mkdir(parents=True, exist_ok=True)
    if _is_mine(_owner(path)):
        yield
        return
    _take(path)
    finished = Event()
    heart = Thread(target=_beat, args=(path, finished), daemon=True)
    heart.start()
    try:
        yield
    finally:
        finished.set()
        heart.join()
        path.unlink(missing_ok=True)


def _take(path: Path) -> None:
    """Create the lock, or take it over from an owner that is gone.

    Raises:
        TrackingError: ``run_in_use``.
    """
    while not _create(path):
        owner = _owner(path)
        if _is_alive(path, owner):
            raise _in_use(path, owner)
        _remove_dead(path)


def _create(path: Path) -> bool:
    """Create the lock in the name of this process; return False where there is one already."""
    try:
        with path.open("x", encoding="utf-8") as lock:
            json.dump({"host": socket.gethostname(), "pid": os.getpid()}, lock)
    except FileExistsError:
        return False
    return True


def _remove_dead(path: Path) -> None:
    """Remove the lock of a dead owner, but not one that another process made meanwhile.

    Raises:
        TrackingError: ``run_in_use``, another process was faster.
    """
    # Renamed first: of two processes that found the lock dead only one can rename it, and it can
    # look again at what it holds.
    found = path.with_name(f".lock-{os.getpid()}.json")
    try:
        path.replace(found)
    except FileNotFoundError:
        return
    owner = _owner(found)
    if _is_alive(found, owner):
        found.replace(path)
        raise _in_use(path, owner)
    found.unlink()


def _in_use(path: Path, owner: dict[str, Any]) -> TrackingError:
    return TrackingError(
        "run_in_use",
        f"{path.parent} is in use by process {owner.get('pid', '?')} on "
        f"{owner.get('host', '?')}; wait for it, stop it, or take another name=",
    )


def _owner(path: Path) -> dict[str, Any]:
    """Return what the lock says of its owner; {} where it is absent or was not written whole."""
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _is_mine(owner: dict[str, Any]) -> bool:
    return owner.get("host") == socket.gethostname() and owner.get("pid") == os.getpid()


def _is_alive(path: Path, owner: dict[str, Any]) -> bool:
    """Return whether the owner of the lock at ``path`` still works; this may take 90 s."""
    if owner.get("host") == socket.gethostname():
        return _is_running(owner.get("pid"))
    # Nothing can be asked of another machine: either its next sign of life comes, or too many
    # have not come.
    try:
        last_sign = path.stat().st_mtime
        while _storage_time(path.parent) - last_sign < _DEAD_S:
            time.sleep(_POLL_S)
            if path.stat().st_mtime != last_sign:
                return True
    except FileNotFoundError:  # the owner has finished
        return False
    return False


def _is_running(pid: object) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's process
        return True
    return True


def _storage_time(folder: Path) -> float:
    """Return the time by the clock of the storage, which may differ from this machine's."""
    probe = folder / f".clock-{os.getpid()}"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _beat(path: Path, finished: Event) -> None:
    while not finished.wait(_BEAT_S):
        with suppress(OSError):  # the storage is away for a moment; the next beat comes soon
            os.utime(path)
