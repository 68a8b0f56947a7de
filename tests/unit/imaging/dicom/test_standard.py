"""Test clauses of PS3.3 and PS3.5: bits, tables, padding, colour, pixel shape, early refusals."""

from __future__ import annotations

import itertools
import struct
import tracemalloc
import zlib

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from lmrrg.imaging.dicom.codestream import frame_header
from lmrrg.imaging.radiograph import DEFAULT_LIMITS, ImageError, Limits
from lmrrg.imaging.reading import read_image
from tests.support.dicom_files import dataset, dicom, encoded, ramp


def code_of(data: bytes, limits: Limits = DEFAULT_LIMITS) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(data, limits)
    return caught.value.code


def stretched(values: np.ndarray) -> np.ndarray:
    values = values.astype(float)
    return (values - values.min()) / (values.max() - values.min())


# Compressed samples are always low-aligned (PS3.5 8.2).
@pytest.mark.parametrize(
    ("syntax", "raised"),
    [(None, 0), (None, 1), (None, 4), (ExplicitVRBigEndian, 2), (RLELossless, 0)],
)
@pytest.mark.parametrize(("bits", "signed"), itertools.product([8, 10, 12, 15], [False, True]))
def test_only_the_stored_bits_count(bits, signed, syntax, raised):
    """Overlays or noise in the other bits, below and above, change nothing (PS3.5 8.1.1)."""
    high = min(bits - 1 + raised, 15)
    low = -(1 << bits - 1) if signed else 0
    wanted = ramp(low=low, high=low + (1 << bits) - 1).astype(np.int64)
    shift = high + 1 - bits
    mask = ((1 << bits) - 1) << shift
    noise = np.random.default_rng(0).integers(0, 1 << 16, wanted.shape)
    stored = (((wanted << shift) & mask) | (noise & ~mask & 0xFFFF)).astype(np.uint16)
    made = dataset(stored, PixelRepresentation=int(signed))
    if syntax == ExplicitVRBigEndian:
        made.PixelData = stored.astype(">u2").tobytes()
        made["PixelData"].VR = "OW"
        made.file_meta.TransferSyntaxUID = syntax
    elif syntax:
        made.compress(syntax, stored.view(np.int16) if signed else stored)
    made.BitsStored, made.HighBit = bits, high
    np.testing.assert_allclose(read_image(encoded(made)).pixels, stretched(wanted), atol=1e-6)


def test_samples_of_8_bits():
    stored = ramp(high=255).astype(np.uint8)
    made = dataset(stored, BitsAllocated=8, BitsStored=8, HighBit=7, PixelData=stored.tobytes())
    made["PixelData"].VR = "OB"
    np.testing.assert_allclose(read_image(encoded(made)).pixels, stretched(stored), atol=1e-6)


def lut(entries: bytes | list[int], count: int, first: int, bits: int) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US" if first >= 0 else "SS", [count, first, bits])
    item.add_new("LUTData", "US" if isinstance(entries, list) else "OW", entries)
    return item


@pytest.mark.parametrize("packed", [True, False])
def test_voi_lut_with_entries_of_8_bits(packed):
    """One entry per word, or two; the first input need not be 0."""
    table = [255 - n for n in range(200)]
    data = bytes(table) if packed else np.array(table, "<u2").tobytes()
    image = read_image(dicom(ramp(high=255), VOILUTSequence=[lut(data, 200, 20, 8)]))
    expected = np.take(table, np.clip(ramp(high=255).astype(int) - 20, 0, 199)) / 255
    np.testing.assert_allclose(image.pixels, expected, atol=1e-6)


@pytest.mark.parametrize("first", [-1000, 65536 - 1000])
def test_first_input_of_a_voi_lut_is_signed_where_inputs_are(first):
    item = lut(list(range(2000)), 2000, first, 11)
    image = read_image(
        dicom(ramp(high=1999), RescaleSlope="1", RescaleIntercept="-1000", VOILUTSequence=[item])
    )
    np.testing.assert_allclose(image.pixels, ramp(high=1999) / 2047, atol=1e-6)


def test_a_descriptor_of_zero_entries_means_65536():
    item = lut(np.arange(65536, dtype="<u2").tobytes(), 0, 0, 16)
    image = read_image(dicom(ramp(high=65535), VOILUTSequence=[item]))
    np.testing.assert_allclose(image.pixels, ramp(high=65535) / 65535, atol=1e-6)


def test_an_empty_lut_is_passed_over():
    items = [lut([], 4, 0, 16), lut([0, 0, 4095], 3, 100, 12)]
    image = read_image(dicom(ramp(high=255), VOILUTSequence=items))
    np.testing.assert_array_equal(image.pixels, (ramp(high=255) >= 102).astype(np.float32))


