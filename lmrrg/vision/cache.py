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
from typing import NamedTuple
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

from lmrrg.errors import CodedError
from lmrrg.studies import LABELS

_HEADER = 256
"""Bytes of a file of the cache before its values, at most."""
_ABANDONED_S = 86_400.0
"""Age at which a part file belongs to a writer that was killed, seconds."""


class FeatureError(CodedError):
    """Image features that cannot be used; ``code`` is stable."""


class Entry(NamedTuple):
    """The features of one image: patches float16 [P, C]; logits float32 [14], or None."""

    patches: Tensor
    logits: Tensor | None


def entry_path(folder: Path, digest: str) -> Path:
    """Return the path of the features of the image file with this SHA-256."""
    # 256 subfolders: a data set has hundreds of thousands of images.
    return folder / digest[:2] / f"{digest}.npy"


def write_entry(path: Path, entry: Entry) -> None:
    """Write an entry; it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = entry.patches.numpy()
    if entry.logits is not None:
        values = np.zeros((), _entry_type(values.shape, has_logits=True))
        values["patches"] = entry.patches
        values["logits"] = entry.logits
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


def read_entry(path: Path, shape: tuple[int, int], has_logits: bool) -> Entry:
    """Return an entry of patches of ``shape``, with logits or without.

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
    expected = np.zeros((), _entry_type(shape, has_logits))
    if values.shape != expected.shape or values.dtype != expected.dtype:
        raise FeatureError(
            "cache_corrupt", f"{path} has shape {values.shape}, expected {shape}; delete it"
        )
    if not has_logits:
        return Entry(torch.from_numpy(values), None)
    return Entry(torch.from_numpy(values["patches"]), torch.from_numpy(values["logits"]))


def entry_bytes(shape: tuple[int, int], has_logits: bool) -> int:
    """Return the bytes that an entry takes, the header of its file included."""
    return _entry_type(shape, has_logits).itemsize + _HEADER


def _entry_type(shape: tuple[int, ...], has_logits: bool) -> np.dtype:
    """Return the type of an entry: an array of patches, or a record of patches and logits."""
    if not has_logits:
        return np.dtype((np.float16, shape))
    return np.dtype([("patches", np.float16, shape), ("logits", np.float32, (len(LABELS),))])


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
