"""Write files that survive a power cut: their bytes, and their names."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4


def write_durably(path: Path, data: bytes) -> None:
    """Write a file that is there as a whole, on disk, when this returns; or not at all."""
    part = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        _write_synced(part, data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    _sync_folder(path.parent)


def write_folder_durably(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make a folder of files that is there as a whole when this returns; or not at all."""
    part = folder.with_name(f".{folder.name}.{uuid4().hex}")
    part.mkdir(parents=True)
    try:
        for name, data in files.items():
            _write_synced(part / name, data)
        _sync_folder(part)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    _sync_folder(folder.parent)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Write the names of a folder's files to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
