"""Turn stored values into what a screen shows: the grey-scale pipeline of DICOM.

The steps, in the standard's order (PS3.3 C.11, PS3.4 N.2), and the attributes that they read:

    padding         Pixel Padding Value (0028,0120), Range Limit (0028,0121)      PS3.3 C.7.5.1.1.2
    modality        Modality LUT Sequence (0028,3000), or Rescale Slope           PS3.3 C.11.1
                    (0028,1053) and Intercept (0028,1052)
    values of       VOI LUT Sequence (0028,3010), or Window Center (0028,1050)    PS3.3 C.11.2
    interest        and Width (0028,1051) with VOI LUT Function (0028,1056)
    inversion       Presentation LUT Shape (2050,0020), else Photometric          PS3.3 C.11.6,
                    Interpretation (0028,0004)                                    C.7.6.3.1.2

Every step maps one number to one number, so it is computed once per possible value: a table of at
most 65,536 entries serves an image of millions of pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut

from lmrrg.imaging.dicom import elements
from lmrrg.imaging.radiograph import BT601, ImageError, Pixels, stretch

Values = NDArray[np.float64]
# A window with fewer pixels between black and white shows nothing of the film.
_LEAST_INSIDE = 0.02


def display(
    dataset: Dataset, codes: NDArray[np.unsignedinteger], bits: int, *, turned: bool = False
) -> Pixels:
    """Return stored codes [H, W] of ``bits`` bits each as shown: float32 in [0, 1], padding black.

    With ``turned`` the film is shown inverted to what its header says; padding stays black.

    Raises:
        ImageError: ``constant_image``, all that is no padding has one value.
    """
    stored = _stored_values(bits, signed=bool(dataset.get("PixelRepresentation", 0)))
    # Only values that occur count, so that the range of `stretch` is the image's own.
    counts = np.bincount(codes.reshape(-1), minlength=1 << bits)
    kept = np.flatnonzero((counts > 0) & ~_is_padding(dataset, stored))
    if not kept.size:
        # A padding range that covers the whole film is a mistake of the header.
        kept = np.flatnonzero(counts)
    # Padding keeps the 0 of the table: it is black whatever the window and the inversion are.
    table = np.zeros(1 << bits, np.float32)
    shown = _shown(dataset, stored[kept], counts[kept])
    table[kept] = 1 - shown if turned else shown
    return table[codes]


def _stored_values(bits: int, *, signed: bool) -> NDArray[np.int64]:
    """Return the number that each code stands for.

    Pixel Representation (0028,0103) 1 means two's complement of Bits Stored bits (PS3.5 8.1.1).
    """
    codes = np.arange(1 << bits, dtype=np.int64)
    if not signed:
        return codes
    is_negative = codes >> (bits - 1) & 1
    return np.where(is_negative, codes - (1 << bits), codes)


def _is_padding(dataset: Dataset, stored: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which values mean "no image here" (PS3.3 C.7.5.1.1.2).

    Pixel Padding Value and Range Limit are stated as stored values, so this precedes the rescale.
    """
    value = elements.integer(dataset, "PixelPaddingValue")
    limit = elements.integer(dataset, "PixelPaddingRangeLimit")
    if value is None:
        return np.zeros(stored.shape, bool)
    # The limit may be the lower or the upper end; without one, the padding is a single value.
    one_end = _as_stored(dataset, value)
    other_end = one_end if limit is None else _as_stored(dataset, limit)
    return (stored >= min(one_end, other_end)) & (stored <= max(one_end, other_end))


def _as_stored(dataset: Dataset, value: int) -> int:
    """Return a padding value in the signedness of the pixels.

    Its VR (US or SS) should follow Pixel Representation, but many files write -2000 as the unsigned
    63536.
    """
    value %= 1 << 16
    is_signed = dataset.get("PixelRepresentation", 0)
    return value - (1 << 16) if is_signed and value >> 15 else value


def _shown(dataset: Dataset, stored: NDArray[np.int64], counts: NDArray[np.int64]) -> Pixels:
    """Map stored values to brightness in [0, 1], by modality, values of interest and inversion.

    ``counts`` is the number of pixels of each value.
    """
    values = _modality_values(dataset, stored)
    # A file with both leaves the choice to the reader (PS3.3 C.11.2). The LUT comes first here: a
    # window beside it is mostly a linear approximation.
    shown = _through_voi_lut(dataset, values)
    if shown is None:
        shown = _through_window(dataset, values, counts)
    if shown is None:
        shown = stretch(values, counts)
    # Last, since windows and LUTs are stated in the values before the inversion.
    return 1 - shown if _is_inverse(dataset) else shown


def _is_inverse(dataset: Dataset) -> bool:
    """Return whether high values are dark.

    In a DX image Presentation LUT Shape must agree with Photometric Interpretation (PS3.3
    C.8.11.3.1.2), and the image is inverted once. Where the two contradict each other the shape
    decides, as in dcmtk and dcm4che.
    """
    shape = elements.text(dataset, "PresentationLUTShape")
    if shape in ("IDENTITY", "INVERSE"):
        return shape == "INVERSE"
    return dataset.PhotometricInterpretation == "MONOCHROME1"


