"""From stored values to what a screen shows: the grey-scale pipeline of PS3.3, computed once per possible value.

Every step of it maps one number to one number, so an image of millions of pixels needs a table of at most 65,536.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, cast

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut

from lmrrg.imaging.radiograph import ImageError, Pixels, stretch

Values = NDArray[np.float64]
_BT601 = np.array([0.299, 0.587, 0.114])  # luminance as PNG and JPEG readers take it


def display(dataset: Dataset, codes: NDArray[np.unsignedinteger], bits: int) -> Pixels:
    """Stored codes [H, W], each of ``bits`` bits, as shown: float32 in [0, 1], padding black.

    The order is the standard's (PS3.3 C.11, PS3.4 N.2): padding is set aside, modality LUT or rescale, VOI LUT or
    window, and the inversion last, since windows are stated in values before it.

    Raises:
        ImageError: ``constant_image``.
    """
    stored = _stored_values(bits, signed=bool(dataset.get("PixelRepresentation", 0)))
    present = np.bincount(codes.reshape(-1), minlength=1 << bits) > 0
    kept = np.flatnonzero(present & ~_is_padding(dataset, stored))
    if not kept.size:
        raise ImageError("constant_image")
    table = np.zeros(1 << bits, np.float32)
    table[kept] = _shown(dataset, stored[kept])
    return table[codes]


def _stored_values(bits: int, *, signed: bool) -> NDArray[np.int64]:
    """The number that each code stands for: two's complement of ``bits`` bits, where signed."""
    codes = np.arange(1 << bits, dtype=np.int64)
    return np.where(codes >> (bits - 1) & 1, codes - (1 << bits), codes) if signed else codes


