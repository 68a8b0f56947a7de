"""Read a radiograph from DICOM, PNG or JPEG, and fit it into the model's square."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from PIL.ExifTags import Base

from lmrrg.imaging import png16
from lmrrg.imaging.density import picture_bytes
from lmrrg.imaging.dicom.header import is_dicom
from lmrrg.imaging.dicom.reader import read_dicom
from lmrrg.imaging.plausibility import film_warnings
from lmrrg.imaging.polarity import checked_polarity
from lmrrg.imaging.radiograph import (
    DEFAULT_LIMITS,
    ImageError,
    Limits,
    Pixels,
    Polarity,
    Radiograph,
    check_bytes,
    check_density,
    check_size,
    colour_warnings,
    resize,
    stretch,
)

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
# Pillow has no error of its own for damaged files: its parsers raise whatever they run into.
# benchmarks/fuzz/images.py searches for errors that are missing here.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    IndexError,
    KeyError,
)
# Modes of Pillow without colours; those of 16 bits begin with I.
_GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")
# A damaged EXIF block can also hold values of the wrong type, or a fraction over zero.
_EXIF_DAMAGE = (*_DAMAGE, TypeError, AttributeError, ArithmeticError)
_TURNS: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Transposition that makes an image upright, by its EXIF orientation; 1 needs none."""


def read_image(
    source: Path | str | bytes,
    limits: Limits = DEFAULT_LIMITS,
    *,
    polarity: Polarity = "header",
) -> Radiograph:
    """Read one radiograph; its format is recognised by the content, never by the file name.

    Args:
        source: a path, or the bytes of a file.
        limits: limits on size, and on what else is refused.
        polarity: whether a film that surely looks inverted is only warned of (``header``), or
            turned (``pixels``).

    Raises:
        ImageError: see :data:`~lmrrg.imaging.radiograph.IMAGE_ERROR_CODES`.

    >>> read_image(b"plain text")
    Traceback (most recent call last):
    lmrrg.imaging.radiograph.ImageError: not_an_image: neither DICOM, PNG nor JPEG
    """
    data = source if isinstance(source, bytes) else read_bytes(Path(source), limits)
    check_bytes(len(data), limits)
    if data.startswith(_PNG):
        read = _read_picture(data, "png", limits, polarity)
    elif data.startswith(_JPEG):
        read = _read_picture(data, "jpeg", limits, polarity)
    elif is_dicom(data):
        read = read_dicom(data, limits, polarity=polarity)
    else:
        raise ImageError("not_an_image")
    if "looks_inverted" in read.warnings:
        return read  # so it is known why it would look like no film
    return replace(read, warnings=(*read.warnings, *film_warnings(read.pixels)))


def to_square(pixels: Pixels, size: int) -> Pixels:
    """Fit an image [H, W] into [size, size]: aspect ratio kept, centred on black, antialiased.

    Values stay inside the input's range.

    >>> to_square(np.ones((2, 4), np.float32), 4)
    array([[0., 0., 0., 0.],
           [1., 1., 1., 1.],
           [1., 1., 1., 1.],
           [0., 0., 0., 0.]], dtype=float32)
    """
    height, width = pixels.shape
    if height == width == size:
        return pixels
    scale = size / max(height, width)
    rows = max(1, round(height * scale))
    columns = max(1, round(width * scale))
    square = np.zeros((size, size), np.float32)
    top = (size - rows) // 2
    left = (size - columns) // 2
    square[top : top + rows, left : left + columns] = resize(pixels, rows, columns)
    return square


def read_bytes(path: Path, limits: Limits) -> bytes:
    """Return the content of a file that is not too long.

    Raises:
        ImageError: ``file_missing`` or ``too_large``.
    """
    if not path.is_file():
        raise ImageError("file_missing", f"{path} does not exist")
    check_bytes(path.stat().st_size, limits)
    return path.read_bytes()


def _read_picture(
    data: bytes, kind: Literal["png", "jpeg"], limits: Limits, polarity: Polarity
) -> Radiograph:
    """Read a PNG or JPEG, turned as its EXIF block says; transparent parts are black."""
    try:
        image = Image.open(io.BytesIO(data), formats=[kind.upper()])
    except Image.DecompressionBombError:
        raise ImageError("too_large") from None
    except _DAMAGE:
        raise ImageError("unreadable") from None
    # `open` has read the header only: the size is refused before the pixels take memory.
    check_size(image.height, image.width, limits)
    check_density(picture_bytes(data, kind), image.height, image.width)
    if kind == "png" and getattr(image, "is_animated", False):
        raise ImageError("multi_frame")
    try:
        image.load()
        colours = _colour_warnings(image)
        if kind == "png" and png16.has_several_samples(data):
            # Turned after the conversion: Pillow has no mode for colours of 16 bits.
            upright = _turned(Image.fromarray(png16.read(data)), _turn(image))
            grey = np.asarray(upright, np.float32)
        else:
            grey = _grey(_turned(image, _turn(image)))
    except ImageError:
        raise
    except _DAMAGE as error:
        raise ImageError("truncated" if "truncated" in str(error) else "unreadable") from None
    shown, found = checked_polarity(grey, polarity)
    return Radiograph(shown, "unknown", kind, (*found, *colours))


def _colour_warnings(image: Image.Image) -> tuple[str, ...]:
    """Return whether a decoded image, of whatever mode, is a picture in colours."""
    if image.mode in _GREY_MODES:
        return ()
    return colour_warnings(np.asarray(image.convert("RGB")), 255)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Return how to turn an image by its EXIF orientation; None where that cannot be read.

    ``ImageOps.exif_transpose`` would also rewrite the whole EXIF block, which fails on tags of an
    unusual type.
    """
    try:
        return _TURNS.get(image.getexif().get(Base.Orientation))
    except _EXIF_DAMAGE:
        return None


def _turned(image: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    """Return the image turned, or as it is for None."""
    return image if turn is None else image.transpose(turn)


def _grey(image: Image.Image) -> Pixels:
    """Return the luminance [H, W] of an image of any mode, in [0, 1].

    Raises:
        ImageError: ``constant_image``.
    """
    if image.mode.startswith("I"):
        # PNG with 16 bits usually holds 10 to 12 bits of detector values and does not state how
        # many, so their own range is shown.
        return stretch(np.asarray(image, dtype=np.float32))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    if image.mode != "L":
        image = image.convert("RGB").convert("L")
    pixels = np.asarray(image, dtype=np.float32) / 255.0
    if pixels.min() == pixels.max():
        raise ImageError("constant_image")
    return pixels
