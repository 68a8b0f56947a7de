"""Read the size of a compressed frame from its first bytes, before a decoder reserves memory.

Markers follow ITU-T T.81 (JPEG), T.87 (JPEG-LS) and T.800 (JPEG 2000; HTJ2K, T.814, has the same
SIZ segment).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

# JPEG 2000: SOC, always followed by SIZ (T.800 A.4.1 and A.5.1).
_JPEG2000 = b"\xff\x4f\xff\x51"
# JPEG: SOF0 to SOF15 without DHT, JPG and DAC, which share their range (T.81 table B.1), and SOF55
# of JPEG-LS (T.87).
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
# TEM, RST0 to RST7 and SOI stand alone; every other marker is followed by its segment's length.
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_START_OF_SCAN = 0xDA
# EOI of JPEG and JPEG-LS, EOC of JPEG 2000.
_END = b"\xff\xd9"
# Real files have a few dozen; a damaged one must not keep us busy.
_MOST_MARKERS = 10_000


class FrameHeader(NamedTuple):
    """Size of a coded frame, pixels and samples per pixel."""

    rows: int
    columns: int
    components: int


def frame_header(frame: bytes) -> FrameHeader | None:
    """Return the size that a JPEG, JPEG-LS or JPEG 2000 frame states.

    ``None`` means another coding, or damage before the frame header.

    >>> start_of_image, sof0 = bytes.fromhex("ffd8"), bytes.fromhex("ffc0 000b 08 0040 0050 01")
    >>> frame_header(start_of_image + sof0)
    FrameHeader(rows=64, columns=80, components=1)
    >>> frame_header(b"no codestream") is None
    True
    """
    try:
        if frame[:2] == b"\xff\xd8":
            return _jpeg(frame)
        # DICOM holds bare codestreams; some writers store a whole JP2 file, whose boxes come first.
        start = frame.find(_JPEG2000, 0, 4096)
        if start < 0:
            return None
        # SIZ: Xsiz, Ysiz, XOsiz, YOsiz behind two markers, Lsiz and Rsiz; Csiz follows the tiles.
        right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
        (components,) = struct.unpack_from(">H", frame, start + 40)
        return FrameHeader(bottom - top, right - left, components)
    except struct.error:
        return None


def is_complete(frame: bytes) -> bool:
    r"""Return whether a frame of any of these codings has its end marker.

    A little padding may follow: fragments have an even length (PS3.5 A.4).

    >>> is_complete(b"data" + b"\xff\xd9" + b"\0"), is_complete(b"data")
    (True, False)
    """
    return _END in frame[-64:]


def _jpeg(frame: bytes) -> FrameHeader | None:
    """Walk from marker to marker until the frame header, which comes before the first scan."""
    at = 2  # behind SOI
    for _ in range(_MOST_MARKERS):
        fill, marker = struct.unpack_from(">BB", frame, at)
        if fill != 0xFF or marker == _START_OF_SCAN:
            return None
        if marker in _FRAME_HEADERS:
            _, rows, columns, components = struct.unpack_from(">BHHB", frame, at + 4)
            return FrameHeader(rows, columns, components)
        if marker == 0xFF:
            at += 1  # a fill byte, of which there may be any number (T.81 B.1.1.2)
        elif marker in _WITHOUT_LENGTH:
            at += 2
        else:
            # The length counts its own two bytes; less is damage and must not move us backwards.
            at += 2 + max(2, struct.unpack_from(">H", frame, at + 2)[0])
    return None
