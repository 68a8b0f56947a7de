"""Read optional DICOM elements: a value that cannot be parsed counts as absent.

pydicom converts a value when it is asked for, so a damaged one raises there. None of the elements
that are read through this module may cost the film.
"""

from __future__ import annotations

import math
import struct
import zlib

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

# Damage shows as whatever pydicom or a decoder raises: RuntimeError from the decoder plug-ins and
# (as a kind of it) for an unknown VR, AttributeError for an absent element, TypeError for an empty
# or a multiple number. The files of benchmarks/fuzz/images.py raise each of these.
DAMAGE = (
    InvalidDicomError,
    BytesLengthException,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    OverflowError,
    OSError,
    RuntimeError,
    struct.error,
    zlib.error,
)
# A value of these VRs is text with backslashes between its parts, which are parsed one by one.
_NUMBERS_AS_TEXT = ("DS", "IS")


def numbers(dataset: Dataset, keyword: str) -> list[float]:
    r"""Return the values of a numeric element, NaN for each that is no finite number.

    An absent element, a sequence and raw bytes give an empty list.

    >>> header = Dataset()
    >>> header.WindowCenter = ["40", "400"]
    >>> numbers(header, "WindowCenter"), numbers(header, "WindowWidth")
    ([40.0, 400.0], [])
    """
    value = _value(dataset, keyword)
    if value is None or isinstance(value, (Sequence, bytes)):
        return []
    several = value if isinstance(value, (MultiValue, list, tuple)) else [value]
    return [_number(one) for one in several]


def number(dataset: Dataset, keyword: str) -> float | None:
    """Return the first value of a numeric element; None where it is absent or no finite number."""
    several = numbers(dataset, keyword)
    return several[0] if several and math.isfinite(several[0]) else None


def integer(dataset: Dataset, keyword: str) -> int | None:
    """Return the first value of an element as a whole number; None where it is none."""
    value = number(dataset, keyword)
    return int(value) if value is not None and value.is_integer() else None


def texts(dataset: Dataset, keyword: str) -> list[str]:
    """Return the values of an element as upper-case text without outer blanks.

    >>> header = Dataset()
    >>> header.ViewPosition = " pa "
    >>> texts(header, "ViewPosition"), texts(header, "Modality")
    (['PA'], [])
    """
    value = _value(dataset, keyword)
    several = value if isinstance(value, (MultiValue, list, tuple)) else [value]
    words = [str(one).strip(" \0").upper() for one in several if isinstance(one, str | int | float)]
    return [word for word in words if word]


def text(dataset: Dataset, keyword: str) -> str:
    """Return the first value of an element as upper-case text; "" where there is none."""
    return next(iter(texts(dataset, keyword)), "")


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence; none where the element is absent or no sequence."""
    value = _value(dataset, keyword)
    return list(value) if isinstance(value, Sequence) else []


def replace(dataset: Dataset, keyword: str, value: int) -> None:
    """Set an element, whatever it held: pydicom parses an old value before it takes a new one."""
    if keyword in dataset:
        delattr(dataset, keyword)
    setattr(dataset, keyword, value)


def _value(dataset: Dataset, keyword: str) -> object:
    """Return what pydicom makes of an element; None where it is absent or cannot be parsed."""
    tag = tag_for_keyword(keyword)
    if tag is None or tag not in dataset:
        return None
    # Taken before the conversion, which may replace the raw element.
    raw = dataset.get_item(tag)
    try:
        return dataset[tag].value
    except DAMAGE:
        return _parts(raw, dictionary_VR(tag))


def _parts(raw: object, vr: str) -> list[str] | None:
    """Return the parts of numbers written as text: one damaged part does not spoil the others."""
    if not isinstance(raw, RawDataElement) or not isinstance(raw.value, bytes):
        return None
    if (raw.VR or vr) not in _NUMBERS_AS_TEXT:
        return None
    return raw.value.decode("latin-1").split("\\")


def _number(value: object) -> float:
    """Return a value as a finite number, or NaN."""
    if not isinstance(value, (str, int, float)):
        return math.nan
    try:
        parsed = float(value.strip(" \0") if isinstance(value, str) else value)
    except (ValueError, OverflowError):
        return math.nan
    return parsed if math.isfinite(parsed) else math.nan
