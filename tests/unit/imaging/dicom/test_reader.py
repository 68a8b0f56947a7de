"""Test DICOM pixels against the standard's formulas; refusals; privacy of messages."""

from __future__ import annotations

import io
import logging
import math
import traceback
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from lmrrg.imaging.dicom.display import window
from lmrrg.imaging.radiograph import ImageError
from lmrrg.imaging.reading import read_image
from tests.support.dicom_files import NAME, dataset, dicom, encoded, lut_item, ramp
from tests.support.paths import REAL_DATA


def by_hand(stored: np.ndarray, pixel) -> np.ndarray:
    """Apply a function of one number to every stored value, in plain Python floats."""
    return np.array([[pixel(float(value)) for value in row] for row in stored])


def linear(x: float, c: float, w: float) -> float:
    """PS3.3 C.11.2.1.2.1 with ymin 0 and ymax 1, as the standard prints it."""
    if x <= c - 0.5 - (w - 1) / 2:
        return 0.0
    if x > c - 0.5 + (w - 1) / 2:
        return 1.0
    return (x - (c - 0.5)) / (w - 1) + 0.5


def linear_exact(x: float, c: float, w: float) -> float:
    """PS3.3 C.11.2.1.3.2."""
    if x <= c - w / 2:
        return 0.0
    return 1.0 if x > c + w / 2 else (x - c) / w + 0.5


def sigmoid(x: float, c: float, w: float) -> float:
    """PS3.3 C.11.2.1.3.1."""
    return 1.0 / (1.0 + math.exp(-4 * (x - c) / w))


def code_of(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(data)
    return caught.value.code


@pytest.mark.parametrize(
    ("function", "formula"),
    [(None, linear), ("LINEAR", linear), ("LINEAR_EXACT", linear_exact), ("SIGMOID", sigmoid)],
)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_rescale_then_window_then_inversion(function, formula, photometric):
    stored = ramp()
    slope, intercept, center, width = 0.5, -300.0, 700.0, 900.0
    elements = {"VOILUTFunction": function} if function else {}
    image = read_image(
        dicom(
            stored,
            RescaleSlope=str(slope),
            RescaleIntercept=str(intercept),
            WindowCenter=str(center),
            WindowWidth=str(width),
            PhotometricInterpretation=photometric,
            **elements,
        )
    )
    shown = by_hand(stored, lambda x: formula(slope * x + intercept, center, width))
    expected = 1 - shown if photometric == "MONOCHROME1" else shown
    assert image.pixels.dtype == np.float32
    assert image.source == "dicom"
    np.testing.assert_allclose(image.pixels, expected, atol=2e-6)


def test_first_of_several_windows():
    stored = ramp()
    image = read_image(dicom(stored, WindowCenter=["1000", "3000"], WindowWidth=["800", "100"]))
    np.testing.assert_allclose(
        image.pixels, by_hand(stored, lambda x: linear(x, 1000, 800)), atol=1e-6
    )


@pytest.mark.parametrize("width", ["0", "-5", "0.5"])
def test_impossible_window_is_no_window(width):
    stored = ramp(low=100, high=3000)
    image = read_image(dicom(stored, WindowCenter="1000", WindowWidth=width))
    np.testing.assert_allclose(image.pixels, by_hand(stored, lambda x: (x - 100) / 2900), atol=1e-6)


def test_window_that_is_not_a_number():
    stored = ramp(low=100, high=3000)
    data = dicom(stored, WindowCenter="1003.5", WindowWidth="800").replace(b"1003.5", b"nan   ")
    np.testing.assert_allclose(
        read_image(data).pixels, by_hand(stored, lambda x: (x - 100) / 2900), atol=1e-6
    )


def test_window_outside_the_values_is_no_window():
    stored = ramp(low=100, high=3000)
    image = read_image(dicom(stored, WindowCenter="60000", WindowWidth="10"))
    np.testing.assert_allclose(image.pixels, by_hand(stored, lambda x: (x - 100) / 2900), atol=1e-6)


def test_width_one_is_a_step():
    values = ramp().astype(float)
    np.testing.assert_array_equal(
        window(values, 1000, 1), by_hand(ramp(), lambda x: float(x > 999.5))
    )


def test_signed_stored_values():
    stored = ramp(low=-2000, high=2000)
    image = read_image(dicom(stored, WindowCenter="0", WindowWidth="3000"))
    np.testing.assert_allclose(
        image.pixels, by_hand(stored, lambda x: linear(x, 0, 3000)), atol=1e-6
    )


def test_modality_lut_comes_before_the_voi_lut():
    stored = ramp(high=15)
    modality, voi = [100 - 5 * n for n in range(16)], [n * n for n in range(120)]
    image = read_image(
        dicom(
            stored,
            ModalityLUTSequence=[lut_item(modality, 0)],
            VOILUTSequence=[lut_item(voi, 10)],
            BitsStored=16,
        )
    )

    def pixel(x: float) -> float:
        entry = min(max(modality[int(x)] - 10, 0), 119)
        return voi[entry] / (2**14 - 1)  # the largest entry, 14161, has 14 bits

    np.testing.assert_allclose(image.pixels, by_hand(stored, pixel), atol=1e-6)


@pytest.mark.parametrize("as_words", [False, True])
def test_voi_lut_outranks_the_window(as_words):
    stored = ramp(high=255)
    table = [255 - n for n in range(256)]
    image = read_image(
        dicom(
            stored,
            VOILUTSequence=[lut_item(table, 0, as_words=as_words)],
            WindowCenter="10",
            WindowWidth="5",
        )
    )
    np.testing.assert_allclose(image.pixels, by_hand(stored, lambda x: (255 - x) / 255), atol=1e-6)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("value", "limit", "padded"), [(0, None, 30), (4095, None, 30), (4000, 4095, 60)]
)
def test_padding_is_black_and_out_of_the_range(photometric, value, limit, padded):
    stored = ramp(low=500, high=2500)
    stored[:, :15], stored[:, -15:] = value, value if limit is None else limit
    elements = {} if limit is None else {"PixelPaddingRangeLimit": limit}
    image = read_image(
        dicom(stored, PhotometricInterpretation=photometric, PixelPaddingValue=value, **elements)
    )
    inside = stored[:, 15:-15].astype(float)
    low, high = inside.min(), inside.max()
    shown = (inside - low) / (high - low)
    np.testing.assert_allclose(
        image.pixels[:, 15:-15], 1 - shown if photometric == "MONOCHROME1" else shown, atol=1e-6
    )
    assert not image.pixels[:, :15].any()
    assert not image.pixels[:, -15:].any()


