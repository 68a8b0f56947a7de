"""The training states of a PPO run on storage.

A state is written to a temporary folder, which is renamed and then named in ``latest.json``. At
whatever moment a process dies, that file names the newest complete state.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmrrg.config.resume import binding_settings, changed_keys
from lmrrg.config.tree import Config
from lmrrg.files import atomic_writer
from lmrrg.ppo.errors import PPOError
from rl.storage.remote_states import Mirror, outdated
from rl.validation import HeldOut

_TRAINER = "trainer.json"
_LATEST = "latest.json"


@dataclass(frozen=True)
class TrainerState:
    """What a resumed driver needs besides the weights.

    Random generators need no state: every seed is derived from the run's seed and the iteration.
    """

    iterations_done: int
    version: int
    controller: Mapping[str, float | str]
    reference_rewards: list[tuple[int, float | None]]
    start: HeldOut | None
    best: HeldOut | None


def write_state(folder: Path, state: TrainerState) -> None:
    """Write ``trainer.json`` into ``folder``."""
    with atomic_writer(folder / _TRAINER) as out:
        json.dump(asdict(state), out)


def read_state(folder: Path) -> TrainerState:
    """Return the state that :func:`write_state` wrote into ``folder``.

    Raises:
        PPOError: ``trainer_state``, the file is missing or damaged.
    """
    try:
        record = json.loads((folder / _TRAINER).read_text(encoding="utf-8"))
        for name in ("start", "best"):
            record[name] = None if record[name] is None else HeldOut(**record[name])
        return TrainerState(**record)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise PPOError("trainer_state", f"{folder / _TRAINER}: {error}") from error


class StateStore:
    """One folder for each saved iteration, and a file that names the newest complete one.

    Args:
        folder: folder of the states.
        config: settings of the run; those that bind PPO are saved with every state and compared
            when the run is resumed.
        origin: hashes of what the run started from (SFT checkpoint, data), which are compared too.
        keep: number of the newest states that stay.
        mirror: store that every complete state is copied to, and restored from.
    """

    def __init__(
        self,
        folder: Path,
        config: Config,
        origin: Mapping[str, str],
        keep: int = 1,
        mirror: Mirror | None = None,
    ):
        self._folder = Path(folder)
        self._keep = keep
        self._mirror = mirror
        self._identity = binding_settings(config, "ppo")
        for name, digest in origin.items():
            self._identity[f"origin.{name}"] = digest

    def save(self, iteration: int, write: Callable[[str], object]) -> Path:
        """Let ``write`` fill a folder, make it the newest state, and delete outdated states.

        Raises:
            PPOError: ``checkpoint_store``, the copy failed; the state itself is complete.
        """
        target = self._folder / f"iteration-{iteration:06d}"
        part = self._folder / f".{target.name}.part"
        for leftover in (part, target):
            shutil.rmtree(leftover, ignore_errors=True)
        part.mkdir(parents=True)
        write(str(part))
        # Atomic: no folder with the name of a state is ever half written.
        os.replace(part, target)
        record = self._record(iteration, target)
        self._set_latest(record)
        self._prune(iteration)
        if self._mirror:
            self._mirror.put(target, record)
        return target

    def restore(self) -> None:
        """Copy the mirror's newest state into a folder that holds none, with models and metrics.

        Where the folder holds a newer state than the mirror, that state is copied to the mirror:
        its copy has failed, and a finished run would never save another one.

        Raises:
            PPOError: ``resume_mismatch``, before anything is copied; ``checkpoint_store``.
        """
        if self._mirror is None:
            return
        copied = self._mirror.newest()
        held = self.latest()
        if held is not None:
            iteration, folder = held
            if copied is None or copied["iteration"] < iteration:
                self._mirror.put(folder, self._record(iteration, folder))
        elif copied is not None:
            self._check(copied)  # before the copy, which may be large
            self._mirror.fetch(copied["folder"])
            self._set_latest(copied)

    def iteration(self) -> int:
        """Return the iteration of the newest state; 0 where there is none.

        Raises:
            PPOError: ``resume_mismatch``.
        """
        latest = self.latest()
        return 0 if latest is None else latest[0]

    def latest(self) -> tuple[int, Path] | None:
        """Return iteration and folder of the newest state, or None.

        Raises:
            PPOError: ``resume_mismatch``, the state was made with other settings, data or SFT
                weights; the message names them.
        """
        path = self._folder / _LATEST
        if not path.is_file():
            return None
        record = json.loads(path.read_text(encoding="utf-8"))
        self._check(record)
        return record["iteration"], self._folder / record["folder"]

    def _record(self, iteration: int, folder: Path) -> dict[str, Any]:
        return {"iteration": iteration, "folder": folder.name, "identity": self._identity}

    def _set_latest(self, record: Mapping[str, Any]) -> None:
        with atomic_writer(self._folder / _LATEST) as out:
            json.dump(record, out)

    def _check(self, record: Mapping[str, Any]) -> None:
        if different := changed_keys(record["identity"], self._identity):
            raise PPOError(
                "resume_mismatch",
                f"{self._folder} was written with other values of {', '.join(different)}; take the "
                "same ones, another name, or ppo.resume=false to start again",
            )

    def _prune(self, newest: int) -> None:
        states = {int(path.name.split("-")[1]): path for path in self._folder.glob("iteration-*")}
        for number in outdated(states, newest, self._keep):
            shutil.rmtree(states[number])
        # What an interrupted save left behind.
        for part in self._folder.glob(".*.part"):
            shutil.rmtree(part)
