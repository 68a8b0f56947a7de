"""The journal of `lmrrg watch`: how far each study is, kept through crashes and power cuts."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from lmrrg.errors import CodedError

State = Literal["waiting", "written", "stored", "abstained", "refused"]
FINAL: tuple[State, ...] = ("stored", "abstained", "refused")
"""States after which nothing more is done."""

_SCHEMA = f"""
create table if not exists studies (
    key text primary key,
    state text not null check (state in {get_args(State)}),
    code text not null,
    attempts integer not null,
    next_try real not null,
    changed real not null
) strict
"""
_BY_KEY = "select key, state, code, attempts, next_try from studies where key = ?"
_DUE = (
    "select key, state, code, attempts, next_try from studies"
    " where state = ? and next_try <= ? order by changed"
)
_LONGEST_PAUSE_S = 300.0


class JournalError(CodedError):
    """A journal that cannot be used: ``watch_in_use``, another process has it."""


@dataclass(frozen=True)
class Entry:
    """How far one study is. Its key is a hash, so the journal names no patient."""

    key: str
    state: State
    code: str
    """Why it waits or was refused, by a stable code; "" otherwise."""
    attempts: int
    """Failed attempts since the state changed."""
    next_try: float
    """Time before which nothing is tried, seconds since 1970."""


class Journal:
    """A database of entries; each change is on disk when its call returns.

    Args:
        path: the file; made where there is none.
        clock: gives seconds since 1970.

    Raises:
        JournalError: ``watch_in_use``.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._clock = clock
        # No transactions of Python's: every statement is one of its own.
        self._database = sqlite3.connect(path, isolation_level=None, timeout=1)
        try:
            # Held until the process ends, however it ends: two watchers would store twice.
            self._database.execute("pragma locking_mode = exclusive")
            self._database.execute("pragma synchronous = full")
            self._database.execute("begin exclusive")
            self._database.execute(_SCHEMA)
            self._database.execute("commit")
        except sqlite3.OperationalError:
            self._database.close()
            raise JournalError(
                "watch_in_use", f"{path} is in use: another `lmrrg watch` has this state folder"
            ) from None

    def entry(self, key: str) -> Entry | None:
        """Return the entry of a study; None for one that is new."""
        found = self._entries(_BY_KEY, key)
        return found[0] if found else None

    def due(self, state: State) -> list[Entry]:
        """Return the entries of a state whose time has come, the oldest first."""
        return self._entries(_DUE, state, self._clock())

    def set(self, key: str, state: State, code: str = "") -> None:
        """Move a study to a state."""
        self._write(Entry(key, state, code, 0, 0.0))

    def failed(self, key: str, state: State, code: str) -> None:
        """Note a failed attempt; the next one is made after a pause that doubles, up to 5 min."""
        before = self.entry(key)
        attempts = before.attempts + 1 if before is not None and before.state == state else 1
        pause = min(2.0**attempts, _LONGEST_PAUSE_S)
        self._write(Entry(key, state, code, attempts, self._clock() + pause))

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _write(self, entry: Entry) -> None:
        self._database.execute(
            "insert or replace into studies values (?, ?, ?, ?, ?, ?)",
            (entry.key, entry.state, entry.code, entry.attempts, entry.next_try, self._clock()),
        )

    def _entries(self, query: str, *values: object) -> list[Entry]:
        with closing(self._database.execute(query, values)) as rows:
            return [Entry(*row) for row in rows]
