"""Read the image features of studies, through a disk cache keyed by content."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lmrrg.config.data import DataConfig
from lmrrg.config.model import ImageEncoderConfig
from lmrrg.files import file_hashes
from lmrrg.imaging.batch import RefusedImage, groups, read_squares, refusal
from lmrrg.imaging.radiograph import ImageError, Radiograph
from lmrrg.imaging.reading import to_square
from lmrrg.progress import progress_bar
from lmrrg.studies import LABELS, Study
from lmrrg.views import VIEWS, choose_views
from lmrrg.vision.cache import (
    Entry,
    FeatureError,
    entry_bytes,
    entry_path,
    make_room,
    read_entry,
    touch,
    write_entry,
)
from lmrrg.vision.encoder import PACKAGED, EncoderInfo, ImageEncoder, encoder_info, image_encoder
from lmrrg.vision.eye import Encoded
from lmrrg.vision.study_features import StudyFeatures

logger = logging.getLogger(__name__)

_BATCH = 4  # images; fastest on CPU: the activations of larger batches do not fit its cache

READER_REVISION = 3
"""Revision of all code between an image file and the encoder's square.

It is part of the cache's keys. Raise it when a change moves a pixel; otherwise cached features
would differ from those of an uploaded image.
"""


class _CachedImage(NamedTuple):
    """One image of a study: its entry in the cache, its file, its index into ``VIEWS``."""

    entry: Path
    image: Path
    view: int


def image_hashes(
    studies: Sequence[Study], data: DataConfig, *, progress: bool = True
) -> dict[Path, str]:
    """Return the SHA-256 of every image that the model sees, in the studies' order.

    The cache folder remembers them, so an unchanged file is hashed once.
    """
    paths: list[Path] = []
    for study in studies:
        paths += [Path(image.path) for image in choose_views(study.images, data.max_views)]
    remembered = Path(data.cache_dir).resolve() / "image_hashes.json"
    return file_hashes(paths, remembered, progress=progress)


class FeatureFiles:
    """The cached features of many studies; missing ones are encoded when it is made.

    A batch is read from disk when it is asked for. The object pickles as a list of paths, so the
    workers of a cluster can share one cache folder. Entries are keyed by the SHA-256 of the image
    file and the encoder's version. An entry that another run removed is encoded again on reading.

    Args:
        data: image size, views per study, limits on images, and the cache: its folder and its
            largest size ``cache_gb``, for which the longest unused entries of other runs give way.
        beside: feature files of the same run, whose entries stay.
        hashes: result of :func:`image_hashes`, where the caller has it already.
        encoder: ``model.image_encoder``.

    Raises:
        FeatureError: ``cache_corrupt``, an entry of the wrong shape (delete the named file), or
            ``cache_too_small``.
        ImageError: ``refused_images``, some cannot be read; all others are encoded first.
    """

    def __init__(
        self,
        studies: Sequence[Study],
        data: DataConfig,
        *,
        beside: Sequence[FeatureFiles] = (),
        hashes: Mapping[Path, str] | None = None,
        progress: bool = True,
        encoder: ImageEncoderConfig = PACKAGED,
    ) -> None:
        self._data = data
        self._encoder = encoder
        self._info = encoder_info(data.image_size, encoder)
        cache = Path(data.cache_dir).resolve()
        digests = image_hashes(studies, data, progress=progress) if hashes is None else hashes
        folder = cache / f"{self._info.version}-{reader_name(data)}"
        self._files: list[list[_CachedImage]] = []
        for study in studies:
            images = choose_views(study.images, data.max_views)
            paths = [Path(image.path) for image in images]
            self._files.append(
                [
                    _CachedImage(entry_path(folder, digests[path]), path, VIEWS.index(image.view))
                    for path, image in zip(paths, images, strict=True)
                ]
            )
        sources = self._images_by_entry()
        missing = [(entry, sources[entry]) for entry in touch(sources)]
        if missing:
            wanted = len(missing) * entry_bytes(_shape(self._info), _has_logits(self._info))
            kept = set(sources)
            for other in beside:
                kept |= other._images_by_entry().keys()
            make_room(cache, wanted, round(data.cache_gb * 1e9), kept)
            _encode_all(missing, image_encoder(data.image_size, encoder), data, progress)

    def __len__(self) -> int:
        return len(self._files)

    def select(self, index: Sequence[int]) -> StudyFeatures:
        """Return the studies at ``index`` as float16 features."""
        rows = [self._read_study(self._files[i]) for i in index]
        return _pack(rows, self._data.max_views, self._info)

    def _read_study(self, images: list[_CachedImage]) -> list[tuple[Entry, int]]:
        return [(self._read(cached), cached.view) for cached in images]

    def _images_by_entry(self) -> dict[Path, Path]:
        # A dict: films that several studies share, or copies of a file, are encoded once.
        return {cached.entry: cached.image for files in self._files for cached in files}

    def _read(self, cached: _CachedImage) -> Entry:
        try:
            return self._read_entry(cached.entry)
        except FileNotFoundError:
            # Another run needed the room after this one had started.
            encoder = image_encoder(self._data.image_size, self._encoder)
            _encode_all([(cached.entry, cached.image)], encoder, self._data, False)
            return self._read_entry(cached.entry)

    def _read_entry(self, path: Path) -> Entry:
        return read_entry(path, _shape(self._info), _has_logits(self._info))


def _shape(info: EncoderInfo) -> tuple[int, int]:
    return info.patches, info.width


def _has_logits(info: EncoderInfo) -> bool:
    return info.calibration is not None


def reader_name(data: DataConfig) -> str:
    """Return what of the image reader decides whether an entry holds the right features.

    That is its revision, and each setting that moves a pixel or refuses an image that another value
    let in. The limits on size are left out: they bound the cost of decoding, which an entry has
    not.
    """
    name = f"reader{READER_REVISION}-{data.burned_in_annotation}"
    if data.allow_secondary_capture:
        name += "-captures"
    if data.body_part == "any":
        name += "-any_part"
    return f"{name}-by_pixels" if data.polarity == "pixels" else name


def load_features(
    studies: Sequence[Study],
    data: DataConfig,
    *,
    progress: bool = True,
    encoder: ImageEncoderConfig = PACKAGED,
) -> StudyFeatures:
    """Return the features of all ``studies`` (float16, in memory) through the disk cache.

    Raises:
        FeatureError, ImageError: as :class:`FeatureFiles`.
    """
    files = FeatureFiles(studies, data, progress=progress, encoder=encoder)
    return files.select(range(len(studies)))


def load_features_from_images(
    studies: Sequence[Sequence[Radiograph]],
    data: DataConfig,
    encoder: ImageEncoderConfig = PACKAGED,
) -> StudyFeatures:
    """Return the features of radiographs in memory, one inner list per study.

    Nothing is written to disk. Values are rounded to float16 like the cached ones, so that both
    ways give the same report.

    Raises:
        FeatureError: ``no_images``, a study without images.
    """
    eye = image_encoder(data.image_size, encoder)
    rows = []
    for images in studies:
        chosen = choose_views(images, data.max_views)
        if not chosen:
            raise FeatureError("no_images", "a study needs at least one image")
        pixels = np.stack([to_square(image.pixels, eye.info.image_size) for image in chosen])
        entries = _entries(eye.encode(torch.from_numpy(pixels)))
        views = [VIEWS.index(image.view) for image in chosen]
        rows.append(list(zip(entries, views, strict=True)))
    return _pack(rows, data.max_views, eye.info)


def _entries(encoded: Encoded) -> list[Entry]:
    """Return what the cache would hold of each image."""
    patches = encoded.patches.half().cpu()
    if encoded.logits is None:
        return [Entry(of_image, None) for of_image in patches]
    return list(map(Entry, patches, encoded.logits.float().cpu()))


def _pack(rows: list[list[tuple[Entry, int]]], max_views: int, info: EncoderInfo) -> StudyFeatures:
    """Pack entry and view of every image into padded tensors."""
    patches = torch.zeros(len(rows), max_views, *_shape(info), dtype=torch.float16)
    views = torch.zeros(len(rows), max_views, dtype=torch.long)
    mask = torch.zeros(len(rows), max_views, dtype=torch.bool)
    for i, row in enumerate(rows):
        for j, (entry, view) in enumerate(row):
            patches[i, j] = entry.patches
            views[i, j] = view
            mask[i, j] = True
    return StudyFeatures(patches, views, mask, _evidence(rows, info))


def _evidence(rows: list[list[tuple[Entry, int]]], info: EncoderInfo) -> Tensor:
    """Return the probability of every finding, [B, 14]; NaN without a class head.

    A study's logit is the mean over its films.
    """
    if info.calibration is None:
        return torch.full((len(rows), len(LABELS)), torch.nan)
    logits = torch.zeros(len(rows), len(LABELS))
    for i, row in enumerate(rows):
        logits[i] = torch.stack(
            [entry.logits for entry, _ in row if entry.logits is not None]
        ).mean(0)
    return info.calibration.probabilities(logits)


def _encode_all(
    missing: list[tuple[Path, Path]], encoder: ImageEncoder, data: DataConfig, progress: bool
) -> None:
    """Encode images, given as pairs of entry and file, into the cache.

    Entries are written batch by batch, so a run that was stopped continues where it was.

    Raises:
        ImageError: ``refused_images``, some cannot be read; raised once all others are encoded.
    """
    refused: list[RefusedImage] = []
    inverted = 0
    images = read_squares([path for _, path in missing], data, encoder.info.image_size)
    with progress_bar(
        total=len(missing),
        desc="image features",
        unit="image",
        disable=not progress,
        mininterval=1.0,
    ) as bar:
        for group in groups(zip(missing, images, strict=True), _BATCH):
            targets = []
            pixels = []
            for (target, path), image in group:
                if isinstance(image, ImageError):
                    refused.append(RefusedImage(path, image.code))
                    continue
                targets.append(target)
                pixels.append(image.pixels)
                inverted += "looks_inverted" in image.warnings
            if targets:
                encoded = encoder.encode(torch.from_numpy(np.stack(pixels)))
                for target, entry in zip(targets, _entries(encoded), strict=True):
                    write_entry(target, entry)
            bar.update(len(group))
    if inverted:
        logger.warning(
            "%d of %d images look inverted; data.polarity=pixels turns them", inverted, len(missing)
        )
    if refused:
        raise refusal(refused, len(missing))
