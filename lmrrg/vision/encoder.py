"""Encode images into patches and class logits, by an encoder that the settings name."""

from __future__ import annotations

import hashlib
import math
import re
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lmrrg.config.model import ImageEncoderConfig
from lmrrg.files import file_hash
from lmrrg.own_code import is_own, load_own
from lmrrg.vision.cache import FeatureError
from lmrrg.vision.calibration import Calibration
from lmrrg.vision.efficientnet import LAYOUT, EfficientNetBackbone, patch_shape, weights_file
from lmrrg.vision.eye import (
    BACKBONE,
    Backbone,
    Encoded,
    Eye,
    eye_calibration,
    eye_files,
    is_eye,
    load_eye,
    read_eye_settings,
)
from lmrrg.vision.huggingface import HUGGINGFACE, HuggingFaceBackbone, model_files, model_folder

PACKAGED = ImageEncoderConfig()
_PARTS = ("image_size", "version", "patches", "width", "encode")


@dataclass(frozen=True)
class EncoderInfo:
    """What is known of an encoder before its weights are in memory."""

    image_size: int
    """Side of the square that it was built for, pixels."""
    patches: int
    """P, the patches of an image: a square number, since they form a square grid."""
    width: int
    """C, the channels of a patch."""
    version: str
    """Name of its weights and layout: part of the feature cache's keys and of checkpoints."""
    calibration: Calibration | None
    """How its class logits become probabilities; None: it has no class head."""


class ImageEncoder(Protocol):
    """What turns squares into patch features; one of somebody's own is ``model.image_encoder``."""

    @property
    def info(self) -> EncoderInfo:
        """Return what :func:`encoder_info` returns."""

    def encode(self, pixels: Tensor) -> Encoded:
        """Encode images, float [N, side, side] in [0, 1], without gradients."""


class FrozenImageEncoder(nn.Module):
    """A backbone, or an eye, that is never trained here."""

    def __init__(self, network: Backbone | Eye, info: EncoderInfo) -> None:
        super().__init__()
        self.network = network.eval()
        self.info = info
        self.requires_grad_(False)

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Encoded:
        """Encode images, float [N, side, side] in [0, 1]."""
        device = next(self.parameters()).device
        encoded = self.network(pixels.to(device, torch.float32))
        return encoded if isinstance(encoded, Encoded) else Encoded(encoded, None)


class OwnImageEncoder:
    """An encoder of somebody's own, ``made`` by the function that the settings name."""

    def __init__(self, made: Any, name: str) -> None:
        _check_own(made, name)
        self._made = made
        calibration = getattr(made, "calibration", None)
        self.info = EncoderInfo(
            made.image_size, made.patches, made.width, made.version, calibration
        )

    def encode(self, pixels: Tensor) -> Encoded:
        """Encode images; the function's encoder returns patches, or patches and logits."""
        encoded = self._made.encode(pixels)
        return Encoded(*encoded) if isinstance(encoded, tuple) else Encoded(encoded, None)


def encoder_info(image_size: int, encoder: ImageEncoderConfig = PACKAGED) -> EncoderInfo:
    """Describe the encoder of the settings for squares of ``image_size`` pixels.

    Raises:
        CodedError: ``own_code``, there is no such function.
        FeatureError: ``image_size``; ``encoder_weights``; ``own_code``, what the function made is
            no encoder.

    >>> encoder_info(256).patches, encoder_info(256).width
    (64, 624)
    """
    if is_own(encoder.name):
        return _own_encoder(image_size, encoder.name).info
    root, files = _source(encoder)
    calibration = None
    kind = encoder.name
    if is_eye(root):
        settings = read_eye_settings(root)
        if settings.get("name") != encoder.name:
            raise FeatureError(
                "encoder_weights",
                f"{root} is an eye of {settings.get('name')}, but model.image_encoder.name is "
                f"{encoder.name}",
            )
        calibration = eye_calibration(settings, root)
        kind += "-eye"
    # Of an eye the settings count too: its calibration decides what features say of a finding.
    digest = _digest(*files)
    if encoder.name == HUGGINGFACE:
        shape = _huggingface_shape(root / BACKBONE if is_eye(root) else root, image_size, digest)
        version = f"{kind}-{digest}-{image_size}"
    else:
        shape = patch_shape(encoder.name, image_size)
        version = f"{kind}-{digest}-{LAYOUT}-{image_size}"
    return EncoderInfo(image_size, *shape, version, calibration)