@pytest.mark.parametrize(
    ("position", "view"),
    [
        ("PA", "PA"),
        ("AP", "AP"),
        ("LL", "lateral"),
        ("RL", "lateral"),
        ("antero-posterior", "AP"),
        ("LEFT LATERAL", "lateral"),
        ("FRONTAL", "frontal"),
        ("LLD", "unknown"),
        ("", "unknown"),
    ],
)
def test_view(position, view):
    assert read_image(dicom(ramp(), ViewPosition=position)).view == view


def test_file_without_meta_header_reads_as_the_whole_file():
    made = dataset(ramp(), WindowCenter="2000", WindowWidth="3000", ViewPosition="PA")
    whole = read_image(encoded(made))
    for implicit in (False, True):
        bare = io.BytesIO()
        bare_dataset = pydicom.Dataset(made)
        pydicom.dcmwrite(bare, bare_dataset, implicit_vr=implicit, little_endian=True)
        image = read_image(bare.getvalue())
        assert image.view == "PA"
        np.testing.assert_array_equal(image.pixels, whole.pixels)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_other_uncompressed_encodings(syntax):
    made = dataset(ramp(), WindowCenter="2000", WindowWidth="3000")
    expected = read_image(encoded(made)).pixels
    made.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        made.PixelData = np.frombuffer(made.PixelData, "<u2").astype(">u2").tobytes()
        made["PixelData"].VR = "OW"
    np.testing.assert_array_equal(read_image(encoded(made)).pixels, expected)


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_bigendian.dcm",
    ],
)
def test_lossless_encodings_of_one_image_agree(name):
    """pydicom ships one image in several encodings; only its modality is changed here."""

    def read(file: str) -> np.ndarray:
        made = pydicom.dcmread(str(get_testdata_file(file)))
        made.Modality = "CR"
        return read_image(encoded(made)).pixels

    reference = read("MR_small.dcm")
    assert reference.std() > 0.05
    np.testing.assert_array_equal(read(name), reference)


