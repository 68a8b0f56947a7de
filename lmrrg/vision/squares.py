"""Keep the films of many studies as squares of bytes that are mapped into memory.

Training an image encoder reads every film once an epoch. Decoding it each time would take longer
than the training step, and its features cannot be cached, since they change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

from lmrrg.config.data import DataConfig
from lmrrg.imaging.batch import RefusedImage, groups, read_squares, refusal
from lmrrg.imaging.radiograph import ImageError
from lmrrg.progress import progress_bar
from lmrrg.studies import Study
from lmrrg.views import choose_views
from lmrrg.vision.cache import make_room, touch
from lmrrg.vision.files import reader_name

SHARD = 2048
"""Films of one file: as many at most are decoded again after an interruption."""


class Squares:
    """The films of studies, uint8 [side, side], in files of up to :data:`SHARD`.

    Missing files are made. They lie in the feature cache and keep to its size. Their names hash the
    films, the image reader and the side, so runs share them. The object pickles as a list of paths.

    Args:
        studies: with their images; the first ``data.max_views`` of each are its films.
        data: image size, limits on images, and the cache.
        hashes: result of :func:`~lmrrg.vision.files.image_hashes`.

    Attributes:
        films: numbers of the films of each study.

    Raises:
        ImageError: ``refused_images``, some cannot be read; all other files are made first.
        FeatureError: ``cache_too_small``.
    """

    def __init__(
        self,
        studies: Sequence[Study],
        data: DataConfig,
        hashes: Mapping[Path, str],
        *,
        progress: bool = True,
    ) -> None:
        self._side = data.image_size
        self.films: list[range] = []
        paths: list[Path] = []
        for study in studies:
            chosen = [Path(image.path) for image in choose_views(study.images, data.max_views)]
            self.films.append(range(len(paths), len(paths) + len(chosen)))
            paths += chosen
        shards = list(groups(paths, SHARD))
        folder = Path(data.cache_dir).resolve() / f"squares-{self._side}-{reader_name(data)}"
        self._files = [folder / f"{_name(shard, hashes)}.npy" for shard in shards]
        self._make_missing(dict(zip(self._files, shards, strict=True)), data, progress)

    def __len__(self) -> int:
        return len(self.films)

    def select(self, index: Iterable[int]) -> tuple[Tensor, Tensor]:
        """Return the films of the studies at ``index``, and whose they are.

        Returns:
            uint8 [N, side, side], and int64 [N]: the place of each film's study in ``index``.
        """
        numbers: list[int] = []
        owners: list[int] = []
        for place, study in enumerate(index):
            numbers += self.films[study]
            owners += [place] * len(self.films[study])
        squares = np.stack([self._read(number) for number in numbers])
        return torch.from_numpy(squares), torch.tensor(owners)

    def _read(self, number: int) -> np.ndarray:
        shard, row = divmod(number, SHARD)
        return _mapped(self._files[shard])[row]

    def _make_missing(
        self, shards: Mapping[Path, Sequence[Path]], data: DataConfig, progress: bool
    ) -> None:
        missing = touch(shards)
        films = sum(len(shards[file]) for file in missing)
        if not missing:
            return
        wanted = films * self._side**2
        make_room(Path(data.cache_dir).resolve(), wanted, round(data.cache_gb * 1e9), set(shards))
        refused: list[RefusedImage] = []
        with progress_bar(total=films, desc="squares", unit="image", disable=not progress) as bar:
            for file in missing:
                squares, bad = _read_all(shards[file], data)
                refused += bad
                if not bad:
                    _write(file, squares)
                bar.update(len(shards[file]))
        if refused:
            raise refusal(refused, films)


@cache
def _mapped(path: Path) -> np.ndarray:
    """Map a file into memory; it stays readable when another run deletes it to make room."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _read_all(paths: Sequence[Path], data: DataConfig) -> tuple[np.ndarray, list[RefusedImage]]:
    """Return the images at ``paths`` as uint8 [N, side, side], and those that cannot be read."""
    squares = np.zeros((len(paths), data.image_size, data.image_size), np.uint8)
    refused = []
    images = read_squares(paths, data, data.image_size)
    for square, path, image in zip(squares, paths, images, strict=True):
        if isinstance(image, ImageError):
            refused.append(RefusedImage(path, image.code))
        else:
            square[:] = np.rint(image.pixels * 255)
    return squares, refused


def _write(path: Path, squares: np.ndarray) -> None:
    """Write a file of squares; it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not atomic_writer: `make_room` knows by the suffix .part what a killed writer has left.
    part = path.with_name(f"{path.stem}.{uuid4().hex}.part")
    try:
        with part.open("xb") as out:
            np.save(out, squares, allow_pickle=False)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)  # still there when the disk was full


def _name(shard: Sequence[Path], hashes: Mapping[Path, str]) -> str:
    digests = " ".join(hashes[path] for path in shard)
    return hashlib.sha256(digests.encode()).hexdigest()
