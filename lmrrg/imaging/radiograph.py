"""Define a decoded radiograph, the limits on image files and the error of every image reader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lmrrg.errors import CodedError
from lmrrg.studies import View

Pixels = NDArray[np.float32]

BT601 = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in the luminance of ITU-R BT.601.

Pillow uses them for PNG and JPEG: the same grey from every format.
"""

# Part of an image's range that its 1st to 99th percentile spans at least, else these are shown.
_LEAST_SPAN = 0.5

# A real film takes more bytes for each pixel, however it is compressed: 1:64 of 8 bits would show
# nothing. One value all over compresses to a thousandth.
_LEAST_BYTES_PER_PIXEL = 1 / 64
# Mean difference between a pixel's colours; marks in colour on a film stay far below it.
_MOST_COLOUR = 0.03
# Smaller images are decoded in a moment, whatever they hold.
_SMALL = 4_000_000

MIN_SIDE = 64
"""Shortest side of an image, pixels; smaller ones are thumbnails or come from a damaged header."""

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
    "wrong_body_part": "the header names another part of the body than the chest",
    "unsupported_transfer_syntax": "a DICOM encoding that is not read",
    "unsupported_photometric": "a DICOM colour model that is not read",
    "unsupported_bits": "a DICOM image whose samples are not 8 or 16 bits wide",
    "constant_image": "all pixels have the same value",
    "empty_image": "too few bytes to show anything at the size that the header states",
    "burned_in_annotation": "the header says that text is burned into the pixels",
    "refused_images": "some images of the data set cannot be read",
    "decoder_timeout": "decoding took longer than is allowed",
    "decoder_memory": "decoding needed more memory than is allowed",
    "decoder_crashed": "the decoder died on this file",
    "decoder_busy": "all decoders are busy; try again soon",
}
"""Every code of an :class:`ImageError`, with its meaning; clients rely on the codes."""


IMAGE_WARNING_CODES: dict[str, str] = {
    "burned_in_annotation": "the header says that text is burned into the pixels",
    "for_processing": "raw values of the detector (FOR PROCESSING), not a film as it is viewed",
    "looks_inverted": "the film looks inverted: bone dark, air bright",
    "polarity_corrected": "the film looked inverted and is shown the other way round",
    "population": "the patient is younger than 18 years, and the model has learnt from adults",
    "colour_picture": "a picture in colours, not in greys",
    "unusual_shape": "one side is more than twice as long as the other",
    "not_a_chest_film": "it does not look like an upright chest film",
}
"""Every code of :attr:`Radiograph.warnings`, with its meaning; clients rely on the codes."""

ABSTAIN_CODES = frozenset({"looks_inverted", "colour_picture", "unusual_shape", "not_a_chest_film"})
"""Warnings about images on which no report should be written (**ours**)."""

Polarity = Literal["header", "pixels"]
"""Who decides which values are bright: the header, or the pixels where they look inverted."""


class ImageError(CodedError):
    """Refusal of an image; ``code`` is a stable key of :data:`IMAGE_ERROR_CODES`.

    The message never holds anything from the file's header, so it may be logged and shown.
    """

    def __init__(self, code: str, detail: str = ""):
        super().__init__(code, detail or IMAGE_ERROR_CODES[code])


@dataclass(frozen=True)
class Limits:
    """Limits on what a reader accepts; all are checked before pixels are decoded.

    >>> Limits(max_bytes=2**20)  # doctest: +ELLIPSIS
    Limits(max_bytes=1048576, max_pixels=48000000, burned_in='flag', ...)
    """

    max_bytes: int = 256 * 2**20
    """Largest file, and largest deflated DICOM data set after inflation."""
    # For comparison: a detector of 43 x 43 cm with pixels of 100 µm has 18 million.
    max_pixels: int = 48_000_000
    burned_in: Literal["flag", "refuse"] = "flag"
    """Whether a DICOM file whose header reports burned-in text is read and flagged, or refused."""
    secondary_capture: bool = False
    """Whether DICOM secondary captures of modality OT, which may show anything, are read."""
    body_part: Literal["refuse", "any"] = "refuse"
    """Whether a DICOM file whose header names another part of the body is refused, or read."""


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Radiograph:
    """One image as the model expects it: bone is bright, air is dark, pixels are square.

    ``pixels`` is float32 [H, W] in [0, 1]. ``warnings`` are keys of :data:`IMAGE_WARNING_CODES`:
    what was found that refuses no film, but that whoever uses it should know. The digests must not
    be stored or shown: who knows the identifiers of a hospital can find them by their digests.
    """

    pixels: Pixels
    view: View
    source: Literal["dicom", "png", "jpeg"]
    warnings: tuple[str, ...] = ()
    patient: str = ""
    """Digest of Patient ID (0010,0020), to compare images by; "" where it is not stated."""
    study: str = ""
    """Digest of Study Instance UID (0020,000D); "" where it is not stated."""

    @property
    def burned_in(self) -> bool:
        """Return whether a DICOM header reports that text, which may name the patient, is shown."""
        return "burned_in_annotation" in self.warnings


