"""The files of the feature cache: where an entry is, how it is written and read, and how the whole stays bounded.

Any number of runs may share a cache. Entries appear whole under their content's name, so two writers of one entry
write the same bytes; an entry that another run's bound removed is made anew by its reader.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from tokenize import TokenError
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

from lmrrg.errors import CodedError

_ABANDONED_S = 86_400.0


class FeatureError(CodedError):
    """Image features that cannot be used; ``code`` is stable."""


def entry_path(folder: Path, digest: str) -> Path:
    """Where the features of the image file with this SHA-256 are."""
    return folder / digest[:2] / f"{digest}.npy"


def write_entry(path: Path, values: np.ndarray) -> None:
    """Write an entry; it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # No atomic_writer: by its suffix `make_room` finds what a killed writer left.
    part = path.with_name(f"{path.stem}.{uuid4().hex}.part")
    try:
        with part.open(
            "xb"
        ) as out:  # readable for others as far as the umask lets it: caches are shared
            np.save(out, values, allow_pickle=False)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)  # a full disk


def read_entry(path: Path, shape: tuple[int, int]) -> Tensor:
    """An entry, float16 of ``shape``.

    Raises:
        FeatureError: ``cache_corrupt`` for another form (delete the named file).
        FileNotFoundError: there is none.
    """
    try:
        with path.open(
            "rb"
        ) as entry:  # np.load would also take a zip or a pickle, with errors of their own
            values = np.lib.format.read_array(entry, allow_pickle=False)
    except (ValueError, EOFError, SyntaxError, TokenError) as error:
        raise FeatureError("cache_corrupt", f"{path} is no feature file; delete it") from error
    if values.shape != shape or values.dtype != np.float16:
        raise FeatureError(
            "cache_corrupt", f"{path} has shape {values.shape}, expected {shape}; delete it"
        )
    return torch.from_numpy(values)


def touch(entries: Collection[Path]) -> list[Path]:
    """Mark entries as used now; those that are not there come back."""
    missing = []
    for entry in entries:
        try:
            os.utime(entry)
        except FileNotFoundError:
            missing.append(entry)
        except PermissionError:
            pass  # another user's, who alone can mark it
    return missing


def make_room(cache: Path, wanted: int, limit: int, keep: Collection[Path]) -> int:
    """Delete the longest unused entries until ``wanted`` more bytes fit under ``limit``; the number deleted.

    Entries of ``keep``, the caller's own, stay.

    Raises:
        FeatureError: ``cache_too_small`` when the caller's own entries do not fit.
    """
    kept = {str(path) for path in keep}
    found = sorted(_entries(cache), key=lambda entry: entry[1])
    own = wanted + sum(size for path, _, size in found if path in kept)
    if own > limit:
        raise FeatureError(
            "cache_too_small",
            f"the run's image features take {own / 1e9:.3g} GB, data.cache_gb allows {limit / 1e9:.3g}",
        )
    total, deleted = wanted + sum(size for *_, size in found), 0
    for path, _, size in found:
        if total <= limit:
            break
        if path not in kept:
            with suppress(PermissionError):  # another user's folder
                Path(path).unlink(missing_ok=True)  # another run may have been quicker
                total, deleted = total - size, deleted + 1
    return deleted


def _entries(cache: Path) -> Iterator[tuple[str, float, int]]:
    """Path, last use and bytes of every entry below a folder; what a killed writer left is deleted."""
    for folder, _, names in os.walk(cache):
        for name in names:
            path = os.path.join(folder, name)
            if not name.endswith((".npy", ".part")):
                continue
            try:
                stat = os.stat(path)
            except FileNotFoundError:
                continue
            if name.endswith(".npy"):
                yield path, stat.st_mtime, stat.st_size
            elif time.time() - stat.st_mtime > _ABANDONED_S:
                Path(path).unlink(missing_ok=True)