def test_the_first_possible_window_is_taken():
    image = read_image(dicom(ramp(), WindowCenter=["5", "2048"], WindowWidth=["0", "4096"]))
    np.testing.assert_allclose(
        image.pixels, np.clip((ramp() - 2047.5) / 4095 + 0.5, 0, 1), atol=1e-6
    )


@pytest.mark.parametrize(
    ("photometric", "shape", "inverse"),
    [
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME1", "IDENTITY", False),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME1", "", True),
    ],
)
def test_presentation_lut_shape_inverts_once(photometric, shape, inverse):
    pixels = read_image(
        dicom(ramp(), PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    ).pixels
    np.testing.assert_allclose(
        pixels, 1 - stretched(ramp()) if inverse else stretched(ramp()), atol=1e-6
    )


@pytest.mark.parametrize("written", [-2000, 65536 - 2000])
def test_padding_in_the_signedness_of_the_image(written):
    stored = ramp(low=-1000, high=1000)
    stored[:9] = -2000
    made = dataset(stored)
    made.add_new("PixelPaddingValue", "SS" if written < 0 else "US", written)
    pixels = read_image(encoded(made)).pixels
    assert not pixels[:9].any()
    np.testing.assert_allclose(pixels[9:], stretched(stored[9:]), atol=1e-6)


def test_an_unusable_rescale_is_no_rescale():
    for elements in (
        {"RescaleSlope": "0", "RescaleIntercept": "3"},
        {"RescaleSlope": ""},
        {"RescaleIntercept": "-9"},
    ):
        np.testing.assert_allclose(
            read_image(dicom(ramp(), **elements)).pixels, stretched(ramp()), atol=1e-6
        )


def colour(planar: int, photometric: str = "RGB") -> Dataset:
    rgb = np.random.default_rng(3).integers(0, 256, (64, 66, 3)).astype(np.uint8)
    made = dataset(
        rgb[..., 0].astype(np.uint16), SamplesPerPixel=3, PhotometricInterpretation=photometric
    )
    made.PlanarConfiguration, made.BitsAllocated, made.BitsStored, made.HighBit = planar, 8, 8, 7
    made.PixelData = (rgb.transpose(2, 0, 1) if planar else rgb).tobytes()
    made["PixelData"].VR = "OB"
    made.rgb = rgb
    return made


@pytest.mark.parametrize("planar", [0, 1])
def test_rgb_is_its_luminance(planar):
    made = colour(planar)
    expected = made.rgb @ np.array([0.299, 0.587, 0.114]) / 255
    np.testing.assert_allclose(read_image(encoded(made)).pixels, expected, atol=1e-6)


def test_luminance_of_ybr_is_y():
    made = colour(0, "YBR_FULL")
    made.rgb[..., 1:] = 128
    made.PixelData = made.rgb.tobytes()
    np.testing.assert_allclose(
        read_image(encoded(made)).pixels, made.rgb[..., 0] / 255, atol=1.01 / 255
    )


def test_palette():
    stored = ramp(high=255)
    made = dataset(stored, PhotometricInterpretation="PALETTE COLOR")
    for name, table in (("Red", range(256)), ("Green", range(255, -1, -1)), ("Blue", [0] * 256)):
        made.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", [256, 0, 16])
        setattr(
            made,
            f"{name}PaletteColorLookupTableData",
            np.array([n * 257 for n in table], "<u2").tobytes(),
        )
    expected = 0.299 * stored / 255 + 0.587 * (255 - stored.astype(float)) / 255
    np.testing.assert_allclose(read_image(encoded(made)).pixels, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("elements", "shape"),
    [
        ({"PixelSpacing": ["0.2", "0.1"]}, (128, 70)),
        ({"ImagerPixelSpacing": ["0.1", "0.15"]}, (64, 105)),
        ({"PixelAspectRatio": ["3", "2"]}, (96, 70)),
        ({"PixelSpacing": ["0.1", "0.1"], "PixelAspectRatio": ["3", "2"]}, (64, 70)),
        ({"PixelSpacing": ["0", "0"]}, (64, 70)),
        ({"PixelSpacing": ["0.1", "9"]}, (64, 70)),
        ({"PixelSpacing": ["0.143", "0.1435"]}, (64, 70)),
    ],
)
def test_pixels_become_square(elements, shape):
    pixels = read_image(dicom(ramp(), **elements)).pixels
    assert pixels.shape == shape
    np.testing.assert_allclose(pixels.mean(), 0.5, atol=0.01)
    assert pixels.min() >= 0
    assert pixels.max() <= 1


@pytest.mark.parametrize(
    ("code", "view"),
    [
        ("272479007", "PA"),
        ("R-10206", "AP"),
        ("399173006", "lateral"),
        ("399033003", "frontal"),
        ("1", "unknown"),
    ],
)
def test_view_by_its_code(code, view):
    item = Dataset()
    item.CodeValue = code
    assert read_image(dicom(ramp(), ViewCodeSequence=[item])).view == view
    assert read_image(dicom(ramp(), ViewCodeSequence=[item], ViewPosition="LL")).view == "lateral"


@pytest.mark.parametrize(
    "elements",
    [
        {"PresentationIntentType": "FOR PROCESSING"},
        {"Modality": "DX", "SOPClassUID": DigitalXRayImageStorageForProcessing},
    ],
)
def test_values_for_processing_are_flagged(elements):
    assert read_image(dicom(ramp(), **elements)).warnings == ("for_processing",)
    shown = dicom(ramp(), PresentationIntentType="FOR PRESENTATION")
    assert read_image(shown).warnings == ()


@pytest.mark.parametrize(
    "storage", [SecondaryCaptureImageStorage, MultiFrameGrayscaleWordSecondaryCaptureImageStorage]
)
def test_secondary_captures_of_modality_other_are_read_on_request_only(storage):
    capture = dicom(ramp(), Modality="OT", SOPClassUID=storage)
    with pytest.raises(ImageError, match=r"wrong_modality: .*data\.allow_secondary_capture"):
        read_image(capture)
    allowed = Limits(secondary_capture=True)
    np.testing.assert_array_equal(
        read_image(capture, allowed).pixels, read_image(dicom(ramp())).pixels
    )
    assert code_of(dicom(ramp(), Modality="OT"), allowed) == "wrong_modality"
    assert code_of(dicom(ramp(), Modality="CT"), allowed) == "wrong_modality"


def test_burned_in_annotation_is_flagged_or_refused():
    burned = dicom(ramp(), BurnedInAnnotation="YES")
    assert read_image(burned).burned_in
    assert not read_image(dicom(ramp(), BurnedInAnnotation="NO")).burned_in
    assert code_of(burned, Limits(burned_in="refuse")) == "burned_in_annotation"
    assert not read_image(dicom(ramp()), Limits(burned_in="refuse")).burned_in


def compressed(syntax: str, **elements) -> Dataset:
    """Return a ramp in one of the encodings that pydicom can write here."""
    made = dataset(ramp(), BitsStored=12, HighBit=11)
    made.compress(syntax, encoding_plugin="" if syntax == RLELossless else "pylibjpeg")
    for name, value in elements.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressed_without_loss(syntax):
    np.testing.assert_allclose(
        read_image(encoded(compressed(syntax))).pixels, stretched(ramp()), atol=1e-6
    )


def deflated(made: Dataset) -> bytes:
    made.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return encoded(made)


def test_deflated_with_a_bound():
    noise = np.random.default_rng(0).integers(0, 4096, (64, 64)).astype(np.uint16)
    small = deflated(dataset(noise))
    np.testing.assert_allclose(read_image(small).pixels, stretched(noise), atol=1e-6)
    bomb = deflated(dataset(ramp(), PixelData=bytes(8 << 20)))
    assert len(bomb) < 20_000
    assert code_of(bomb, Limits(max_bytes=1 << 20)) == "too_large"


@pytest.mark.parametrize("elements", [{"Rows": 80}, {"Columns": 200}])
@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_a_header_that_states_another_size_than_the_frame(syntax, elements):
    assert code_of(encoded(compressed(syntax, **elements))) in ("size_mismatch", "unreadable")


def test_a_small_header_before_a_large_frame_is_refused_before_decoding(monkeypatch):
    """A decoder would believe the codestream: 60,000 x 60,000."""
    monkeypatch.setattr("lmrrg.imaging.dicom.decode.get_decoder", lambda _: pytest.fail("decoded"))
    sizes = struct.pack(">HHIIIIIIIIH", 41, 0, 60000, 60000, 0, 0, 60000, 60000, 0, 0, 1)
    start = b"\0\x0b\x08" + struct.pack(">HH", 60000, 60000) + b"\1\1\x11\0"
    frames = {
        JPEG2000Lossless: b"\xff\x4f\xff\x51" + sizes + bytes(3) + b"\xff\xd9",
        HTJ2K: b"\xff\x4f\xff\x51" + sizes + bytes(3) + b"\xff\xd9",
        JPEGBaseline8Bit: b"\xff\xd8\xff\xe0\0\4ab\xff\xc0" + start,
        JPEGLSLossless: b"\xff\xd8\xff\xf7" + start,
    }
    for syntax, frame in frames.items():
        assert frame_header(frame) == (60000, 60000, 1)
        made = dataset(ramp(), PixelData=encapsulate([frame + b"\xff\xd9"]))
        made.file_meta.TransferSyntaxUID = syntax
        made["PixelData"].is_undefined_length = True
        assert code_of(encoded(made)) == "size_mismatch"


def test_rle_that_inflates_without_end():
    made = compressed(RLELossless)
    made.PixelData = encapsulate([bytes(3 * 64 * 70 * 2)])
    assert code_of(encoded(made)) == "size_mismatch"


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", ["RG", "rle", "j2k", "deflated"])
def test_truncated(name, share):
    made = {"RG": lambda: dataset(ramp()), "deflated": lambda: dataset(ramp())}.get(
        name, lambda: compressed(RLELossless if name == "rle" else JPEG2000Lossless)
    )()
    data = deflated(made) if name == "deflated" else encoded(made)
    assert code_of(data[: int(len(data) * share)]) in ("truncated", "unreadable", "no_pixels")


@pytest.mark.parametrize(
    ("elements", "code"),
    [
        ({"Modality": None, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "wrong_modality"),
        ({"Rows": 1, "Columns": 1}, "too_small"),
        ({"Rows": 0}, "too_small"),
        ({"Columns": 64, "Rows": 64}, "size_mismatch"),
        ({"BitsAllocated": 32}, "unsupported_bits"),
        ({"SamplesPerPixel": 3}, "unreadable"),
        ({"PhotometricInterpretation": "CMYK"}, "unsupported_photometric"),
    ],
)
def test_refusals(elements, code):
    assert code_of(dicom(ramp(), **elements)) == code


def test_zeros_behind_the_pixels_are_padding():
    stored = ramp()
    made = dataset(stored, PixelData=stored.astype("<u2").tobytes() + bytes(100))
    np.testing.assert_allclose(read_image(encoded(made)).pixels, stretched(stored), atol=1e-6)


def test_pixels_beyond_the_configured_number():
    assert code_of(dicom(ramp()), Limits(max_pixels=64 * 70 - 1)) == "too_large"
    wide = dicom(ramp(), PixelSpacing=["0.2", "0.1"])
    assert code_of(wide, Limits(max_pixels=64 * 70)) == "too_large", (
        "made square, it would be larger"
    )


def test_one_photograph_in_seven_colour_encodings():
    """pydicom's colour bars: RGB, YBR_FULL, YBR_FULL_422, planar, RLE, JPEG 2000.

    Only the modality is changed here.
    """

    def read(file: str) -> np.ndarray:
        made = pydicom.dcmread(str(get_testdata_file(file)))
        made.Modality = "CR"
        return read_image(encoded(made)).pixels

    reference = read("SC_rgb_rle.dcm")
    assert reference.std() > 0.2
    tolerances = {
        "SC_rgb_rle_16bit.dcm": 0.005,
        "SC_rgb_gdcm_KY.dcm": 0.01,
        "SC_rgb_jpeg_dcmtk.dcm": 0.03,
        "SC_ybr_full_422_uncompressed.dcm": 0.03,
    }
    for name, tolerance in tolerances.items():
        # JPEG blurs the edges between the bars; the middle of each bar keeps its grey.
        np.testing.assert_allclose(
            np.median(read(name), axis=1), np.median(reference, axis=1), atol=tolerance
        )


def test_a_bare_data_set_in_big_endian_is_dicom():
    made = dataset(ramp())
    made.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    made.PixelData = ramp().astype(">u2").tobytes()
    made["PixelData"].VR = "OW"
    data = encoded(made)
    start = data.index(b"\x00\x08\x00\x16UI")
    np.testing.assert_allclose(read_image(data[start:]).pixels, stretched(ramp()), atol=1e-6)


def test_implicit_vr_lut_and_padding():
    """Without value representations in the file, their signedness follows the pixels'."""
    stored = ramp(low=-500, high=500)
    stored[:5] = -900
    made = dataset(stored, VOILUTSequence=[lut(list(range(1001)), 1001, -500, 10)])
    made.add_new("PixelPaddingValue", "SS", -900)
    made.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    pixels = read_image(encoded(made)).pixels
    assert not pixels[:5].any()
    np.testing.assert_allclose(pixels[5:], (stored[5:] + 500.0) / 1023, atol=1e-6)


def test_the_bomb_in_a_png_text_is_not_inflated():
    big = zlib.compress(bytes(32 << 20), 1)
    chunk = b"zTXt" + b"k\0\0" + big
    header = b"IHDR" + struct.pack(">IIBBBBB", 80, 80, 8, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n"
    for part in (header, chunk):
        png += struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part))
    tracemalloc.start()
    assert code_of(png) in ("unreadable", "truncated")
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
