"""Check before any work that what a run writes can be written."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryFile

import pyarrow
from pyarrow.fs import FileSystem

from lmrrg.config.base import Stage
from lmrrg.config.tree import Config
from lmrrg.run.errors import TrackingError


def require_storage(config: Config) -> None:
    """Refuse a run whose folder, or whose cache of image features, cannot be written.

    Raises:
        TrackingError: ``not_writable``, with the setting to correct.
    """
    _require_folder(config.run_dir, "storage_path")
    _require_folder(config.data.cache_dir, "data.cache_dir")


def require_store(config: Config, stage: Stage) -> None:
    """Write a small object into ``ray.checkpoint_storage``, where that is set, and delete it.

    Raises:
        TrackingError: ``checkpoint_store``: the store is unknown, or does not take it.
    """
    uri = config.checkpoint_uri(stage)
    if uri is None:
        return
    try:
        store, root = FileSystem.from_uri(uri)
        store.create_dir(root)
        probe = f"{root}/.probe-{os.getpid()}"
        with store.open_output_stream(probe) as out:
            out.write(b"probe")
        store.delete_file(probe)
    except (OSError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise TrackingError(
            "checkpoint_store",
            f"ray.checkpoint_storage cannot be written at {uri} ({reason}); correct its address or "
            "its credentials, or leave it out",
        ) from error


def _require_folder(folder: Path, setting: str) -> None:
    # Missing folders are made later, in the nearest one that exists. Permissions alone do not tell:
    # a disk may be full, or a file system read-only.
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise TrackingError(
            "not_writable",
            f"{folder} cannot be written ({nearest}: {error.strerror}); set {setting} to a folder "
            "that can",
        ) from error
