"""Read the images of a data set, many of them by child processes, and name the refused ones."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

from lmrrg.config.data import DataConfig
from lmrrg.imaging.decoder_pool import DecoderPool, image_limits
from lmrrg.imaging.radiograph import ImageError, Radiograph
from lmrrg.imaging.reading import read_bytes, read_image, to_square

_WORTH_PROCESSES = 64  # images; starting the child processes takes about a second
_READ_AHEAD = 256  # images whose squares are in memory at most, 64 MB at 256 x 256 pixels
_MOST_NAMES = 20
"""Refused images that an error names; the others are counted."""

T = TypeVar("T")


class RefusedImage(NamedTuple):
    """A file that is not read, and the code that says why."""

    path: Path
    code: str


def read_by_settings(path: Path, data: DataConfig) -> Radiograph:
    """Read one image in this process, with the limits and the polarity that the settings state.

    Raises:
        ImageError: see :data:`~lmrrg.imaging.radiograph.IMAGE_ERROR_CODES`.
    """
    return read_image(path, image_limits(data), polarity=data.polarity)


def read_squares(
    paths: Sequence[Path], data: DataConfig, size: int
) -> Iterator[Radiograph | ImageError]:
    """Yield each image as a square of side ``size``, or why it is refused, in order.

    Many are read by ``data.decode_workers`` child processes, few in this one.
    """
    if data.decode_workers == 0 or len(paths) < _WORTH_PROCESSES:
        for path in paths:
            yield _read_here(path, data, size)
        return
    # Ample limits: the files are the user's own, and a batch job should not fail on a slow disk.
    pool = DecoderPool(
        data.decode_workers,
        timeout_s=300,
        memory_mb=4096,
        limits=image_limits(data),
        polarity=data.polarity,
    )
    with pool, ThreadPoolExecutor(data.decode_workers) as threads:

        def read(path: Path) -> Radiograph | ImageError:
            return _read_in_child(path, data, size, pool)

        for chunk in groups(paths, _READ_AHEAD):
            yield from threads.map(read, chunk)


def refusal(refused: Sequence[RefusedImage], count: int) -> ImageError:
    """Return the error for the refused ones among ``count`` images: each file and its code.

    >>> told = refusal([RefusedImage(Path("/films/1/a.png"), "truncated")], count=6)
    >>> print(told)  # doctest: +ELLIPSIS
    refused_images: 1 of 6 images are refused, in /films/1: a.png (truncated); ...
    """
    folder, lines = refused_lines(refused)
    named = ", ".join(lines[:_MOST_NAMES])
    more = len(lines) - _MOST_NAMES
    if more > 0:
        named += f" and {more} more"
    return ImageError(
        "refused_images",
        f"{len(refused)} of {count} images are refused, in {folder}: {named}; "
        "data.skip_refused_images=true leaves them out",
    )


def refused_lines(refused: Sequence[RefusedImage]) -> tuple[Path, list[str]]:
    """Return the folder that all refused images lie in, and the name and code of each."""
    folder = Path(os.path.commonpath([image.path.parent for image in refused]))
    return folder, [f"{image.path.relative_to(folder)} ({image.code})" for image in refused]


def groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of ``size``; the last one may be shorter.

    >>> list(groups("abc", 2))
    [['a', 'b'], ['c']]
    """
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group


def _read_here(path: Path, data: DataConfig, size: int) -> Radiograph | ImageError:
    try:
        read = read_by_settings(path, data)
    except ImageError as error:
        return error
    return replace(read, pixels=to_square(read.pixels, size))


def _read_in_child(
    path: Path, data: DataConfig, size: int, pool: DecoderPool
) -> Radiograph | ImageError:
    try:
        return pool.decode(read_bytes(path, image_limits(data)), square=size)
    except ImageError as error:
        return error