@pytest.mark.parametrize(
    ("elements", "code"),
    [
        ({"Modality": "CT"}, "wrong_modality"),
        ({"Modality": "MG"}, "wrong_modality"),
        ({"NumberOfFrames": 3}, "multi_frame"),
        ({"PixelData": None}, "no_pixels"),
        ({"PhotometricInterpretation": "HSV"}, "unsupported_photometric"),
        ({"Rows": 60000, "Columns": 60000}, "too_large"),
        ({"Rows": 20}, "too_small"),
        ({"Rows": 65}, "truncated"),
        ({"Rows": None}, "unreadable"),
    ],
)
def test_refusals(elements, code):
    assert code_of(dicom(ramp(), **elements)) == code


def test_unknown_encoding_is_refused():
    made = dataset(ramp())
    data = encoded(made).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0")
    assert code_of(data) == "unsupported_transfer_syntax"


def test_constant_image_is_refused():
    assert code_of(dicom(np.full((64, 64), 7, np.uint16))) == "constant_image"
    assert code_of(dicom(np.full((64, 64), 7, np.uint16), PixelPaddingValue=7)) == "constant_image"


def outcome(data: bytes) -> tuple[str, np.ndarray | None]:
    """Return the refusal's message, or the pixels; any other error fails the test."""
    try:
        return "", read_image(data).pixels
    except ImageError as error:
        return str(error), None


@settings(max_examples=150, deadline=None)
@given(cut=st.integers(1, 9000), flip=st.integers(0, 9000), value=st.integers(0, 255))
def test_damaged_files_end_in_an_image_or_a_code(cut, flip, value):
    data = bytearray(dicom(ramp(), WindowCenter="2000", WindowWidth="3000", ViewPosition="PA"))
    data[flip % len(data)] = value
    for damaged in (bytes(data), bytes(data[: len(data) - cut % len(data)])):
        message, pixels = outcome(damaged)
        assert NAME not in message
        if pixels is not None:
            assert np.isfinite(pixels).all()
            assert pixels.min() >= 0
            assert pixels.max() <= 1


def test_nothing_of_the_header_leaves(caplog, capsys):
    """Damaged elements hold a name: no error, chained error, warning or log line quotes it."""
    made = dataset(ramp(), Rows=None)
    made.add_new(0x00100030, "LO", "BORN-1.1.1900")
    data = encoded(made).replace(b"LO\x0e\x00BORN", b"DA\x0e\x00BORN")
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as seen:
        warnings.filterwarnings("ignore", module=r"pydicom\.")
        with pytest.raises(ImageError) as caught:
            read_image(data)
    shown = "".join(traceback.format_exception(caught.value))
    said = (
        shown + caplog.text + "".join(str(w.message) for w in seen) + "".join(capsys.readouterr())
    )
    assert "BORN" not in said
    assert NAME not in said


def real_dicoms(repo_root: Path) -> Path:
    folder = REAL_DATA / "dicom"
    if not folder.is_dir():
        pytest.skip(f"no real DICOM files at {folder}; set LMRRG_TEST_DATA")
    return folder


def test_real_chest_films(repo_root):
    folder = real_dicoms(repo_root)
    for path in sorted(folder.iterdir()):
        image = read_image(path)
        rows, columns = image.pixels.shape
        lung = image.pixels[rows // 3 : rows // 2, columns // 5 : columns // 3].mean()
        spine = image.pixels[
            rows // 3 : rows // 2, int(0.47 * columns) : int(0.53 * columns)
        ].mean()
        assert image.view == "PA", path.name
        assert spine > lung + 0.1, f"{path.name}: air must be darker than bone"


def test_real_file_with_and_without_meta_header(repo_root):
    folder = real_dicoms(repo_root)
    bare, whole = (
        read_image(folder / "CR-MONO1-10-chest"),
        read_image(folder / "gdcm-CR-MONO1-10-chest.dcm"),
    )
    np.testing.assert_array_equal(bare.pixels, whole.pixels)