def copy_weights(encoder: ImageEncoderConfig, target: Path) -> None:
    """Copy what ``model.image_encoder.weights`` names into a new folder.

    Raises:
        FeatureError: ``encoder_weights``, there are no weights.
    """
    root, files = _source(encoder)
    for file in files:
        copy = target / file.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)


def image_encoder(image_size: int, encoder: ImageEncoderConfig = PACKAGED) -> ImageEncoder:
    """Return the process's encoder for one image size, on the GPU where there is one.

    Two are kept: the model's, and the one of the view check, whose image size may differ.

    Args:
        image_size: side of the square, pixels.
        encoder: ``model.image_encoder``; ``module:function`` is called with ``image_size``.

    Raises:
        CodedError, FeatureError: as :func:`encoder_info`.
    """
    if is_own(encoder.name):
        return _own_encoder(image_size, encoder.name)
    return _frozen_encoder(encoder, encoder_info(image_size, encoder))


@lru_cache(maxsize=2)
def _own_encoder(image_size: int, name: str) -> OwnImageEncoder:
    return OwnImageEncoder(load_own(name, "model.image_encoder")(image_size), name)


@lru_cache(maxsize=2)
def _frozen_encoder(encoder: ImageEncoderConfig, info: EncoderInfo) -> FrozenImageEncoder:
    network: Backbone | Eye
    if encoder.weights is None:
        network = EfficientNetBackbone(encoder.name, info.image_size)
    elif info.calibration is not None:
        network = load_eye(Path(encoder.weights), info.image_size)
    else:
        network = HuggingFaceBackbone(model_folder(encoder.weights), info.image_size)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return FrozenImageEncoder(network, info).to(device)


def _source(encoder: ImageEncoderConfig) -> tuple[Path, list[Path]]:
    """Return the folder of the encoder's weights, and the files in it that count.

    Raises:
        FeatureError: ``encoder_weights``.
    """
    if encoder.weights is None:
        packaged = weights_file(encoder.name)
        return packaged.parent, [packaged]
    if encoder.name != HUGGINGFACE:
        folder = Path(encoder.weights)
        return folder, eye_files(folder)
    folder = model_folder(encoder.weights)
    return folder, eye_files(folder) if is_eye(folder) else model_files(folder)


@lru_cache
def _huggingface_shape(folder: Path, image_size: int, digest: str) -> tuple[int, int]:
    """Return patches and channels; ``digest`` names the files, which may be written anew."""
    with torch.device("meta"):  # no memory, no numbers
        backbone = HuggingFaceBackbone(folder, image_size, weights=False)
    return backbone.patches, backbone.width


def _digest(*files: Path) -> str:
    """Return twelve hexadecimal digits of the SHA-256 over the files' own hashes."""
    digests = [_file_digest(file, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    if len(digests) == 1:
        return digests[0][:12]
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:12]


@lru_cache
def _file_digest(path: Path, size: int, changed_ns: int) -> str:
    # Size and time are part of the cache's key: a folder may be written anew in one process.
    return file_hash(path)


def _check_own(made: Any, name: str) -> None:
    lacking = [part for part in _PARTS if not hasattr(made, part)]
    if lacking:
        why = f"what {name} returns lacks {', '.join(lacking)}"
        raise FeatureError("own_code", why)
    if math.isqrt(made.patches) ** 2 != made.patches:
        why = f"the {made.patches} patches of {name} form no square grid"
        raise FeatureError("own_code", why)
    # It is part of the name of a folder.
    if not re.fullmatch(r"[\w.-]+", made.version):
        why = f"the version of {name} may have letters, digits, '.', '_' and '-' only"
        raise FeatureError("own_code", why)
