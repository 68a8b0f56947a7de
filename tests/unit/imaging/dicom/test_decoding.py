"""Test frames that encoders write in unusual ways: JPEG lossless, padding, wrong syntaxes."""

from __future__ import annotations

import struct
import sys

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    RLELossless,
)

from lmrrg.imaging.dicom import decode
from lmrrg.imaging.dicom.codestream import repaired_scans
from lmrrg.imaging.radiograph import ImageError
from lmrrg.imaging.reading import read_image
from tests.support.dicom_files import dataset, dicom, encoded, ramp


def code_of(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(data)
    return caught.value.code


def lossless_jpeg(image: np.ndarray, bits: int) -> bytes:
    """Encode [H, W] as JPEG lossless with predictor 1 and differences modulo 2**bits."""
    half = 1 << (bits - 1)
    values = image.astype(np.int64)
    predicted = np.empty_like(values)
    predicted[:, 1:] = values[:, :-1]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = half
    differences = (values - predicted + half) % (1 << bits) - half
    code = []
    for difference in differences.reshape(-1).tolist():
        length = abs(difference).bit_length()
        code.append(f"{length:05b}")  # each length has a Huffman code of five bits
        if 0 < length < 16:
            rest = difference if difference > 0 else difference + (1 << length) - 1
            code.append(f"{rest:0{length}b}")
    joined = "".join(code)
    joined += "1" * (-len(joined) % 8)
    packed = int(joined, 2).to_bytes(len(joined) // 8, "big").replace(b"\xff", b"\xff\0")
    rows, columns = image.shape
    table = bytes([0, 0, 0, 0, 17, *[0] * 11, *range(17)])
    return (
        b"\xff\xd8\xff\xc3" + struct.pack(">HBHHB", 11, bits, rows, columns, 1) + b"\1\x11\0"
        + b"\xff\xc4" + struct.pack(">HB", 3 + len(table), 0) + table
        + b"\xff\xda" + struct.pack(">HB", 8, 1) + b"\1\0\1\0\0" + packed + b"\xff\xd9"
    )  # fmt: skip


def film(frame: bytes, syntax: UID, stored: np.ndarray, **elements) -> bytes:
    made = dataset(stored, **elements)
    made.PixelData = encapsulate([frame + bytes(len(frame) % 2)])
    made["PixelData"].is_undefined_length = True
    made.file_meta.TransferSyntaxUID = syntax
    return encoded(made)


def edges(bits: int) -> np.ndarray:
    """Return an image with a bright edge beside a black border: its differences wrap."""
    image = ramp(high=(1 << bits) - 1).astype(np.int64)
    image[:, :20] = 0
    image[:, 20:24] = (1 << bits) - 1
    image[30:34] = 0
    return image.astype(np.uint16)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLossless, JPEGBaseline8Bit])
@pytest.mark.parametrize("stored_bits", ["as coded", 16])
def test_jpeg_lossless_is_exact(bits, syntax, stored_bits):
    stored = edges(bits)
    kept = 16 if stored_bits == 16 else bits
    data = film(lossless_jpeg(stored, bits), syntax, stored, BitsStored=kept, HighBit=kept - 1)
    if bits == 8:
        made = dataset(stored, BitsAllocated=8, BitsStored=8, HighBit=7)
        frame = lossless_jpeg(stored, 8)
        made.PixelData = encapsulate([frame + bytes(len(frame) % 2)])
        made["PixelData"].VR = "OB"
        made["PixelData"].is_undefined_length = True
        made.file_meta.TransferSyntaxUID = syntax
        data = encoded(made)
    np.testing.assert_array_equal(read_image(data).pixels, read_image(dicom(stored)).pixels)


@pytest.mark.parametrize("bits", [12, 16])
def test_jpeg_lossless_of_signed_values(bits):
    coded = edges(bits)
    signs = {"PixelRepresentation": 1, "BitsStored": bits, "HighBit": bits - 1}
    data = film(lossless_jpeg(coded, bits), JPEGLosslessSV1, coded, **signs)
    native = dataset(coded, **signs)
    np.testing.assert_array_equal(read_image(data).pixels, read_image(encoded(native)).pixels)


SOF3 = b"\xff\xc3"
DHT = b"\xff\xc4"
SOS = b"\xff\xda"


@pytest.mark.parametrize(
    ("segment", "offset", "value"),
    [
        (SOF3, 4, 48),  # bits of a sample
        (SOF3, 4, 1),
        (DHT, 1, 0xD2),  # no table at all
        (DHT, 4, 1),  # another table than the scan takes
        (DHT, 21, 200),  # the length of a difference
        (DHT, 9, 40),  # more entries than there are
        (SOS, 4, 3),  # components in the scan
        (SOS, 5, 9),  # a component that the frame has not
        (SOS, 7, 0),  # predictor
        (SOS, 7, 8),
        (SOS, 9, 15),  # point transform
    ],
)
def test_damage_that_would_end_the_process_in_gdcm_is_refused_before(
    segment, offset, value, monkeypatch
):
    monkeypatch.setattr(decode, "_decoded", lambda *_: pytest.fail("decoded"))
    frame = bytearray(lossless_jpeg(ramp(), 12))
    frame[frame.index(segment) + offset] = value
    assert code_of(film(bytes(frame), JPEGLosslessSV1, ramp())) == "unreadable"


