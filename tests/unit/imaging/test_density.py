"""Files that decode to millions of pixels of one value are refused before they are decoded."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from lmrrg.imaging.density import picture_bytes
from lmrrg.imaging.radiograph import ImageError
from lmrrg.imaging.reading import read_image

SIDE = 2100


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def padded(data: bytes, kind: str) -> bytes:
    """Return the file with a comment of 1 MB, and another 1 MB behind its end."""
    if kind == "PNG":
        comment = b"tEXtnote\0" + b"x" * (1 << 20)
        chunk = struct.pack(">I", len(comment) - 4) + comment
        return (
            data[:33] + chunk + struct.pack(">I", zlib.crc32(comment)) + data[33:] + bytes(1 << 20)
        )
    comments = (b"\xff\xfe\xff\xff" + b"x" * 0xFFFD) * 16
    return data[:2] + comments + data[2:] + bytes(1 << 20)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_comments_do_not_hide_an_empty_picture(kind):
    data = padded(encoded(np.full((SIDE, SIDE), 77, np.uint8), kind), kind)
    assert len(data) > SIDE * SIDE / 64
    with pytest.raises(ImageError) as refused:
        read_image(data)
    assert refused.value.code == "empty_image"


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_is_counted_whole(kind):
    noise = np.random.default_rng(0).integers(0, 255, (300, 300)).astype(np.uint8)
    data = encoded(noise, kind)
    assert 0.95 * len(data) - 700 < picture_bytes(data, kind.lower()) < len(data)
    assert picture_bytes(padded(data, kind), kind.lower()) == picture_bytes(data, kind.lower())
    assert read_image(padded(data, kind)).pixels.shape == (300, 300)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_file_that_ends_anywhere_is_counted_as_far_as_it_goes(kind):
    data = encoded(np.eye(100, dtype=np.uint8) * 200, kind)
    for end in range(8, len(data), 7):
        assert 0 <= picture_bytes(data[:end], kind.lower()) <= end
