"""Read a DICOM header: the data set, the transfer syntax, the view, the shape of a pixel."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import pydicom
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset

from lmrrg.imaging.dicom import elements
from lmrrg.imaging.radiograph import ImageError, Limits, check_bytes
from lmrrg.studies import View
from lmrrg.views import view_of

# Explicit VRs whose length has 32 bits, behind two reserved bytes (PS3.5 7.1.2); others have 16.
_LONG_VRS = frozenset(
    (b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV")
)
_TRANSFER_SYNTAX = (0x0002, 0x0010)
_MOST_META = 1 << 16
"""Bytes from the start of a file in which its meta information ends."""
_MOST_STRETCH = 4.0
"""Largest ratio of a pixel's sides that is believed; more is a mistake of the header."""


def is_dicom(data: bytes) -> bool:
    """Return whether bytes look like DICOM.

    That is the prefix of PS3.10 7.1, or a data set without it that starts with group 2 or 8, as
    older systems store it.

    >>> is_dicom(bytes(128) + b"DICM"), is_dicom(b"GIF89a")
    (True, False)
    """
    if data[128:132] == b"DICM":
        return True
    # Group 2 or 8 and an element below 0x0100, little endian; or group 8, big endian with a VR.
    bare_little = data[:2] in (b"\x02\x00", b"\x08\x00") and data[3:4] == b"\0"
    bare_big = data[:3] == b"\x00\x08\x00" and data[4:6].isalpha() and data[4:6].isupper()
    return len(data) > 132 and (bare_little or bare_big)


def parse(data: bytes, limits: Limits) -> FileDataset:
    """Parse the data set, after inflating a deflated one (PS3.5 A.5).

    It is inflated here and not by pydicom, which has no bound: a few kB can inflate to many GB.

    Raises:
        ImageError: ``too_large``, a deflated data set is longer than ``limits`` allow.
    """
    syntax, start = _file_meta(data)
    if syntax != uid.DeflatedExplicitVRLittleEndian:
        # force: files without the prefix are read too; what they lack is checked later.
        return pydicom.dcmread(io.BytesIO(data), force=True)
    # No zlib header (negative window bits), and one byte over the limit to notice an excess.
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[start:], limits.max_bytes + 1)
    check_bytes(len(inflated), limits)
    dataset = pydicom.dcmread(io.BytesIO(inflated), force=True)
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    return dataset


def study_uid(path: Path, limits: Limits) -> str:
    """Return Study Instance UID (0020,000D) of a file; "" where it cannot be read.

    Nothing behind the header is read, but of a deflated file, which is inflated within ``limits``.
    """
    try:
        with path.open("rb") as file:
            syntax, _ = _file_meta(file.read(_MOST_META))
        if syntax == uid.DeflatedExplicitVRLittleEndian:
            check_bytes(path.stat().st_size, limits)
            return elements.text(parse(path.read_bytes(), limits), "StudyInstanceUID")
        dataset = pydicom.dcmread(
            path, force=True, stop_before_pixels=True, specific_tags=["StudyInstanceUID"]
        )
        return elements.text(dataset, "StudyInstanceUID")
    except (ImageError, *elements.DAMAGE):
        return ""


def _file_meta(data: bytes) -> tuple[str, int]:
    """Return Transfer Syntax UID (0002,0010), "" for none, and where the data set starts.

    The file meta information, group 2, is always in Explicit VR Little Endian (PS3.10 7.1).
    """
    at = 132 if data[128:132] == b"DICM" else 0
    syntax = ""
    while data[at : at + 2] == b"\x02\x00" and len(data) >= at + 12:
        group, element, vr, length = struct.unpack_from("<HH2sH", data, at)
        value = at + 8
        if vr in _LONG_VRS:
            (length,) = struct.unpack_from("<I", data, at + 8)
            value = at + 12
        if (group, element) == _TRANSFER_SYNTAX:
            syntax = data[value : value + length].rstrip(b"\0 ").decode("ascii", "replace")
        at = value + length
    return syntax, at


def transfer_syntax(dataset: FileDataset) -> uid.UID:
    """Return Transfer Syntax UID (0002,0010); without one, what pydicom found when it parsed."""
    stated = dataset.file_meta.get("TransferSyntaxUID")
    if stated is not None:
        return uid.UID(stated)
    is_implicit, is_little = dataset.original_encoding
    if not is_little:
        return uid.ExplicitVRBigEndian
    return uid.ImplicitVRLittleEndian if is_implicit else uid.ExplicitVRLittleEndian


def view(dataset: Dataset) -> View:
    """Return the projection, "unknown" where the header does not state it.

    View Position (0018,5101) comes first, then the codes of View Code Sequence (0054,0220), PS3.3
    C.8.11.5.

    >>> header = Dataset()
    >>> header.ViewPosition = "LL"
    >>> view(header)
    'lateral'
    """
    position = view_of(elements.text(dataset, "ViewPosition"))
    if position != "unknown":
        return position
    for item in elements.items(dataset, "ViewCodeSequence"):
        coded = view_of(elements.text(item, "CodeValue"))
        if coded != "unknown":
            return coded
    return "unknown"


def pixel_height(dataset: Dataset) -> float:
    """Return the height of a pixel over its width; 1 where nothing usable is stated.

    Read are, in this order, Pixel Spacing (0028,0030), Imager Pixel Spacing (0018,1164), Nominal
    Scanned Pixel Spacing (0018,2010) and Pixel Aspect Ratio (0028,0034); each states the vertical
    number first (PS3.3 10.7.1.3, C.7.6.3.1.7).

    >>> header = Dataset()
    >>> header.PixelAspectRatio = [2, 1]
    >>> pixel_height(header)
    2.0
    """
    for name in (
        "PixelSpacing",
        "ImagerPixelSpacing",
        "NominalScannedPixelSpacing",
        "PixelAspectRatio",
    ):
        pair = elements.numbers(dataset, name)
        if len(pair) != 2:
            continue
        height, width = pair
        # Comparisons with NaN are false, so a side that is no number is passed over as well.
        if height > 0 and width > 0 and 1 / _MOST_STRETCH <= height / width <= _MOST_STRETCH:
            return height / width
    return 1.0
