"""What is read from a DICOM header beside the pixels' description: the encoding, the view, the shape of a pixel."""

from __future__ import annotations

import io
import struct
import zlib

import pydicom
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset

from lmrrg.imaging.radiograph import Limits, check_bytes
from lmrrg.studies import View
from lmrrg.views import view_of

_LONG_VRS = (
    b"OB",
    b"OW",
    b"OF",
    b"OD",
    b"OL",
    b"OV",
    b"SQ",
    b"UC",
    b"UN",
    b"UR",
    b"UT",
    b"SV",
    b"UV",
)
_TRANSFER_SYNTAX = (0x0002, 0x0010)


def is_dicom(data: bytes) -> bool:
    """Whether bytes look like DICOM: the file-meta magic, or a bare data set that starts with group 2 or 8."""
    if data[128:132] == b"DICM":
        return True
    bare_little = data[:2] in (b"\x02\x00", b"\x08\x00") and data[3:4] == b"\0"
    bare_big = data[:3] == b"\x00\x08\x00" and data[4:6].isalpha() and data[4:6].isupper()
    return len(data) > 132 and (bare_little or bare_big)


def parse(data: bytes, limits: Limits) -> FileDataset:
    """Read the data set; a deflated one is inflated here, with a bound, which pydicom would not do.

    Raises:
        ImageError: ``too_large``, where a deflated data set is longer than ``limits`` allow.
    """
    syntax, start = _file_meta(data)
    if syntax != uid.DeflatedExplicitVRLittleEndian:
        return pydicom.dcmread(io.BytesIO(data), force=True)
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[start:], limits.max_bytes + 1)
    check_bytes(len(inflated), limits)
    dataset = pydicom.dcmread(io.BytesIO(inflated), force=True)
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    return dataset


def _file_meta(data: bytes) -> tuple[str, int]:
    """The stated transfer syntax ("" for none) and where the data set starts; group 2 is always explicit VR LE."""
    at, syntax = (132 if data[128:132] == b"DICM" else 0), ""
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
    """The stated encoding; a file without the file-meta header is as pydicom parsed it."""
    stated = dataset.file_meta.get("TransferSyntaxUID")
    if stated is not None:
        return uid.UID(stated)
    implicit, little = dataset.original_encoding
    if not little:
        return uid.ExplicitVRBigEndian
    return uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian


def view(dataset: Dataset) -> View:
    """Return the projection by View Position, else by View Code Sequence, else "unknown"."""
    position = view_of(dataset.get("ViewPosition", ""))
    if position != "unknown":
        return position
    for item in dataset.get("ViewCodeSequence") or ():
        coded = view_of(item.get("CodeValue", ""))
        if coded != "unknown":
            return coded
    return "unknown"


def pixel_height(dataset: Dataset) -> float:
    """Height of a pixel over its width (PS3.3 C.7.6.3.1.7, 10.7.1.3); 1 where nothing usable says otherwise."""
    for name in (
        "PixelSpacing",
        "ImagerPixelSpacing",
        "NominalScannedPixelSpacing",
        "PixelAspectRatio",
    ):
        pair = dataset.get(name)
        if isinstance(pair, pydicom.multival.MultiValue) and len(pair) == 2:
            height, width = (float(side or 0) for side in pair)
            if height > 0 and width > 0 and 1 / _MOST_STRETCH <= height / width <= _MOST_STRETCH:
                return height / width
    return 1.0


_MOST_STRETCH = 4.0
"""A pixel that is longer than this is a mistake of the header."""
