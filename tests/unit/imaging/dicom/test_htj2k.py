"""Test HTJ2K: a stream that another encoder wrote reads as our ramp, under every UID for it."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import HTJ2K, UID, HTJ2KLossless, HTJ2KLosslessRPCL

from lmrrg.imaging.radiograph import ImageError
from lmrrg.imaging.reading import read_image
from tests.support.dicom_files import dataset, encoded, ramp

STREAM = base64.b64decode("""
/0//UQApQAAAAABGAAAAQAAAAAAAAAAAAAAARgAAAEAAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQ
kJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv9VAAoAYAAAAAABhP+QAAoAAAAAAYQAAf+TwAAtIP3/We3F/3vahf8f7QEIAPm2
AKAACsgAAkAiSRIAiOQAIQDnVgD+ACMAwAATwAAV8AAEgNP+B5sPFQBAEhJJIIHkwojKUAeXGAD+qsMAwAAWvAABbEAAEoAACQAKoAD0AP8p
F7/mQvd/pC9vYgMQAUYaMWLESABGGjFi5P6EEZCAe5ZCAey8AP774GQAwAAWjAABdSAAAID+/CwL0RC9BegrQoVOADx6eHh4eHh4eHh4eHh4
eHh4ePz/aagY9jGB79jGB79jGB79jGB7LEYBwAAvToAAXocAAKgAAAAAAAAAAAAAAAAAAAAA/qvvz9nE3UKFC9QoUL1ChUV1CheuoUL11Che
uoUL11ConXUL111C9ddQvXXUL111CnXXROuuuuuuokSJHQP4fd/3fd/3fd/3fd/3fd/3fd/3fd/3fd/3ff93970ACECP2EIHv2EIHv2EIHv2
EIHv2EIHv2EIHv2EIHv2EIHsswkC/P9+b1uAZwD/2Q==
""")
"""``imagecodecs.htj2k_encode(ramp(), reversible=True, tlm=True)``.

Written by imagecodecs 2026.3.6 with OpenJPH 0.26.3: one tile, RPCL progression, reversible 5-3
wavelet.
"""


def film(syntax: UID, stream: bytes = STREAM, **elements: int) -> bytes:
    made = dataset(
        ramp(), WindowCenter="2000", WindowWidth="3000", PixelData=encapsulate([stream]), **elements
    )
    made.file_meta.TransferSyntaxUID = syntax
    made["PixelData"].is_undefined_length = True
    return encoded(made)


@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K])
def test_the_stream_reads_as_the_image_it_was_made_from(syntax):
    plain = encoded(dataset(ramp(), WindowCenter="2000", WindowWidth="3000"))
    np.testing.assert_array_equal(read_image(film(syntax)).pixels, read_image(plain).pixels)


def test_every_pixel_comes_from_the_stream():
    """Without a window the range is the image's own, so all 4,096 levels of the ramp count."""
    made = dataset(ramp(), PixelData=encapsulate([STREAM]))
    made.file_meta.TransferSyntaxUID = HTJ2KLossless
    made["PixelData"].is_undefined_length = True
    np.testing.assert_allclose(read_image(encoded(made)).pixels, ramp() / 4095, atol=1e-7)


@pytest.mark.parametrize(
    ("stream", "elements", "code"),
    [
        (STREAM[:300], {}, "truncated"),
        (STREAM, {"Rows": 65}, "size_mismatch"),
        (STREAM, {"Columns": 71}, "size_mismatch"),
    ],
)
def test_a_cut_stream_and_another_size_are_refused(stream, elements, code):
    with pytest.raises(ImageError) as caught:
        read_image(film(HTJ2KLossless, stream, **elements))
    assert caught.value.code == code


def test_a_changed_byte_is_noticed_or_shown_but_never_crashes():
    shown = 0
    for at in range(120, len(STREAM) - 2, 7):
        damaged = STREAM[:at] + bytes([STREAM[at] ^ 0x55]) + STREAM[at + 1 :]
        try:
            pixels = read_image(film(HTJ2KLossless, damaged)).pixels
        except ImageError:
            continue
        shown += not np.array_equal(pixels, read_image(film(HTJ2KLossless)).pixels)
    assert shown, "the decoder reads the stream's bytes"