def _modality_values(dataset: Dataset, stored: NDArray[np.int64]) -> Values:
    """Return the values after the modality LUT, or after slope and intercept (PS3.3 C.11.1).

    A slope that is zero or no number is read as 1, such an intercept as 0. A table or a rescale
    that leaves one value only, or numbers beyond all bounds, is passed over.
    """
    for lut in _luts(dataset, "ModalityLUTSequence", stored):
        values = lut(stored)
        if np.ptp(values) > 0:
            return values
    slope = _slope(dataset)
    intercept = elements.number(dataset, "RescaleIntercept") or 0.0
    plain = stored.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        values = plain * slope + intercept
        span = np.ptp(values)
    return values if np.isfinite(span) and span > 0 else plain


def _slope(dataset: Dataset) -> float:
    """Return Rescale Slope (0028,1053); 1 where it is absent, zero or no number."""
    return elements.number(dataset, "RescaleSlope") or 1.0


def _through_voi_lut(dataset: Dataset, values: Values) -> Pixels | None:
    """Apply the first VOI LUT (PS3.3 C.11.2.1.1); None where there is no usable one.

    White is the largest number of the bits that its entries use (**ours**): many files state 16
    bits in LUT Descriptor (0028,3002) and fill 12.
    """
    for lut in _luts(dataset, "VOILUTSequence", values):
        shown = lut(np.rint(values).astype(np.int64))
        if np.ptp(shown) == 0:
            continue  # a table of zeros, or one beside all the values, would hide the film
        bits = min(lut.bits, _used_bits(lut.entries))
        return np.clip(shown / ((1 << bits) - 1), 0.0, 1.0).astype(np.float32)
    return None


def luminance(rgb: NDArray[np.integer] | Values, top: int) -> Pixels:
    """Return the grey in [0, 1] of colours [..., 3] whose white is ``top``.

    Raises:
        ImageError: ``constant_image``.

    >>> luminance(np.array([[255, 255, 255], [255, 0, 0]]), 255)
    array([1.   , 0.299], dtype=float32)
    """
    grey = np.clip(rgb @ BT601 / top, 0.0, 1.0).astype(np.float32)
    if np.ptp(grey) == 0:
        raise ImageError("constant_image")
    return grey


def palette(
    dataset: Dataset, codes: NDArray[np.unsignedinteger]
) -> tuple[NDArray[np.integer] | Values, int]:
    """Return colours [H, W, 3] of PALETTE COLOR codes [H, W], and the number of full brightness.

    The tables are Red, Green and Blue Palette Color Lookup Table Descriptor (0028,1101 to 1103) and
    Data (0028,1201 to 1203), PS3.3 C.7.6.3.1.5 and C.7.6.3.1.6, or the segmented form of C.7.9.2.
    """
    if "SegmentedRedPaletteColorLookupTableData" in dataset:
        colours = apply_color_lut(codes, dataset)
        return colours, int(np.iinfo(colours.dtype).max)
    luts = []
    for colour in ("Red", "Green", "Blue"):
        name = f"{colour}PaletteColorLookupTable"
        descriptor = dataset[f"{name}Descriptor"].value
        luts.append(_lut(dataset, descriptor, dataset[f"{name}Data"].value, signed=False))
    used = max(_used_bits(lut.entries) for lut in luts)
    # The standard scales entries of 8 bits to 16, but tables that state 16 bits and fill 8 are as
    # common, and would be almost black.
    bits = 8 if used <= 8 else 16
    return np.stack([lut(codes) for lut in luts], axis=-1), (1 << bits) - 1


def _used_bits(entries: Values) -> int:
    """Return how many bits the largest entry of a table takes, at least 1."""
    return max(1, int(entries.max()).bit_length())


class _Lut(NamedTuple):
    """A lookup table: the input of its first entry, the stated bits of an entry, the entries."""

    first: int
    bits: int
    entries: Values

    def __call__(self, inputs: NDArray[np.integer]) -> Values:
        """Return the entries of the inputs; below and above the table its first and last entry."""
        at = inputs.astype(np.int64) - self.first
        return self.entries[np.clip(at, 0, self.entries.size - 1)]


def _luts(dataset: Dataset, name: str, inputs: NDArray[np.integer] | Values) -> Iterable[_Lut]:
    """Yield the usable tables of a sequence (PS3.3 C.11.1.1 and C.11.2.1.1).

    An item without entries, or whose descriptor or data cannot be parsed, is passed over.
    """
    is_signed = bool(inputs.min() < 0)
    for item in elements.items(dataset, name):
        descriptor = elements.numbers(item, "LUTDescriptor")
        try:
            lut = _lut(dataset, descriptor, item.get("LUTData"), signed=is_signed)
        except elements.DAMAGE:
            continue
        if lut.entries.size:
            yield lut


