"""Count the bytes of a file that hold its picture, beside headers, comments and what follows."""

from __future__ import annotations

import struct
from typing import Literal

_CHUNK = struct.Struct(">I4s")  # PNG: length and type
_CRC = 4
_SEGMENT = struct.Struct(">BBH")  # JPEG: 0xFF, type and length, which counts itself
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = b"\xff\xd9"


def picture_bytes(data: bytes, kind: Literal["png", "jpeg"]) -> int:
    """Return how many bytes of a PNG or JPEG file are compressed pixels.

    A file whose structure ends early counts as far as it goes; reading it tells what is wrong.

    >>> picture_bytes(b"\\x89PNG\\r\\n\\x1a\\n" + b"\\0\\0\\0\\2IDATab\\0\\0\\0\\0", "png")
    2
    >>> picture_bytes(b"\\xff\\xd8\\xff\\xfe\\0\\4..\\xff\\xda\\0\\2pixels\\xff\\xd9rest", "jpeg")
    12
    """
    return _png(data) if kind == "png" else _jpeg(data)


def _png(data: bytes) -> int:
    total = 0
    start = 8  # behind the signature
    while start + _CHUNK.size <= len(data):
        length, name = _CHUNK.unpack_from(data, start)
        start += _CHUNK.size
        if name == b"IDAT":
            total += min(length, len(data) - start)
        start += length + _CRC
    return total


def _jpeg(data: bytes) -> int:
    start = 2  # behind the marker of the start
    while start + _SEGMENT.size <= len(data):
        _, name, length = _SEGMENT.unpack_from(data, start)
        if name == _START_OF_SCAN:
            # Inside a scan every 0xFF is followed by 0 or a restart marker, so this is the end.
            end = data.find(_END_OF_IMAGE, start)
            return (len(data) if end < 0 else end + len(_END_OF_IMAGE)) - start
        start += 2 + length
    return 0