def colour_warnings(colours: NDArray[Any], most: float) -> tuple[str, ...]:
    """Return ``colour_picture`` for colours [H, W, 3] that are more than a tint of grey.

    Args:
        colours: red, green and blue.
        most: their largest possible value.

    >>> colour_warnings(np.array([[[255, 0, 0], [90, 90, 90]]]), 255)
    ('colour_picture',)
    """
    spread = np.ptp(colours, axis=-1).mean() / most
    return ("colour_picture",) if spread > _MOST_COLOUR else ()


def check_size(rows: int, columns: int, limits: Limits) -> None:
    """Check the size that an image's header states, before anything is decoded.

    Raises:
        ImageError: ``too_large`` or ``too_small``.

    >>> check_size(2048, 2500, Limits())
    >>> check_size(2048, 32, Limits())
    Traceback (most recent call last):
    lmrrg.imaging.radiograph.ImageError: too_small: a side is shorter than 64 pixels
    """
    if min(rows, columns) < MIN_SIDE:
        raise ImageError("too_small")
    if rows * columns > limits.max_pixels:
        raise ImageError("too_large", f"more than {limits.max_pixels / 1e6:g} million pixels")


def check_bytes(count: int, limits: Limits) -> None:
    """Check the length of a file, or of what it inflates to.

    Raises:
        ImageError: ``too_large``.

    >>> check_bytes(2**20 + 1, Limits(max_bytes=2**20))
    Traceback (most recent call last):
    lmrrg.imaging.radiograph.ImageError: too_large: more than 1 MB
    """
    if count > limits.max_bytes:
        raise ImageError("too_large", f"more than {limits.max_bytes >> 20} MB")


def check_density(count: int, rows: int, columns: int) -> None:
    """Check that a file has the bytes of a picture, before a large one is decoded.

    A few kilobytes can hold millions of pixels of one value, which would be refused only after
    seconds of decoding.

    Args:
        count: bytes of the file.
        rows: height that its header states, pixels.
        columns: width, pixels.

    Raises:
        ImageError: ``empty_image``.

    >>> check_density(46_000, 1000, 1000)
    >>> check_density(46_000, 6800, 6800)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    lmrrg.imaging.radiograph.ImageError: empty_image: too few bytes to show anything at the size ...
    """
    pixels = rows * columns
    if pixels > _SMALL and count < pixels * _LEAST_BYTES_PER_PIXEL:
        raise ImageError("empty_image")


def stretch(values: NDArray[np.floating], counts: NDArray[np.integer] | None = None) -> Pixels:
    """Map the range of the values to [0, 1]: the display of an image without a window (**ours**).

    A few pixels far beside all others, such as a defect or a marker, would leave the film almost
    without contrast. Where the 1st to the 99th percentile spans less than half of the range, that
    part is stretched and the rest clipped.

    Args:
        values: the values of all pixels, or each value once.
        counts: number of pixels of each value; None counts every value once.

    Raises:
        ImageError: ``constant_image``, the range is empty.

    >>> stretch(np.array([100.0, 150.0, 300.0]))
    array([0.  , 0.25, 1.  ], dtype=float32)
    >>> stretch(np.array([0.0, 1.0, 2.0, 1000.0]), counts=np.array([100, 100, 100, 1]))
    array([0. , 0.5, 1. , 1. ], dtype=float32)
    """
    low = float(values.min()) if values.size else 0.0
    high = float(values.max()) if values.size else 0.0
    if not high > low:  # also true of NaN
        raise ImageError("constant_image")
    first, last = _percentiles(values, counts)
    # Equal percentiles: nearly all pixels have one value, and the others are the picture.
    if 0 < last - first < _LEAST_SPAN * (high - low):
        low = first
        high = last
    scaled = values - low
    scaled /= high - low  # in place: a copy of a large image is 200 MB
    return np.clip(scaled, 0.0, 1.0, out=scaled).astype(np.float32, copy=False)


def _percentiles(
    values: NDArray[np.floating], counts: NDArray[np.integer] | None
) -> tuple[float, float]:
    """Return the 1st and the 99th percentile of the pixels, each a value that occurs."""
    ordered = values.reshape(-1)
    if counts is None:
        rank = (ordered.size - 1) // 100
        ends = np.partition(ordered, [rank, ordered.size - 1 - rank])
        return float(ends[rank]), float(ends[ordered.size - 1 - rank])
    # A modality table or a negative slope may leave the values in any order.
    order = np.argsort(ordered, kind="stable")
    below = np.cumsum(counts[order])
    rank = (int(below[-1]) - 1) // 100
    first = np.searchsorted(below, rank, side="right")
    last = np.searchsorted(below, int(below[-1]) - 1 - rank, side="right")
    return float(ordered[order[first]]), float(ordered[order[last]])


def resize(pixels: Pixels, rows: int, columns: int) -> Pixels:
    """Return an image [H, W] at another size, antialiased; values stay inside the input's range.

    >>> resize(np.array([[0.0, 1.0]], np.float32), 1, 4)
    array([[0.  , 0.25, 0.75, 1.  ]], dtype=float32)
    """
    # Pillow's BILINEAR is a triangle filter as wide as the reduction: no aliasing when shrinking,
    # and no overshoot beside edges, which a cubic filter would have.
    image = Image.fromarray(np.ascontiguousarray(pixels, dtype=np.float32))
    return np.asarray(image.resize((columns, rows), Image.Resampling.BILINEAR))
