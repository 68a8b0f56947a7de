"""Write, read and bound the files of the feature cache.

Any number of runs may share a cache. An entry is named after its content and appears whole, so two
writers of one entry write the same bytes. A reader makes an entry anew that another run has removed
to keep to its bound.
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
"""Age at which a part file belongs to a writer that was killed, seconds."""


class FeatureError(CodedError):
    """Image features that cannot be used; ``code`` is stable."""


def entry_path(folder: Path, digest: str) -> Path:
    """Return the path of the features of the image file with this SHA-256."""
    # 256 subfolders: a data set has hundreds of thousands of images.
    return folder / digest[:2] / f"{digest}.npy"


def write_entry(path: Path, values: np.ndarray) -> None:
    """Write an entry; it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not atomic_writer: `make_room` knows by the suffix .part what a killed writer has left.
    part = path.with_name(f"{path.stem}.{uuid4().hex}.part")
    try:
        # `open`, not `mkstemp`: others may read the file as far as the umask allows, since caches
        # are shared.
        with part.open("xb") as out:
            np.save(out, values, allow_pickle=False)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)  # still there when the disk was full


def read_entry(path: Path, shape: tuple[int, int]) -> Tensor:
    """Return an entry, float16 of ``shape``.

    Raises:
        FeatureError: ``cache_corrupt``, the file holds something else (delete it).
        FileNotFoundError: there is no such entry.
    """
    try:
        with path.open("rb") as entry:
            # Not np.load, which also takes a zip or a pickle and has other errors for them.
            values = np.lib.format.read_array(entry, allow_pickle=False)
    except (ValueError, EOFError, SyntaxError, TokenError) as error:
        raise FeatureError("cache_corrupt", f"{path} is no feature file; delete it") from error
    if values.shape != shape or values.dtype != np.float16:
        raise FeatureError(
            "cache_corrupt", f"{path} has shape {values.shape}, expected {shape}; delete it"
        )
    return torch.from_numpy(values)


def touch(entries: Collection[Path]) -> list[Path]:
    """Mark entries as used now, and return those that do not exist."""
    missing = []
    for entry in entries:
        try:
            os.utime(entry)
        except FileNotFoundError:
            missing.append(entry)
        except PermissionError:
            pass  # an entry of another user, who alone can mark it
    return missing


def make_room(cache: Path, wanted: int, limit: int, keep: Collection[Path]) -> int:
    """Delete the longest unused entries until ``wanted`` more bytes fit, and return their number.

    Args:
        wanted: bytes that the caller will write.
        limit: largest size of the cache, bytes.
        keep: entries that the caller uses, which stay.

    Raises:
        FeatureError: ``cache_too_small``, the caller's own entries do not fit.
    """
    kept = {str(path) for path in keep}
    found = sorted(_entries(cache), key=lambda entry: entry[1])
    own = wanted + sum(size for path, _, size in found if path in kept)
    if own > limit:
        raise FeatureError(
            "cache_too_small",
            f"the run's image features take {own / 1e9:.3g} GB, "
            f"data.cache_gb allows {limit / 1e9:.3g}",
        )
    total = wanted + sum(size for *_, size in found)
    deleted = 0
    for path, _, size in found:
        if total <= limit:
            break
        if path not in kept:
            with suppress(PermissionError):  # in the folder of another user
                Path(path).unlink(missing_ok=True)  # another run may have deleted it already
                total -= size
                deleted += 1
    return deleted


def _entries(cache: Path) -> Iterator[tuple[str, float, int]]:
    """Yield path, last use and bytes of every entry; part files of killed writers are deleted."""
    # os.walk and strings are faster than pathlib, which counts with hundreds of thousands of files.
    for folder, _, names in os.walk(cache):
        for name in names:
            path = os.path.join(folder, name)
            if not name.endswith((".npy", ".part")):
                continue
            try:
                stat = os.stat(path)
            except FileNotFoundError:
                continue  # deleted by another run meanwhile
            if name.endswith(".npy"):
                yield path, stat.st_mtime, stat.st_size
            elif time.time() - stat.st_mtime > _ABANDONED_S:
                Path(path).unlink(missing_ok=True)
