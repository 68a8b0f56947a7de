"""Image features of studies, cached on disk by content hash."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from lmrrg.config.data import DataConfig
from lmrrg.files import file_hashes
from lmrrg.imaging.decoder_pool import DecoderPool, image_limits
from lmrrg.imaging.radiograph import ImageError, Pixels, Radiograph
from lmrrg.imaging.reading import read_bytes, read_image, to_square
from lmrrg.progress import progress_bar
from lmrrg.studies import Study
from lmrrg.views import VIEWS, choose_views
from lmrrg.vision.cache import FeatureError, entry_path, make_room, read_entry, touch, write_entry
from lmrrg.vision.encoder import FrozenImageEncoder, encoder_version, feature_shape, image_encoder
from lmrrg.vision.study_features import StudyFeatures

_WORTH_PROCESSES = 64  # images; starting the processes takes about a second


_READ_AHEAD = 256


_ENTRY_HEADER = 128  # bytes of an entry before its values


_BATCH = 4  # fastest on CPU: larger batches fall out of the cache


T = TypeVar("T")


READER_REVISION = 1
"""Of all that makes an image file the square which the encoder sees: raise it when a change moves a pixel, or cached
features would differ from those of an uploaded image."""


def image_hashes(
    studies: Sequence[Study], data: DataConfig, *, progress: bool = True
) -> dict[Path, str]:
    """The SHA-256 of every image that the model sees, in the studies' order; the feature cache remembers them."""
    paths = [
        Path(image.path)
        for study in studies
        for image in choose_views(study.images, data.max_views)
    ]
    return file_hashes(
        paths, Path(data.cache_dir).resolve() / "image_hashes.json", progress=progress
    )


class FeatureFiles:
    """The cached features of many studies: encodes what is missing, then reads any batch from disk.

    Only the batches that are asked for are in memory, and the object pickles as a list of paths, so workers of a
    cluster can share one cache folder. Entries are keyed by the SHA-256 of the image file and the encoder's version.
    The cache keeps to ``data.cache_gb``: the longest unused entries of other runs make room, none of those ``beside``,
    which the same run reads. An entry that another run removed is encoded again when it is read. ``hashes``, of
    :func:`image_hashes`, spares another look at every image.

    Raises:
        FeatureError: ``cache_corrupt`` for an entry of the wrong shape (delete the named file), ``cache_too_small``.
        ImageError: image files that cannot be read; all others are encoded first.
    """

    def __init__(
        self,
        studies: Sequence[Study],
        data: DataConfig,
        *,
        beside: Sequence[FeatureFiles] = (),
        hashes: Mapping[Path, str] | None = None,
        progress: bool = True,
    ) -> None:
        self._data = data
        size = data.image_size
        self._shape, self._max_views = feature_shape(size), data.max_views
        chosen = [choose_views(study.images, self._max_views) for study in studies]
        cache = Path(data.cache_dir).resolve()
        digests = image_hashes(studies, data, progress=progress) if hashes is None else hashes
        # An image that "flag" let in may be one that "refuse" would not.
        # The limits on size have no part in the name: they bound what decoding may cost, and an entry needs none.
        folder = (
            cache / f"{encoder_version(size)}-reader{READER_REVISION}-{data.burned_in_annotation}"
        )
        self._files = [
            [
                (
                    entry_path(folder, digests[Path(image.path)]),
                    Path(image.path),
                    VIEWS.index(image.view),
                )
                for image in images
            ]
            for images in chosen
        ]
        sources = {entry: image for files in self._files for entry, image, _ in files}
        missing = [(entry, sources[entry]) for entry in touch(sources)]
        if missing:
            wanted = len(missing) * (2 * self._shape[0] * self._shape[1] + _ENTRY_HEADER)
            kept = sources.keys() | {
                entry for other in beside for files in other._files for entry, *_ in files
            }
            make_room(cache, wanted, round(data.cache_gb * 1e9), kept)
            _encode_all(missing, image_encoder(size), data, progress)

    def __len__(self) -> int:
        return len(self._files)

    def select(self, index: Sequence[int]) -> StudyFeatures:
        """The studies at ``index`` as float16 features."""
        rows = [
            [(self._read(entry, image), view) for entry, image, view in self._files[i]]
            for i in index
        ]
        return _pack(rows, self._max_views, self._shape)

    def _read(self, entry: Path, image: Path) -> Tensor:
        try:
            return read_entry(entry, self._shape)
        except FileNotFoundError:
            _encode_all([(entry, image)], image_encoder(self._data.image_size), self._data, False)
            return read_entry(entry, self._shape)


