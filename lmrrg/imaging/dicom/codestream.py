"""What the first bytes of a compressed frame say about its size, so that no decoder is asked for more than the header.

Markers after ITU-T T.81 (JPEG), T.87 (JPEG-LS) and T.800 (JPEG 2000; T.814 for HTJ2K uses the same SIZ segment).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_JPEG2000 = b"\xff\x4f\xff\x51"
# SOF0 to SOF15 without DHT, JPG and DAC, and SOF55 of JPEG-LS.
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_START_OF_SCAN = 0xDA
_END = b"\xff\xd9"
_MOST_MARKERS = 10_000


class FrameHeader(NamedTuple):
    """Size of a coded frame."""

    rows: int
    columns: int
    components: int


def frame_header(frame: bytes) -> FrameHeader | None:
    """Size of a JPEG, JPEG-LS or JPEG 2000 frame; ``None`` where it is none of them or broken before its header."""
    try:
        if frame[:2] == b"\xff\xd8":
            return _jpeg(frame)
        start = frame.find(
            _JPEG2000, 0, 4096
        )  # behind the boxes of a JP2 file, where there are any
        if start < 0:
            return None
        right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
        (components,) = struct.unpack_from(">H", frame, start + 40)
        return FrameHeader(bottom - top, right - left, components)
    except struct.error:
        return None


def is_complete(frame: bytes) -> bool:
    """Whether a frame of any of these codings has its end marker; a little padding may follow."""
    return _END in frame[-64:]


def _jpeg(frame: bytes) -> FrameHeader | None:
    at = 2
    for _ in range(_MOST_MARKERS):
        fill, marker = struct.unpack_from(">BB", frame, at)
        if fill != 0xFF or marker == _START_OF_SCAN:
            return None
        if marker in _FRAME_HEADERS:
            _, rows, columns, components = struct.unpack_from(">BHHB", frame, at + 4)
            return FrameHeader(rows, columns, components)
        if marker == 0xFF:
            at += 1
        elif marker in _WITHOUT_LENGTH:
            at += 2
        else:
            at += 2 + max(2, struct.unpack_from(">H", frame, at + 2)[0])
    return None