def _lut(dataset: Dataset, descriptor: Iterable[float], data: object, *, signed: bool) -> _Lut:
    """Read a table by its descriptor: number of entries, first input, bits of an entry.

    The three numbers share one VR, US or SS, which may be wrong for the count or for the first
    input (PS3.3 C.11.1.1.1), so both are brought into their range here.
    """
    count, first, bits = (int(number) for number in descriptor)
    # 0 means 65,536 entries, which 16 bits cannot hold; read as SS, a large count is negative.
    count = count % (1 << 16) or 1 << 16
    # The first input is signed where the inputs can be.
    if first >> 15 == 1 and signed:
        first -= 1 << 16
    little_endian = dataset.original_encoding[1] is not False
    entries = _entries(data, count, bits, little_endian=little_endian)[:count]
    return _Lut(first, bits if 1 <= bits <= 16 else 16, entries)


def _entries(data: object, count: int, bits: int, *, little_endian: bool) -> Values:
    """Return LUT Data (0028,3006) as numbers.

    It holds US values, or words or bytes in OW; entries of 8 bits may lie two to a word.
    """
    order = "<" if little_endian else ">"
    if data is None:
        return np.zeros(0)
    if not isinstance(data, bytes):
        # Values that pydicom has parsed become words again, so that one path serves both forms.
        data = np.atleast_1d(np.asarray(data)).astype(np.int64).astype(f"{order}u2").tobytes()
    words = np.frombuffer(data[: len(data) // 2 * 2], f"{order}u2")
    if bits <= 8 and words.size < count:
        # The low byte of a word is the earlier entry, in either byte order.
        return words.astype("<u2").view(np.uint8).astype(np.float64)
    return words.astype(np.float64)


def _through_window(dataset: Dataset, values: Values, counts: NDArray[np.int64]) -> Pixels | None:
    """Apply the first usable pair of Window Center and Width; None where there is none.

    A width is at least 1 for LINEAR, and positive for the other functions (PS3.3 C.11.2.1.2.1 and
    C.11.2.1.3). A window that hides almost the whole film is passed over (**ours**).
    """
    function = elements.text(dataset, "VOILUTFunction") or "LINEAR"
    centers = elements.numbers(dataset, "WindowCenter")
    widths = elements.numbers(dataset, "WindowWidth")
    # Not strict: damaged files have more of the one than of the other.
    for center, width in zip(centers, widths, strict=False):
        formula = _window_function(dataset, function, width)
        # A comparison with NaN is false: such a width or center is passed over too.
        if not (abs(center) < np.inf and width > 0 and formula):
            continue
        shown = window(values, center, width, formula)
        if _share_inside(shown, counts, formula) >= _LEAST_INSIDE:
            return shown
    return None


def _window_function(dataset: Dataset, function: str, width: float) -> str:
    """Return the function to apply for a width, "" where the standard allows none.

    LINEAR assumes that values are whole numbers. A slope below 1 makes small fractions of them, for
    which writers state widths below 1: those mean LINEAR_EXACT.
    """
    if function in ("SIGMOID", "LINEAR_EXACT") or width >= 1:
        return function
    return "LINEAR_EXACT" if abs(_slope(dataset)) < 1 else ""


def _share_inside(shown: Pixels, counts: NDArray[np.int64], function: str) -> float:
    """Return the fraction of the pixels that a window shows neither black nor white."""
    # SIGMOID never reaches 0 and 1; less than half a grey level of 8 bits cannot be seen.
    margin = 0.5 / 255 if function == "SIGMOID" else 0.0
    is_inside = (shown > margin) & (shown < 1 - margin)
    return float(counts[is_inside].sum() / counts.sum())


def window(values: Values, center: float, width: float, function: str = "LINEAR") -> Pixels:
    """Map values to [0, 1] by a VOI LUT Function of PS3.3 C.11.2.1.2.1 and C.11.2.1.3.

    ``LINEAR`` treats values as the centres of integer steps (hence the 0.5 and 1), ``LINEAR_EXACT``
    does not, ``SIGMOID`` has slope 1/width at the centre. Any other name is read as LINEAR, the
    standard's default.

    >>> values = np.array([0.0, 50.0, 100.0])
    >>> window(values, center=50.5, width=101.0)
    array([0. , 0.5, 1. ], dtype=float32)
    >>> window(values, center=50.0, width=200.0, function="LINEAR_EXACT")
    array([0.25, 0.5 , 0.75], dtype=float32)
    >>> window(values, center=50.0, width=100.0, function="SIGMOID").round(3)
    array([0.119, 0.5  , 0.881], dtype=float32)
    """
    if function == "SIGMOID":
        with np.errstate(
            over="ignore"
        ):  # exp overflows to infinity, and 1 / infinity is the 0 meant
            return (1.0 / (1.0 + np.exp(-4.0 * (values - center) / width))).astype(np.float32)
    if function == "LINEAR_EXACT":
        return np.clip((values - center) / width + 0.5, 0.0, 1.0).astype(np.float32)
    if width == 1:  # a threshold; the formula below would divide by zero
        return (values > center - 0.5).astype(np.float32)
    return np.clip((values - (center - 0.5)) / (width - 1.0) + 0.5, 0.0, 1.0).astype(np.float32)
