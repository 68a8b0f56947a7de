"""A decoded radiograph, its limits, and the one error that every reader of images raises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lmrrg.errors import CodedError
from lmrrg.studies import View

Pixels = NDArray[np.float32]

MIN_SIDE = 64

IMAGE_ERROR_CODES: dict[str, str] = {
    "file_missing": "there is no file of that name",
    "not_an_image": "neither DICOM, PNG nor JPEG",
    "unreadable": "the file is damaged",
    "truncated": "the file ends before its pixels do",
    "too_large": "more bytes or pixels than are allowed",
    "too_small": f"a side is shorter than {MIN_SIDE} pixels",
    "size_mismatch": "the pixel data do not have the size that the header states",
    "no_pixels": "the DICOM object holds no pixel data",
    "multi_frame": "more than one frame",
    "wrong_modality": "not a projection radiograph (CR, DX, RG)",
    "unsupported_transfer_syntax": "a DICOM encoding that is not read",
    "unsupported_photometric": "a DICOM colour model that is not read",
    "unsupported_bits": "a DICOM image whose samples are not 8 or 16 bits wide",
    "constant_image": "all pixels have the same value",
    "burned_in_annotation": "the header says that text is burned into the pixels",
    "decoder_timeout": "decoding took longer than is allowed",
    "decoder_memory": "decoding needed more memory than is allowed",
    "decoder_crashed": "the decoder died on this file",
    "decoder_busy": "all decoders are busy; try again soon",
}
"""Every code that an :class:`ImageError` can carry, with its meaning."""


class ImageError(CodedError):
    """An image that is refused; ``code`` is a stable key of :data:`IMAGE_ERROR_CODES`.

    The message never holds anything from the file's header, so it may be logged and shown.
    """

    def __init__(self, code: str, detail: str = ""):
        super().__init__(code, detail or IMAGE_ERROR_CODES[code])


@dataclass(frozen=True)
class Limits:
    """What a reader accepts; all of it is checked before pixels are decoded."""

    max_bytes: int = 256 * 2**20
    """Of a file, and of a deflated DICOM data set once inflated."""
    max_pixels: int = 48_000_000
    burned_in: Literal["flag", "refuse"] = "flag"
    """A DICOM file that says it has text burned in: read it with ``burned_in`` set, or refuse it."""


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Radiograph:
    """One image, ready for the model: bone is bright, air is dark, pixels are square.

    ``pixels`` is float32 [H, W] in [0, 1]. ``burned_in`` is True where a DICOM header says that text, which may name
    the patient, is part of the picture; False where it says not, or nothing.
    """

    pixels: Pixels
    view: View
    source: Literal["dicom", "png", "jpeg"]
    burned_in: bool = False


def check_size(rows: int, columns: int, limits: Limits) -> None:
    """Refuse an image by the size that its header states, before anything is decoded.

    Raises:
        ImageError: ``too_large`` or ``too_small``.
    """
    if min(rows, columns) < MIN_SIDE:
        raise ImageError("too_small")
    if rows * columns > limits.max_pixels:
        raise ImageError("too_large", f"more than {limits.max_pixels / 1e6:g} million pixels")


def check_bytes(count: int, limits: Limits) -> None:
    """Refuse a file, or what it inflates to, by its length.

    Raises:
        ImageError: ``too_large``.
    """
    if count > limits.max_bytes:
        raise ImageError("too_large", f"more than {limits.max_bytes >> 20} MB")


def stretch(values: NDArray[np.floating]) -> Pixels:
    """Map the range of the values to [0, 1]: how an image without a display window is shown (ours).

    Raises:
        ImageError: ``constant_image``, where the range is empty.
    """
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if not high > low:
        raise ImageError("constant_image")
    scaled = values - low
    scaled /= high - low
    return np.clip(scaled, 0.0, 1.0, out=scaled).astype(np.float32, copy=False)


def resize(pixels: Pixels, rows: int, columns: int) -> Pixels:
    """An image [H, W] at another size, antialiased; values stay inside the input's range."""
    # A triangle filter over the source pixels: no aliasing when shrinking and no overshoot beside edges.
    image = Image.fromarray(np.ascontiguousarray(pixels, dtype=np.float32))
    return np.asarray(image.resize((columns, rows), Image.Resampling.BILINEAR))
