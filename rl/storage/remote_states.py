"""Copies of a run's newest training states in a store that outlives its machines: S3, or any other that pyarrow knows.

An object store renames nothing, so a copy counts once its small last file is there, and is never written over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.fs
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem

from lmrrg.config.tree import Config
from lmrrg.ppo.errors import PPOError
from lmrrg.run.layout import RunLayout

_COMPLETE = "COMPLETE"


class Mirror:
    """``<uri>/iteration-NNNNNN/``: a training state, models and metrics, laid out as in the run's folder.

    Args:
        uri: folder of the run in the store, e.g. ``s3://bucket/prefix/name/ppo``.
        run_dir: the run's folder.
        keep: how many of the newest copies stay.

    Raises:
        PPOError: ``checkpoint_store``, here and below: the store is unknown, or it failed.
    """

    def __init__(self, uri: str, run_dir: Path, keep: int):
        self._uri = uri
        self._layout = RunLayout(run_dir)
        self._keep = keep
        with self._told():
            self._store, self._root = FileSystem.from_uri(uri)

    @classmethod
    def of(cls, config: Config) -> Mirror | None:
        """The one below ``ray.checkpoint_storage``, beside the SFT checkpoints; None where that is not set."""
        uri = config.checkpoint_uri("ppo")
        return cls(uri, config.run_dir, config.ppo.keep_checkpoints) if uri else None

    def put(self, state: Path, record: Mapping[str, Any]) -> None:
        """Copy a complete state and what belongs to it.

        Args:
            state: its folder, inside the run's.
            record: names it, with ``iteration``; comes back from :meth:`newest`.
        """
        target = f"{self._root}/{state.name}"
        with self._told():
            self._delete(target)
            for path in self._parts(state):
                if path.exists():
                    self._copy(
                        LocalFileSystem(), str(path), self._store, f"{target}/{self._name(path)}"
                    )
            with self._store.open_output_stream(f"{target}/{_COMPLETE}") as out:
                out.write(json.dumps(record).encode())
            self._prune(record["iteration"])

    def newest(self) -> dict[str, Any] | None:
        """The record of the newest complete copy, or None."""
        with self._told():
            for _, copy in sorted(self._copies().items(), reverse=True):
                if self._is(FileType.File, mark := f"{copy}/{_COMPLETE}"):
                    with self._store.open_input_stream(mark) as file:
                        return json.loads(file.read())
        return None

    def fetch(self, state: str) -> None:
        """Bring the copy of the state with this folder name into the run's folder."""
        source = f"{self._root}/{state}"
        with self._told():
            for path in self._parts(self._layout.ppo_states / state):
                copy = f"{source}/{self._name(path)}"
                if not self._is(FileType.NotFound, copy):
                    self._copy(self._store, copy, LocalFileSystem(), str(path))

    def clear(self) -> None:
        """Delete every copy."""
        with self._told():
            self._delete(self._root)

    def _parts(self, state: Path) -> tuple[Path, ...]:
        """Return the paths that are copied with a state: the models and the history that belong to it."""
        layout = self._layout
        histories = (layout.metrics("ppo"), layout.metrics("mixtures"))
        return (state, layout.best("ppo"), layout.last("ppo"), *histories)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._layout.root).as_posix()

    def _copy(self, store: FileSystem, source: str, other: FileSystem, target: str) -> None:
        is_file = store.get_file_info(source).type == FileType.File
        other.create_dir(target.rpartition("/")[0] if is_file else target)
        pyarrow.fs.copy_files(source, target, source_filesystem=store, destination_filesystem=other)

    def _prune(self, newest: int) -> None:
        copies = self._copies()
        for iteration in outdated(copies, newest, self._keep):
            self._delete(copies[iteration])

    def _copies(self) -> dict[int, str]:
        """Path of every copy, complete or not, by iteration."""
        found = self._store.get_file_info(FileSelector(self._root, allow_not_found=True))
        names = {info.path: re.fullmatch(r"iteration-(\d+)", info.base_name) for info in found}
        return {int(name[1]): path for path, name in names.items() if name}

    def _delete(self, folder: str) -> None:
        """The mark goes first: what is half deleted is not complete."""
        if self._is(FileType.File, mark := f"{folder}/{_COMPLETE}"):
            self._store.delete_file(mark)
        if self._is(FileType.Directory, folder):
            self._store.delete_dir(folder)

    def _is(self, kind: FileType, path: str) -> bool:
        return self._store.get_file_info(path).type == kind

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pyarrow.ArrowException) as error:
            raise PPOError(
                "checkpoint_store", f"ray.checkpoint_storage, {self._uri}: {error}"
            ) from error


def outdated(iterations: Mapping[int, object], newest: int, keep: int) -> set[int]:
    """Which of the states go once ``newest`` is written: all but the last ``keep``, and those after it, which are of an
    attempt that was rolled back."""
    kept = sorted(number for number in iterations if number <= newest)[-keep:]
    return set(iterations) - set(kept)