def _is_padding(dataset: Dataset, stored: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True for a value that means "no image here" (PS3.3 C.7.5.1.1.2); stated in stored values."""
    value, limit = dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")
    if value in (None, ""):
        return np.zeros(stored.shape, bool)
    ends = [
        _as_stored(dataset, int(end)) for end in (value, value if limit in (None, "") else limit)
    ]
    return (stored >= min(ends)) & (stored <= max(ends))


def _as_stored(dataset: Dataset, value: int) -> int:
    """A 16-bit value in the image's own signedness: many files write -2000 as the unsigned 63536."""
    value %= 1 << 16
    return value - (1 << 16) if dataset.get("PixelRepresentation", 0) and value >> 15 else value


def _shown(dataset: Dataset, stored: NDArray[np.int64]) -> Pixels:
    values = _modality_values(dataset, stored)
    shown = _through_voi_lut(dataset, values)
    if shown is None:
        shown = _through_window(dataset, values)
    if shown is None or np.ptp(shown) == 0:
        shown = stretch(values)
    return 1 - shown if _is_inverse(dataset) else shown


def _is_inverse(dataset: Dataset) -> bool:
    """Whether high values are dark. Where Presentation LUT Shape contradicts the photometric interpretation it decides,

    as in dcmtk and dcm4che; where they agree (PS3.3 C.8.11.3.1.2 asks for that) the image is inverted once.
    """
    shape = str(dataset.get("PresentationLUTShape", "") or "").strip().upper()
    if shape in ("IDENTITY", "INVERSE"):
        return shape == "INVERSE"
    return dataset.PhotometricInterpretation == "MONOCHROME1"


def _modality_values(dataset: Dataset, stored: NDArray[np.int64]) -> Values:
    """PS3.3 C.11.1. A slope of zero, or numbers that are none, are no rescale."""
    for lut in _luts(dataset, "ModalityLUTSequence", stored):
        return lut(stored)
    slope, intercept = (
        _numbers(dataset.get(name)) for name in ("RescaleSlope", "RescaleIntercept")
    )
    usable = slope and np.isfinite(slope[0]) and slope[0] != 0
    offset = intercept[0] if intercept and np.isfinite(intercept[0]) else 0.0
    return stored.astype(np.float64) * (slope[0] if usable else 1.0) + offset


def _through_voi_lut(dataset: Dataset, values: Values) -> Pixels | None:
    """The first VOI LUT, over the range of the bits that it uses: many state 16 and fill 12 (**ours**)."""
    for lut in _luts(dataset, "VOILUTSequence", values):
        shown = lut(np.rint(values).astype(np.int64))
        bits = min(lut.bits, _used_bits(lut.entries))
        return np.clip(shown / ((1 << bits) - 1), 0.0, 1.0).astype(np.float32)
    return None


def luminance(rgb: NDArray[np.integer] | Values, top: int) -> Pixels:
    """Grey in [0, 1] of colours [..., 3] whose white is ``top``.

    Raises:
        ImageError: ``constant_image``.
    """
    grey = np.clip(rgb @ _BT601 / top, 0.0, 1.0).astype(np.float32)
    if np.ptp(grey) == 0:
        raise ImageError("constant_image")
    return grey


def palette(
    dataset: Dataset, codes: NDArray[np.unsignedinteger]
) -> tuple[NDArray[np.integer] | Values, int]:
    """Colours [H, W, 3] of PALETTE COLOR codes [H, W], and their white (PS3.3 C.7.6.3.1.5)."""
    if "SegmentedRedPaletteColorLookupTableData" in dataset:
        colours = apply_color_lut(codes, dataset)
        return colours, int(np.iinfo(colours.dtype).max)
    names = (f"{colour}PaletteColorLookupTable" for colour in ("Red", "Green", "Blue"))
    luts = [
        _lut(dataset, dataset[f"{n}Descriptor"].value, dataset[f"{n}Data"].value, signed=False)
        for n in names
    ]
    used = max(_used_bits(lut.entries) for lut in luts)
    # Tables that state 16 bits and hold 8 are as common as those of the standard.
    return np.stack([lut(codes) for lut in luts], axis=-1), (1 << (8 if used <= 8 else 16)) - 1


def _used_bits(entries: Values) -> int:
    return max(1, int(entries.max()).bit_length())


class _Lut(NamedTuple):
    first: int
    bits: int
    entries: Values

    def __call__(self, inputs: NDArray[np.integer]) -> Values:
        """Entries of the inputs; those outside the table get its first or last one."""
        return self.entries[np.clip(inputs.astype(np.int64) - self.first, 0, self.entries.size - 1)]


def _luts(dataset: Dataset, name: str, inputs: NDArray[np.integer] | Values) -> Iterable[_Lut]:
    """The usable tables of a sequence (PS3.3 C.11.1.1 and C.11.2.1.1)."""
    for item in dataset.get(name) or ():
        lut = _lut(dataset, item.LUTDescriptor, item.get("LUTData"), signed=bool(inputs.min() < 0))
        if lut.entries.size:
            yield lut


def _lut(dataset: Dataset, descriptor: Iterable[int], data: object, *, signed: bool) -> _Lut:
    count, first, bits = (int(number) for number in descriptor)
    count = (
        count % (1 << 16) or 1 << 16
    )  # 0 is 65,536; a signed reading of a large count is negative
    if first >> 15 == 1 and signed:
        first -= 1 << 16  # the first input is signed where inputs can be, whatever its VR says
    little_endian = dataset.original_encoding[1] is not False
    entries = _entries(data, count, bits, little_endian=little_endian)[:count]
    return _Lut(first, bits if 1 <= bits <= 16 else 16, entries)


def _entries(data: object, count: int, bits: int, *, little_endian: bool) -> Values:
    """LUT Data as numbers: US values, or words or bytes in OW; 8-bit entries may lie two to a word."""
    order = "<" if little_endian else ">"
    if data is None:
        return np.zeros(0)
    if not isinstance(data, bytes):
        data = np.atleast_1d(np.asarray(data)).astype(np.int64).astype(f"{order}u2").tobytes()
    words = np.frombuffer(data[: len(data) // 2 * 2], f"{order}u2")
    if bits <= 8 and words.size < count:
        return words.astype("<u2").view(np.uint8).astype(np.float64)
    return words.astype(np.float64)


def _through_window(dataset: Dataset, values: Values) -> Pixels | None:
    """The first possible window of those stated; ``None`` where there is none."""
    function = str(dataset.get("VOILUTFunction", "") or "LINEAR").strip().upper()
    pairs = zip(
        _numbers(dataset.get("WindowCenter")), _numbers(dataset.get("WindowWidth")), strict=False
    )
    for center, width in pairs:
        possible = width > 0 if function in ("SIGMOID", "LINEAR_EXACT") else width >= 1
        if possible and np.isfinite(center) and np.isfinite(width):
            return window(values, center, width, function)
    return None


def window(values: Values, center: float, width: float, function: str = "LINEAR") -> Pixels:
    """Map values to [0, 1] by one of the three functions of PS3.3 C.11.2.1.

    ``LINEAR`` treats values as the centres of integer steps (hence the 0.5 and 1), ``LINEAR_EXACT`` does not,
    ``SIGMOID`` has slope 1/width at the centre. Any other name is read as LINEAR, the standard's default.
    """
    if function == "SIGMOID":
        with np.errstate(over="ignore"):
            return (1.0 / (1.0 + np.exp(-4.0 * (values - center) / width))).astype(np.float32)
    if function == "LINEAR_EXACT":
        return np.clip((values - center) / width + 0.5, 0.0, 1.0).astype(np.float32)
    if width == 1:
        return (values > center - 0.5).astype(np.float32)
    return np.clip((values - (center - 0.5)) / (width - 1.0) + 0.5, 0.0, 1.0).astype(np.float32)


def _numbers(value: object) -> list[float]:
    """One or several decimal strings as numbers; an absent one is NaN."""
    several = value if isinstance(value, pydicom.multival.MultiValue) else [value]
    return [float("nan") if one in (None, "") else float(cast(float, one)) for one in several]
