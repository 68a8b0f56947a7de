"""The training states of a PPO run on storage: each written aside, then named; the newest complete one wins."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmrrg.config.tree import Config
from lmrrg.files import atomic_writer
from lmrrg.ppo.errors import PPOError
from rl.storage.remote_states import Mirror, outdated
from rl.validation import HeldOut

_TRAINER = "trainer.json"
_LATEST = "latest.json"
_FREE_SECTIONS = (
    "name",
    "storage_path",
    "threads",
    "ray",
    "sft",
    "evaluation",
    "tracking",
    "serve",
)
_FREE_KEYS = (
    "data.path",
    "data.images",
    "data.ids",
    "data.burned_in_annotation",
    "data.max_image_mb",
    "data.max_image_megapixels",
    "data.decode_workers",
    "data.cache_dir",
    "data.cache_gb",
    "data.eval_limit",
    "data.eval_split",
    "ppo.iterations",
    "ppo.eval_every",
    "ppo.checkpoint_every",
    "ppo.dump_every",
    "ppo.profile_updates",
    "ppo.keep_checkpoints",
    "ppo.max_restarts",
    "ppo.parity_tolerance",
    "ppo.timeout_s",
    "ppo.resume",
    "ppo.cpus_per_worker",
    "ppo.gpus_per_worker",
    "rollout.engines",
    "rollout.tensor_parallel_size",
    "rollout.cpus_per_engine",
    "rollout.gpus_per_engine",
    "rollout.kv_cache_mb",
    "rollout.gpu_memory",
    "rollout.weight_transfer",
    "rollout.start_timeout_s",
    "rollout.timeout_s",
    "reward.scorers",
    "reward.cpus_per_scorer",
    "reward.gpus_per_scorer",
    "reward.timeout_s",
    "reward.chunk",
)
"""Settings that a resumed run may change: they do not enter the mathematics, or the data's hash tells what they did.
``ppo.iterations`` may, so that a run can be made longer: a learning rate that falls then falls over the new number."""


@dataclass(frozen=True)
class TrainerState:
    """All that the driver knows and the weights do not say. Random numbers need no state: every seed is derived from
    the run's seed and the iteration."""

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
    """Read it back.

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
    """``run_dir/ppo/state``: one folder per saved iteration, and a small file that names the newest complete one.

    Args:
        folder: where.
        keep: how many of the newest states stay.
        config: of the run; saved with every state and compared at resume.
        origin: hashes of what the run started from (SFT checkpoint, data); compared too.
        mirror: where every state is copied to when it is complete, and restored from.
    """

    def __init__(
        self,
        folder: Path,
        config: Config,
        origin: Mapping[str, str],
        keep: int = 1,
        mirror: Mirror | None = None,
    ):
        self._folder, self._keep, self._mirror = Path(folder), keep, mirror
        self._identity = {
            **_flat(config.model_dump(mode="json")),
            **{f"origin.{k}": v for k, v in origin.items()},
        }

    def save(self, iteration: int, write: Callable[[str], object]) -> Path:
        """Let ``write`` fill a folder, then make it the newest state and drop those that are not kept.

        Raises:
            PPOError: ``checkpoint_store``, the copy failed; the state itself is complete.
        """
        target = self._folder / f"iteration-{iteration:06d}"
        part = self._folder / f".{target.name}.part"
        for leftover in (part, target):
            shutil.rmtree(leftover, ignore_errors=True)
        part.mkdir(parents=True)
        write(str(part))
        os.replace(part, target)
        record = self._record(iteration, target)
        self._name(record)
        self._prune(iteration)
        if self._mirror:
            self._mirror.put(target, record)
        return target

    def restore(self) -> None:
        """Where the folder holds no state, bring back the newest one of the mirror with its models and metrics.

        A state whose copy failed is copied now: a finished run saves no other one.

        Raises:
            PPOError: ``resume_mismatch``, before anything is copied; ``checkpoint_store``.
        """
        if self._mirror is None:
            return
        copied, held = self._mirror.newest(), self.latest()
        if held is not None:
            iteration, folder = held
            if copied is None or copied["iteration"] < iteration:
                self._mirror.put(folder, self._record(iteration, folder))
        elif copied is not None:
            self._check(copied)
            self._mirror.fetch(copied["folder"])
            self._name(copied)

    def iteration(self) -> int:
        """Iteration of the newest state; 0 where there is none.

        Raises:
            PPOError: ``resume_mismatch``.
        """
        latest = self.latest()
        return 0 if latest is None else latest[0]

    def latest(self) -> tuple[int, Path] | None:
        """Iteration and folder of the newest state, or None.

        Raises:
            PPOError: ``resume_mismatch``, the state is of other settings, data or SFT weights; the message names them.
        """
        path = self._folder / _LATEST
        if not path.is_file():
            return None
        record = json.loads(path.read_text(encoding="utf-8"))
        self._check(record)
        return record["iteration"], self._folder / record["folder"]

    def _record(self, iteration: int, folder: Path) -> dict[str, Any]:
        return {"iteration": iteration, "folder": folder.name, "identity": self._identity}

    def _name(self, record: Mapping[str, Any]) -> None:
        """From here on this state is the newest."""
        with atomic_writer(self._folder / _LATEST) as out:
            json.dump(record, out)

    def _check(self, record: Mapping[str, Any]) -> None:
        known = record["identity"]
        different = sorted(
            key
            for key in known.keys() | self._identity.keys()
            if known.get(key) != self._identity.get(key)
        )
        if binding := [key for key in different if not _is_free(key)]:
            raise PPOError(
                "resume_mismatch",
                f"{self._folder} was written with other values of {', '.join(binding)}; take the same ones, another "
                "name, or ppo.resume=false to start again",
            )

    def _prune(self, newest: int) -> None:
        """What is half written belongs to nobody."""
        states = {int(path.name.split("-")[1]): path for path in self._folder.glob("iteration-*")}
        for number in outdated(states, newest, self._keep):
            shutil.rmtree(states[number])
        for part in self._folder.glob(".*.part"):
            shutil.rmtree(part)


def _is_free(key: str) -> bool:
    return key in _FREE_KEYS or key.split(".")[0] in _FREE_SECTIONS


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= (
            _flat(value, f"{prefix}{name}.")
            if isinstance(value, dict)
            else {f"{prefix}{name}": value}
        )
    return flat
