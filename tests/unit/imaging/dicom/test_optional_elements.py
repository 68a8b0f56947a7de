"""Test that no optional element costs the film, whatever garbage it holds."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from lmrrg.imaging.radiograph import ImageError, stretch
from lmrrg.imaging.reading import read_image
from tests.support.dicom_files import dataset, dicom, encoded, lut_item, ramp

NUMBERS = (
    "WindowCenter",
    "WindowWidth",
    "RescaleSlope",
    "RescaleIntercept",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "NominalScannedPixelSpacing",
    "PixelAspectRatio",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PixelRepresentation",
    "BitsStored",
    "HighBit",
    "PlanarConfiguration",
)
TEXTS = ("ViewPosition", "VOILUTFunction", "PresentationLUTShape", "BurnedInAnnotation")
SEQUENCES = ("VOILUTSequence", "ModalityLUTSequence", "ViewCodeSequence")
GARBAGE = {
    "text": ("DS", b"about 12"),
    "decimal comma": ("DS", b"0,5 "),
    "not a number": ("DS", b"nan "),
    "infinite": ("DS", b"1e999 "),
    "letters as VR IS": ("IS", b"none"),
    "two texts": ("LO", b"a\\bc"),
    "raw bytes": ("OB", b"\x01\x02\x03\x04"),
    "unknown": ("UN", b"\xff\xfe\x00\x01"),
    "half a number": ("US", b"\x01"),
    "empty": ("US", b""),
    "empty sequence": ("SQ", b""),
    "item without elements": ("SQ", b"\xfe\xff\x00\xe0\x00\x00\x00\x00"),
    "damaged item": ("SQ", b"\xfe\xff\x00\xe0\x20\x00\x00\x00abc"),
}


def with_raw(keyword: str, vr: str, value: bytes, **others) -> bytes:
    """Return a film of which one element holds any bytes under any VR."""
    made = dataset(ramp(), **others)
    made["PixelData"].VR = "OW"
    if "PixelPaddingValue" in made:
        made["PixelPaddingValue"].VR = "US"
    tag = Tag(tag_for_keyword(keyword))
    made[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
    return explicit(made)


def explicit(made: Dataset) -> bytes:
    """Write the elements by hand: pydicom refuses to write most garbage."""
    long = ("OB", "OW", "SQ", "UN", "UT")
    plain = encoded(dataset(ramp()))
    start = plain.index(b"\x08\x00\x16\x00UI")
    body = b""
    for tag in sorted(made.keys()):
        item = made.get_item(tag)
        if isinstance(item, RawDataElement):
            vr, value = item.VR, item.value
        else:
            alone = Dataset()
            alone[tag] = item
            body += encoded_body(alone)
            continue
        head = tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little") + vr.encode()
        size = bytes(2) + len(value).to_bytes(4, "little")
        body += head + (size if vr in long else len(value).to_bytes(2, "little")) + value
    return plain[:start] + body


def encoded_body(alone: Dataset) -> bytes:
    """Return one element in explicit VR, without any header."""
    buffer = DicomBytesIO()
    buffer.is_little_endian = True
    buffer.is_implicit_VR = False
    write_dataset(buffer, alone)
    return buffer.getvalue()


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("keyword", [*NUMBERS, *TEXTS, *SEQUENCES])
def test_garbage_counts_as_absent(keyword, garbage):
    others = {"PixelPaddingValue": 5000} if keyword == "PixelPaddingRangeLimit" else {}
    image = read_image(with_raw(keyword, *GARBAGE[garbage], **others))
    absent = read_image(dicom(ramp(), **others))
    np.testing.assert_array_equal(image.pixels, absent.pixels)
    assert (image.view, image.burned_in) == ("unknown", False)


@pytest.mark.parametrize("garbage", ["text", "decimal comma", "raw bytes", "damaged item"])
@pytest.mark.parametrize("keyword", ["RescaleSlope", "PixelPaddingValue", "VOILUTSequence"])
def test_a_window_beside_garbage_still_counts(keyword, garbage):
    window = {"WindowCenter": "2000", "WindowWidth": "3000"}
    image = read_image(with_raw(keyword, *GARBAGE[garbage], **window))
    np.testing.assert_array_equal(image.pixels, read_image(dicom(ramp(), **window)).pixels)


def test_one_damaged_window_leaves_the_next():
    data = with_raw("WindowCenter", "DS", b"12,5\\2000 ", WindowWidth=["50", "3000"])
    expected = read_image(dicom(ramp(), WindowCenter="2000", WindowWidth="3000"))
    np.testing.assert_array_equal(read_image(data).pixels, expected.pixels)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("name", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize("broken", ["empty", "no descriptor", "two numbers", "no data"])
def test_an_unusable_table_leaves_the_next_and_the_window(broken, name, syntax):
    item = lut_item(list(range(4096)), 0, as_words=True)
    if broken in ("empty", "no descriptor"):
        del item.LUTDescriptor
    if broken in ("empty", "no data"):
        del item.LUTData
    if broken == "two numbers":
        item.LUTDescriptor = [4096, 0]
    window = {"WindowCenter": "2000", "WindowWidth": "3000"}
    made = dataset(ramp(), **window, **{name: [item]})
    made.file_meta.TransferSyntaxUID = syntax
    expected = read_image(dicom(ramp(), **window)).pixels
    np.testing.assert_array_equal(read_image(encoded(made)).pixels, expected)
    usable = lut_item(list(range(4095, -1, -1)), 0, as_words=True)
    both = read_image(dicom(ramp(), **{name: [item, usable]})).pixels
    np.testing.assert_array_equal(both, read_image(dicom(ramp(), **{name: [usable]})).pixels)


def test_a_table_of_one_value_leaves_the_window():
    window = {"WindowCenter": "2000", "WindowWidth": "3000"}
    expected = read_image(dicom(ramp(), **window)).pixels
    for name in ("VOILUTSequence", "ModalityLUTSequence"):
        flat = lut_item([7] * 4096, 0, as_words=True)
        pixels = read_image(dicom(ramp(), **window, **{name: [flat]})).pixels
        np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize(
    "elements",
    [
        {"RescaleSlope": "1e308", "RescaleIntercept": "1e308"},
        {"RescaleSlope": "1e-300", "RescaleIntercept": "1"},
        {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 65535},
    ],
)
def test_numbers_that_would_hide_the_film_count_as_absent(elements):
    pixels = read_image(dicom(ramp(), **elements)).pixels
    np.testing.assert_array_equal(pixels, read_image(dicom(ramp())).pixels)


def test_several_frames_are_refused_as_before():
    with pytest.raises(ImageError, match="multi_frame"):
        read_image(dicom(ramp(), NumberOfFrames=2))


def test_a_window_that_shows_almost_nothing_is_passed_over():
    stored = ramp(low=2000, high=3000)
    stored[0, :40] = 500  # less than 2 % of the pixels lie inside of the first window
    stored[0, 40:] = 3000
    window = {"WindowCenter": ["500", "2500"], "WindowWidth": ["900", "1200"]}
    second = read_image(dicom(stored, WindowCenter="2500", WindowWidth="1200")).pixels
    np.testing.assert_array_equal(read_image(dicom(stored, **window)).pixels, second)
    alone = read_image(dicom(stored, WindowCenter="500", WindowWidth="900")).pixels
    assert np.ptp(np.quantile(alone, [0.1, 0.9])) > 0.5


@pytest.mark.parametrize("slope", ["0.0005", "-0.0005"])
def test_a_width_below_one_means_exact_where_the_slope_is_below_one(slope):
    image = read_image(
        dicom(ramp(), RescaleSlope=slope, WindowCenter=f"{float(slope) * 2000}", WindowWidth="0.8")
    )
    values = ramp() * float(slope)
    expected = np.clip((values - float(slope) * 2000) / 0.8 + 0.5, 0, 1)
    np.testing.assert_allclose(image.pixels, expected, atol=1e-6)


@pytest.mark.parametrize("counted", [False, True])
def test_a_few_far_pixels_do_not_take_the_contrast(counted):
    film = np.linspace(1000.0, 2000.0, 10_000)
    values = np.concatenate([film, np.full(20, 60_000.0), np.full(20, 0.0)])
    shown = stretch(values, np.ones(values.size, np.int64) if counted else None)
    assert np.ptp(shown[:10_000]) == 1
    assert shown[10_000:10_020].min() == 1
    assert shown[10_020:].max() == 0
    ordinary = np.concatenate([film, [2400.0]])
    np.testing.assert_array_equal(stretch(ordinary), ((ordinary - 1000) / 1400).astype(np.float32))