def test_jpeg_lossless_without_gdcm_is_refused(monkeypatch):
    data = film(lossless_jpeg(ramp(), 12), JPEGLosslessSV1, ramp(), BitsStored=12, HighBit=11)
    monkeypatch.setattr(decode, "_GDCM", "not installed")
    assert code_of(data) == "unsupported_transfer_syntax"


def test_other_codings_do_not_go_through_gdcm(monkeypatch):
    """A film has the same pixels whether the package is installed or not."""
    import gdcm  # noqa: F401  (without it this test would show nothing)

    module = sys.modules["pydicom.pixels.decoders.gdcm"]
    monkeypatch.setattr(module, "_decode_frame", lambda *_: pytest.fail("decoded by GDCM"))
    made = dataset(ramp(), BitsStored=12, HighBit=11)
    made.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg")
    np.testing.assert_array_equal(
        read_image(encoded(made)).pixels, read_image(dicom(ramp())).pixels
    )


@pytest.mark.parametrize("excess", [bytes(200), bytes(9000), b"\xaa" * 130, b"\xaa" * 4000])
@pytest.mark.parametrize("coding", ["j2k", "lossless"])
def test_bytes_behind_the_end_of_a_frame_are_padding(coding, excess):
    frame = lossless_jpeg(ramp(), 12)
    syntax = JPEGLosslessSV1
    if coding == "j2k":
        made = dataset(ramp(), BitsStored=12, HighBit=11)
        made.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg")
        syntax = JPEG2000Lossless
        frame = get_frame(made.PixelData, 0, number_of_frames=1)
        frame = frame[: frame.rindex(b"\xff\xd9") + 2]
    bits = {"BitsStored": 12, "HighBit": 11}
    image = read_image(film(frame + excess, syntax, ramp(), **bits))
    np.testing.assert_array_equal(image.pixels, read_image(dicom(ramp())).pixels)
    assert code_of(film(frame[: len(frame) * 9 // 10] + excess, syntax, ramp(), **bits)) in (
        "truncated",
        "unreadable",
    )


@pytest.mark.parametrize("excess", [b"\x20\x20", b"\xaa" * 126, b"\xaa" * 2002, bytes(9000)])
def test_a_little_behind_native_pixels_is_padding(excess):
    pixels = ramp().astype("<u2").tobytes()
    image = read_image(dicom(ramp(), PixelData=pixels + excess))
    np.testing.assert_array_equal(image.pixels, read_image(dicom(ramp())).pixels)


def test_further_pages_and_further_columns_are_no_padding():
    pixels = ramp().astype("<u2").tobytes()
    assert code_of(dicom(ramp(), PixelData=pixels * 3)) == "size_mismatch"
    assert code_of(dicom(ramp(), Columns=69)) == "size_mismatch"


@pytest.mark.parametrize(
    "syntax", [JPEG2000Lossless, JPEGLosslessSV1, JPEGBaseline8Bit, RLELossless]
)
def test_native_pixels_under_a_compressed_syntax(syntax):
    made = dataset(ramp(), WindowCenter="2000", WindowWidth="3000")
    data = encoded(made)
    stated = str(made.file_meta.TransferSyntaxUID).encode() + b"\0"
    # The UID has another length, which the element and its group state.
    wrong = str(syntax).encode() + b"\0" * (len(syntax) % 2)
    at = data.index(stated) - 8
    element = data[at : at + 6] + struct.pack("<H", len(wrong)) + wrong
    changed = data[:at] + element + data[at + 8 + len(stated) :]
    (size,) = struct.unpack_from("<I", changed, 140)
    size += len(wrong) - len(stated)
    changed = changed[:140] + struct.pack("<I", size) + changed[144:]
    np.testing.assert_array_equal(read_image(changed).pixels, read_image(data).pixels)


def test_a_sequential_scan_that_states_no_last_coefficient():
    made = pydicom.dcmread(str(get_testdata_file("JPGExtended.dcm")))
    made.Modality = "CR"
    expected = read_image(encoded(made)).pixels
    frame = get_frame(made.PixelData, 0, number_of_frames=1)
    scan = frame.index(b"\xff\xda")
    last = scan + 6 + 2 * frame[scan + 4]
    assert frame[last] == 63
    broken = frame[:last] + b"\0" + frame[last + 1 :]
    made.PixelData = encapsulate([broken])
    made["PixelData"].is_undefined_length = True
    np.testing.assert_array_equal(read_image(encoded(made)).pixels, expected)
    assert repaired_scans(frame) == frame
