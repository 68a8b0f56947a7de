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
_HUFFMAN_TABLES = 0xC4
# EOI of JPEG and JPEG-LS, EOC of JPEG 2000.
_END = b"\xff\xd9"
# Real files have a few dozen; a damaged one must not keep us busy.
_MOST_MARKERS = 10_000
MOST_PADDING = 4096
"""Bytes behind the pixels that may hold anything; some writers pad to whole pages of memory."""
LOSSLESS_PROCESS = 0xC3
"""Second byte of SOF3, the frame header of JPEG lossless with Huffman coding."""
# Bits of a sample, and predictors, that a lossless frame may state (T.81 tables B.2 and B.3).
_LEAST_BITS = 2
_MOST_BITS = 16
_PREDICTORS = range(1, 8)
# SOF0 and SOF1: all coefficients of a block lie in one scan.
_SEQUENTIAL = (0xC0, 0xC1)
# Ss, Se, and Ah with Al of every sequential scan (T.81 table B.3).
_SEQUENTIAL_SCAN = bytes((0, 63, 0))


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


def process(frame: bytes) -> int | None:
    """Return the second byte of a JPEG frame header's marker, 0xC3 for lossless; None without one.

    >>> process(bytes.fromhex("ffd8 ffc3 000b 08 0040 0050 01"))
    195
    """
    at = _frame_header_at(frame)
    return None if at is None else frame[at + 1]


def precision(frame: bytes) -> int | None:
    """Return the bits of a sample that a JPEG frame header states; None without one.

    >>> precision(bytes.fromhex("ffd8 ffc3 000b 0c 0040 0050 01"))
    12
    """
    at = _frame_header_at(frame)
    return None if at is None else frame[at + 4]


def is_sound_lossless(frame: bytes) -> bool:
    """Return whether the segments before the pixels of a JPEG lossless frame fit each other.

    GDCM ends the process on some that do not: a precision outside of 2 to 16 bits, or a scan whose
    Huffman table is nowhere defined (T.81 B.2.2, B.2.3, B.2.4.2).
    """
    segments = _segments(frame)
    header = segments.get(LOSSLESS_PROCESS, b"")
    scan = segments.get(_START_OF_SCAN, b"")
    if len(header) < 6 or not scan or len(scan) != 4 + 2 * scan[0]:
        return False
    bits = header[0]
    # Three bytes for each component in the frame header: its number comes first.
    components = header[6::3]
    # Two bytes for each in the scan's: its number, and its Huffman table in the upper four bits.
    chosen = scan[1:-3:2]
    tables = scan[2:-3:2]
    predictor, _, shift = scan[-3:]
    defined = _huffman_tables(segments.get(_HUFFMAN_TABLES, b""))
    return (
        _LEAST_BITS <= bits <= _MOST_BITS
        and len(header) == 6 + 3 * header[5]
        and set(chosen) <= set(components)
        and {table >> 4 for table in tables} <= defined
        and predictor in _PREDICTORS
        and shift < bits
    )


def without_padding(frame: bytes) -> bytes | None:
    r"""Return a frame of any of these codings up to its end marker; None where there is none.

    Behind the marker may lie any number of zeros and up to :data:`MOST_PADDING` other bytes.

    >>> without_padding(b"data" + b"\xff\xd9" + bytes(9000)), without_padding(b"data")
    (b'data\xff\xd9', None)
    """
    content = frame.rstrip(b"\0")
    # No entropy-coded segment holds this pair of bytes: all of the codings stuff bits behind 0xFF.
    end = content.rfind(_END, max(0, len(content) - MOST_PADDING - len(_END)))
    return None if end < 0 else content[: end + len(_END)]


def repaired_scans(frame: bytes) -> bytes:
    """Return a sequential JPEG frame whose scans state that they hold all coefficients.

    Some encoders write 0 for the last coefficient, Se, which decoders refuse. Other frames are
    returned as they are.
    """
    start = _frame_header_at(frame)
    if start is None or frame[start + 1] not in _SEQUENTIAL:
        return frame
    repaired = bytearray(frame)
    at = frame.find(b"\xff\xda", start)
    while 0 <= at < len(frame) - 5:
        # Behind the marker: length, number of components, two bytes for each, then Ss, Se, Ah/Al.
        selection = at + 5 + 2 * frame[at + 4]
        if frame[selection : selection + 2] == b"\0\0":
            repaired[selection : selection + 3] = _SEQUENTIAL_SCAN
        at = frame.find(b"\xff\xda", selection)
    return bytes(repaired)


def _segments(frame: bytes) -> dict[int, bytes]:
    """Return the content of the segments up to the first scan's, by marker; equal ones joined."""
    joined: dict[int, bytes] = {}
    at = 2  # behind SOI
    try:
        for _ in range(_MOST_MARKERS):
            fill, marker = struct.unpack_from(">BB", frame, at)
            if fill != 0xFF:
                break
            if marker == 0xFF:
                at += 1
                continue
            if marker in _WITHOUT_LENGTH:
                at += 2
                continue
            end = at + 2 + max(2, struct.unpack_from(">H", frame, at + 2)[0])
            joined[marker] = joined.get(marker, b"") + frame[at + 4 : end]
            if marker == _START_OF_SCAN:
                break
            at = end
    except struct.error:
        pass
    return joined


def _huffman_tables(content: bytes) -> set[int]:
    """Return the numbers of the tables in DHT segments; none where one of them is damaged."""
    tables = set()
    at = 0
    while at < len(content):
        counts = content[at + 1 : at + 17]
        entries = sum(counts)
        # A lossless frame codes the lengths of its differences, 0 to 16, by tables of class 0.
        if len(counts) < 16 or not 0 < entries <= 17 or content[at] > 3:
            return set()
        if any(value > 16 for value in content[at + 17 : at + 17 + entries]):
            return set()
        tables.add(content[at])
        at += 17 + entries
    return tables if at == len(content) else set()


def _jpeg(frame: bytes) -> FrameHeader | None:
    """Return the size in a JPEG frame header."""
    at = _frame_header_at(frame)
    if at is None:
        return None
    _, rows, columns, components = struct.unpack_from(">BHHB", frame, at + 4)
    return FrameHeader(rows, columns, components)


def _frame_header_at(frame: bytes) -> int | None:
    """Return where the frame header starts, which comes before the first scan; None without one.

    The search goes from marker to marker.
    """
    at = 2  # behind SOI
    try:
        for _ in range(_MOST_MARKERS):
            fill, marker = struct.unpack_from(">BB", frame, at)
            if fill != 0xFF or marker == _START_OF_SCAN:
                return None
            if marker in _FRAME_HEADERS:
                return at
            if marker == 0xFF:
                at += 1  # a fill byte, of which there may be any number (T.81 B.1.1.2)
            elif marker in _WITHOUT_LENGTH:
                at += 2
            else:
                # The length counts its own two bytes; less is damage and must not move us back.
                at += 2 + max(2, struct.unpack_from(">H", frame, at + 2)[0])
    except struct.error:
        return None
    return None
