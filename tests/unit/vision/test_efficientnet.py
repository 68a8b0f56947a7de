"""Test the EfficientNet-lite backbones against the networks of the package they come from."""

from __future__ import annotations

import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor

from lmrrg.vision.cache import FeatureError
from lmrrg.vision.efficientnet import EfficientNetBackbone, patch_shape, weights_file

NAMES = ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"]


def published_maps(name: str, pixels: Tensor) -> dict[int, Tensor]:
    """Return the last map of every stride of the published network, not folded."""
    network = EfficientNet.from_name(name.replace("_", "-"), image_size=pixels.shape[-1]).eval()
    network.load_state_dict(torch.load(weights_file(name), weights_only=True))
    maps = {}
    with torch.no_grad():
        x = ((pixels * 255 - 127) / 128)[:, None].expand(-1, 3, -1, -1)
        x = network._swish(network._bn0(network._conv_stem(x)))
        for block in network._blocks:
            x = block(x)
            maps[pixels.shape[-1] // x.shape[-1]] = x
    return maps


@pytest.mark.parametrize("name", NAMES)
def test_a_patch_holds_the_published_networks_maps(name: str) -> None:
    pixels = torch.rand(2, 96, 96, generator=torch.Generator().manual_seed(0))
    maps = published_maps(name, pixels)
    backbone = EfficientNetBackbone(name, 96).eval()
    with torch.no_grad():
        encoded = backbone(pixels)
    assert encoded.shape == (2, backbone.patches, backbone.width) == (2, *patch_shape(name, 96))
    # Mean and maximum of the finer maps under each cell, cell 5 being row 1, column 2.
    fine, middle = maps[8][:, :, 4:8, 8:12], maps[16][:, :, 2:4, 4:6]
    expected = [part for x in (fine, middle) for part in (x.mean((2, 3)), x.amax((2, 3)))]
    expected.append(maps[32][:, :, 1, 2])
    torch.testing.assert_close(encoded[:, 5], torch.cat(expected, 1), atol=1e-4, rtol=1e-4)


def test_another_side_has_another_number_of_patches() -> None:
    backbone = EfficientNetBackbone("efficientnet_lite0", 64).eval()
    assert backbone(torch.rand(1, 128, 128)).shape == (1, 16, 624)


def test_an_impossible_image_size_is_refused() -> None:
    with pytest.raises(FeatureError, match="image_size"):
        patch_shape("efficientnet_lite0", 250)
