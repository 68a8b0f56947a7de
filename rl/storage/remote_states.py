"""Copies of a run's newest training states in a store that outlives its machines (S3, HDFS, ...).

An object store cannot rename, so a copy is complete once its COMPLETE marker exists. A complete
copy is never overwritten: its marker is deleted before anything else changes.
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
    """Training states in a store: ``<uri>/iteration-NNNNNN/``, laid out as in the run folder.

    Args:
        uri: folder of the run in the store, such as ``s3://bucket/prefix/name/ppo``.
        run_dir: the run folder.
        keep: number of the newest copies that stay.

    Raises:
        PPOError: ``checkpoint_store``, also from every method: the store is unknown or failed.
    """

    def __init__(self, uri: str, run_dir: Path, keep: int):
        self._uri = uri
        self._layout = RunLayout(run_dir)
        self._keep = keep
        with self._store_errors():
            self._store, self._root = FileSystem.from_uri(uri)

    @classmethod
    def of(cls, config: Config) -> Mirror | None:
        """Return the mirror below ``ray.checkpoint_storage``; None where that is not set."""
        uri = config.checkpoint_uri("ppo")
        return cls(uri, config.run_dir, config.ppo.keep_checkpoints) if uri else None

    def put(self, state: Path, record: Mapping[str, Any]) -> None:
        """Copy a complete state, with the models and metrics that belong to it.

        Args:
            state: folder of the state, inside the run folder.
            record: describes the state and holds its ``iteration``; :meth:`newest` returns it.
        """
        target = f"{self._root}/{state.name}"
        with self._store_errors():
            self._delete(target)
            for path in self._parts(state):
                if path.exists():
                    copy = f"{target}/{self._relative(path)}"
                    self._copy(LocalFileSystem(), str(path), self._store, copy)
            with self._store.open_output_stream(f"{target}/{_COMPLETE}") as out:
                out.write(json.dumps(record).encode())
            self._prune(record["iteration"])

    def newest(self) -> dict[str, Any] | None:
        """Return the record of the newest complete copy, or None."""
        with self._store_errors():
            for _, copy in sorted(self._copies().items(), reverse=True):
                marker = f"{copy}/{_COMPLETE}"
                if self._type(marker) == FileType.File:
                    with self._store.open_input_stream(marker) as file:
                        return json.loads(file.read())
        return None

    def fetch(self, state: str) -> None:
        """Copy a state, given by the name of its folder, from the store into the run folder."""
        source = f"{self._root}/{state}"
        with self._store_errors():
            for path in self._parts(self._layout.ppo_states / state):
                copy = f"{source}/{self._relative(path)}"
                if self._type(copy) != FileType.NotFound:
                    self._copy(self._store, copy, LocalFileSystem(), str(path))

    def clear(self) -> None:
        """Delete every copy."""
        with self._store_errors():
            self._delete(self._root)

    def _parts(self, state: Path) -> tuple[Path, ...]:
        """Return what is copied with a state: the models and the metrics that belong to it."""
        layout = self._layout
        return (
            state,
            layout.best("ppo"),
            layout.last("ppo"),
            layout.metrics("ppo"),
            layout.metrics("mixtures"),
        )

    def _relative(self, path: Path) -> str:
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
        """Return the path of every copy, complete or not, by iteration."""
        copies = {}
        for info in self._store.get_file_info(FileSelector(self._root, allow_not_found=True)):
            if name := re.fullmatch(r"iteration-(\d+)", info.base_name):
                copies[int(name[1])] = info.path
        return copies

    def _delete(self, folder: str) -> None:
        # The marker goes first: a copy that is half deleted must not count as complete.
        marker = f"{folder}/{_COMPLETE}"
        if self._type(marker) == FileType.File:
            self._store.delete_file(marker)
        if self._type(folder) == FileType.Directory:
            self._store.delete_dir(folder)

    def _type(self, path: str) -> FileType:
        return self._store.get_file_info(path).type

    @contextmanager
    def _store_errors(self) -> Iterator[None]:
        """Raise errors of the store as PPOError ``checkpoint_store``."""
        try:
            yield
        except (OSError, pyarrow.ArrowException) as error:
            raise PPOError(
                "checkpoint_store", f"ray.checkpoint_storage, {self._uri}: {error}"
            ) from error


def outdated(iterations: Mapping[int, object], newest: int, keep: int) -> set[int]:
    """Return the states to delete once the state of ``newest`` is written.

    These are all but the last ``keep`` states, and the states after ``newest``: they belong to an
    attempt that was rolled back.
    """
    kept = sorted(number for number in iterations if number <= newest)[-keep:]
    return set(iterations) - set(kept)
