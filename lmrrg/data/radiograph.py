"""A decoded radiograph, its limits, and the one error that every reader of images raises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lmrrg.errors import CodedError
from lmrrg.studies import View

Pixels = NDArray[np.float32]

MAX_BYTES = 256 * 2**20
MAX_PIXELS = 48_000_000
MIN_SIDE = 64

IMAGE_ERROR_CODES: dict[str, str] = {
    "file_missing": "there is no file of that name",
    "not_an_image": "neither DICOM, PNG nor JPEG",
    "unreadable": "the file is damaged",
    "truncated": "the file ends before its pixels do",
    "too_large": f"more than {MAX_BYTES >> 20} MB or {MAX_PIXELS // 10**6} million pixels",
    "too_small": f"a side is shorter than {MIN_SIDE} pixels",
    "no_pixels": "the DICOM object holds no pixel data",
    "multi_frame": "more than one frame",
    "wrong_modality": "not a projection radiograph (CR, DX, RG)",
    "not_grayscale": "a DICOM image in colour",
    "unsupported_transfer_syntax": "a DICOM encoding that is not read",
    "constant_image": "all pixels have the same value",
}
"""Every code that an :class:`ImageError` can carry, with its meaning."""


class ImageError(CodedError):
    """An image that is refused; ``code`` is a stable key of :data:`IMAGE_ERROR_CODES`.

    The message never holds anything from the file's header, so it may be logged and shown.
    """

    def __init__(self, code: str, detail: str = ""):
        super().__init__(code, detail or IMAGE_ERROR_CODES[code])


@dataclass(frozen=True)
class Radiograph:
    """One image, ready for the model: bone is bright, air is dark.

    ``pixels`` is float32 [H, W] in [0, 1].
    """

    pixels: Pixels
    view: View
    source: Literal["dicom", "png", "jpeg"]


def check_size(rows: int, columns: int) -> None:
    """Refuse an image by the size that its header states, before anything is decoded.

    Raises:
        ImageError: ``too_large`` or ``too_small``.
    """
    if rows * columns > MAX_PIXELS:
        raise ImageError("too_large")
    if min(rows, columns) < MIN_SIDE:
        raise ImageError("too_small")


def stretch(values: NDArray[np.floating], kept: NDArray[np.bool_] | None = None) -> Pixels:
    """Map the range of the kept values to [0, 1]: how an image without a display window is shown (ours).

    Raises:
        ImageError: ``constant_image``, where the range is empty.
    """
    inside = values if kept is None else values[kept]
    low, high = (float(inside.min()), float(inside.max())) if inside.size else (0.0, 0.0)
    if not high > low:
        raise ImageError("constant_image")
    return np.clip((values - low) / (high - low), 0.0, 1.0).astype(np.float32)
