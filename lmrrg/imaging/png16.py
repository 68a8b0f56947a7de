"""Read PNG files whose pixels are several samples of 16 bits: colours, and grey with alpha.

Pillow keeps the high byte of such samples only, so a film of 12 bits would come out almost black
with 16 grey levels. The low bytes are read here by a second pass of the same decoder.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lmrrg.imaging.radiograph import BT601, ImageError, Pixels, stretch

# Colour types of the PNG standard (11.2.1).
_COLOUR = 2
_GREY_ALPHA = 4
_COLOUR_ALPHA = 6
# IHDR follows the signature: length, name, width, height, bit depth, colour type.
_IHDR = slice(12, 29)
_DEPTH = 24
_COLOUR_TYPE = 25
_IHDR_CRC = slice(29, 33)
_WHITE = 65535.0


def has_several_samples(data: bytes) -> bool:
    """Return whether a PNG file has two, three or four samples of 16 bits in each pixel."""
    kinds = (_COLOUR, _GREY_ALPHA, _COLOUR_ALPHA)
    return data[12:16] == b"IHDR" and data[_DEPTH] == 16 and data[_COLOUR_TYPE] in kinds


def read(data: bytes) -> Pixels:
    """Return the luminance over its own range, [H, W] in [0, 1]; transparent parts are black.

    Raises:
        ImageError: ``constant_image``, all pixels that are not transparent have one value.
        OSError, SyntaxError, ValueError and others of Pillow: the file is damaged.
    """
    grey, alpha = _grey_alpha(data) if data[_COLOUR_TYPE] == _GREY_ALPHA else _colour(data)
    is_present = alpha > 0
    if not is_present.any():
        raise ImageError("constant_image")
    # Transparent parts hold any value, which must not widen the range.
    shown = np.zeros(grey.shape, np.float32)
    shown[is_present] = stretch(grey[is_present])
    return shown * alpha.astype(np.float32)


def _grey_alpha(data: bytes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return grey [H, W] from 0 to 65535 and alpha [H, W] from 0 to 1 of a file with both."""
    # Two samples of 16 bits lie, and are filtered, like four of 8: the file is read as such.
    changed = bytearray(data)
    changed[_DEPTH] = 8
    changed[_COLOUR_TYPE] = _COLOUR_ALPHA
    changed[_IHDR_CRC] = struct.pack(">I", zlib.crc32(changed[_IHDR]))
    samples = np.asarray(Image.open(io.BytesIO(changed), formats=["PNG"])).view(">u2")
    return samples[..., 0].astype(np.float64), samples[..., 1] / _WHITE


def _colour(data: bytes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return luminance [H, W] from 0 to 65535 and alpha [H, W] from 0 to 1 of a colour file."""
    image = Image.open(io.BytesIO(data), formats=["PNG"])
    transparent = image.info.get("transparency")
    # The unpacker for the other byte order takes the second byte of each sample.
    low_bytes = Image.open(io.BytesIO(data), formats=["PNG"])
    low_bytes.tile = [tile._replace(args=f"{low_bytes.mode};16L") for tile in low_bytes.tile]
    samples = np.asarray(image).astype(np.uint16) << 8 | np.asarray(low_bytes)
    grey = samples[..., :3] @ BT601
    if samples.shape[2] == 4:
        return grey, samples[..., 3] / _WHITE
    if isinstance(transparent, tuple):
        return grey, (samples != np.array(transparent)).any(axis=-1).astype(np.float64)
    return grey, np.ones(grey.shape)