def load_features(
    studies: Sequence[Study], data: DataConfig, *, progress: bool = True
) -> StudyFeatures:
    """Features of all ``studies`` (float16, in memory) through the disk cache; errors as :class:`FeatureFiles`."""
    return FeatureFiles(studies, data, progress=progress).select(range(len(studies)))


def load_features_from_images(
    studies: Sequence[Sequence[Radiograph]], data: DataConfig
) -> StudyFeatures:
    """Features of radiographs in memory, one inner list per study; nothing is written to disk.

    Values are rounded to float16 like the cached ones, so that both ways give the same report.

    Raises:
        FeatureError: ``no_images`` for a study without images.
    """
    encoder = image_encoder(data.image_size)
    rows = []
    for images in studies:
        chosen = choose_views(images, data.max_views)
        if not chosen:
            raise FeatureError("no_images", "a study needs at least one image")
        pixels = np.stack([to_square(image.pixels, encoder.image_size) for image in chosen])
        encoded = encoder.encode(torch.from_numpy(pixels)).half().cpu()
        rows.append(
            [
                (patches, VIEWS.index(image.view))
                for patches, image in zip(encoded, chosen, strict=True)
            ]
        )
    return _pack(rows, data.max_views, (encoder.patches, encoder.width))


def _pack(
    rows: list[list[tuple[Tensor, int]]], max_views: int, shape: tuple[int, int]
) -> StudyFeatures:
    patches = torch.zeros(len(rows), max_views, *shape, dtype=torch.float16)
    views = torch.zeros(len(rows), max_views, dtype=torch.long)
    mask = torch.zeros(len(rows), max_views, dtype=torch.bool)
    for i, row in enumerate(rows):
        for j, (values, view) in enumerate(row):
            patches[i, j], views[i, j], mask[i, j] = values, view, True
    return StudyFeatures(patches, views, mask)


def _encode_all(
    missing: list[tuple[Path, Path]], encoder: FrozenImageEncoder, data: DataConfig, progress: bool
) -> None:
    """Encode images into their cache entries; a run that is stopped goes on where it was.

    Raises:
        ImageError: images that cannot be read, by the first one's path and code, once all others are encoded.
    """
    refused: list[tuple[Path, ImageError]] = []
    with progress_bar(
        total=len(missing),
        desc="image features",
        unit="image",
        disable=not progress,
        mininterval=1.0,
    ) as bar:
        for group in _groups(_squares(missing, encoder.image_size, data), _BATCH):
            read = [
                (entry, square) for entry, _, square in group if not isinstance(square, ImageError)
            ]
            refused += [
                (image, square) for _, image, square in group if isinstance(square, ImageError)
            ]
            if read:
                pixels = np.stack([square for _, square in read])
                encoded = encoder.encode(torch.from_numpy(pixels)).half().cpu().numpy()
                for (entry, _), values in zip(read, encoded, strict=True):
                    write_entry(entry, values)
            bar.update(len(group))
    if refused:
        path, error = refused[0]
        raise ImageError(
            error.code,
            f"{path}: {error.args[1]} ({len(refused)} of {len(missing)} images are refused)",
        )


def _squares(
    missing: list[tuple[Path, Path]], size: int, data: DataConfig
) -> Iterator[tuple[Path, Path, Pixels | ImageError]]:
    """Entry, image, and the image's square or why it is refused, in order; read ahead in child processes."""
    limits = image_limits(data)

    def here(image: Path) -> Pixels | ImageError:
        try:
            return to_square(read_image(image, limits).pixels, size)
        except ImageError as error:
            return error

    if data.decode_workers == 0 or len(missing) < _WORTH_PROCESSES:
        yield from ((entry, image, here(image)) for entry, image in missing)
        return

    with DecoderPool(data.decode_workers, timeout_s=300, memory_mb=4096, limits=limits) as pool:

        def there(image: Path) -> Pixels | ImageError:
            try:
                return pool.decode(read_bytes(image, limits), square=size).pixels
            except ImageError as error:
                return error

        with ThreadPoolExecutor(data.decode_workers) as threads:
            for chunk in _groups(iter(missing), _READ_AHEAD):
                squares = threads.map(there, [image for _, image in chunk])
                yield from (
                    (entry, image, square)
                    for (entry, image), square in zip(chunk, squares, strict=True)
                )


def _groups(items: Iterator[T], size: int) -> Iterator[list[T]]:
    while group := list(islice(items, size)):
        yield group
