"""Reading a projection radiograph from DICOM. Nothing of the header but the view leaves this module.

The order of the pixel steps is the standard's (PS3.3 C.11, PS3.4 N.2): stored values, modality LUT or rescale, VOI LUT
or window, and the inversion of MONOCHROME1 last, since windows are stated in values before it.
"""

from __future__ import annotations

import io
import logging
import struct
import warnings
import zlib
from typing import cast

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import FileDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels import apply_modality_lut

from lmrrg.data.radiograph import ImageError, Pixels, Radiograph, check_size, stretch
from lmrrg.studies import View

TRANSFER_SYNTAXES: tuple[uid.UID, ...] = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEGLSNearLossless,
    uid.JPEG2000Lossless,
    uid.JPEG2000,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.HTJ2K,
    uid.RLELossless,
)
"""The encodings that are read."""

MODALITIES = ("CR", "DX", "RG")
_VIEWS: dict[str, View] = {"PA": "PA", "AP": "AP", "LL": "lateral", "RL": "lateral", "LATERAL": "lateral"}
_DAMAGE = (
    InvalidDicomError, BytesLengthException, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError,
    NotImplementedError, OverflowError, OSError, RuntimeError, struct.error, zlib.error,
)  # fmt: skip

# pydicom quotes header values in its complaints, its warnings and its log.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module=r"pydicom\.")


def is_dicom(data: bytes) -> bool:
    """Whether bytes look like DICOM: the file-meta magic, or a bare data set that starts with group 2 or 8."""
    return data[128:132] == b"DICM" or (len(data) > 132 and data[:2] in (b"\x02\x00", b"\x08\x00") and data[3] == 0)


def read_dicom(data: bytes) -> Radiograph:
    """Decode one DICOM object; padded pixels are black.

    Raises:
        ImageError: any code of a DICOM file; the message holds nothing from the header.
    """
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        _check(dataset)
        stored = _stored_values(dataset)
        return Radiograph(_to_display(dataset, stored), _view(dataset), "dicom")
    except ImageError:
        raise
    except _DAMAGE:
        # `from None`: pydicom's messages quote header values.
        raise ImageError("unreadable") from None


def _check(dataset: FileDataset) -> None:
    """Refuse by the header alone, so that nothing large or foreign is ever decoded."""
    if str(dataset.get("Modality", "") or "CR") not in MODALITIES:
        raise ImageError("wrong_modality")
    if "PixelData" not in dataset:
        raise ImageError("no_pixels")
    if int(dataset.get("NumberOfFrames", 1) or 1) > 1:
        raise ImageError("multi_frame")
    if dataset.get("PhotometricInterpretation", "") not in ("MONOCHROME1", "MONOCHROME2"):
        raise ImageError("not_grayscale")
    check_size(int(dataset.Rows), int(dataset.Columns))
    if _transfer_syntax(dataset) not in TRANSFER_SYNTAXES:
        raise ImageError("unsupported_transfer_syntax")


def _transfer_syntax(dataset: FileDataset) -> uid.UID:
    """The stated encoding; a file without the file-meta header is as pydicom parsed it."""
    stated = dataset.file_meta.get("TransferSyntaxUID")
    if stated is not None:
        return cast(uid.UID, stated)
    implicit, little = dataset.original_encoding
    if not little:
        return uid.ExplicitVRBigEndian
    return uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian


def _stored_values(dataset: FileDataset) -> NDArray[np.integer]:
    syntax = _transfer_syntax(dataset)
    dataset.file_meta.TransferSyntaxUID = syntax
    expected = int(dataset.Rows) * int(dataset.Columns) * int(dataset.BitsAllocated) // 8
    if not syntax.is_compressed and len(dataset.PixelData) < expected:
        raise ImageError("truncated")
    stored = dataset.pixel_array
    if stored.shape != (int(dataset.Rows), int(dataset.Columns)):
        raise ImageError("unreadable", "the pixels do not have the size that the header states")
    return stored


def _to_display(dataset: FileDataset, stored: NDArray[np.integer]) -> Pixels:
    kept = _not_padding(dataset, stored)
    values = np.asarray(apply_modality_lut(stored, dataset), dtype=np.float32)
    shown = _through_voi_lut(dataset, values) if _has_voi_lut(dataset) else _through_window(dataset, values)
    if shown is None or np.ptp(shown[kept]) == 0:
        shown = stretch(values, kept)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        shown = 1.0 - shown
    return np.where(kept, shown, np.float32(0.0))


def _not_padding(dataset: FileDataset, stored: NDArray[np.integer]) -> NDArray[np.bool_]:
    """True where a pixel belongs to the image; padding is stated in stored values."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.ones(stored.shape, bool)
    limit = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((int(value), int(value if limit is None else limit)))
    kept = (stored < low) | (stored > high)
    if not kept.any():
        raise ImageError("constant_image")
    return kept


def _has_voi_lut(dataset: FileDataset) -> bool:
    return bool(dataset.get("VOILUTSequence"))


def _through_voi_lut(dataset: FileDataset, values: Pixels) -> Pixels:
    """The first VOI LUT, scaled by the range of its own entries (many state 16 bits and use 12)."""
    item = dataset.VOILUTSequence[0]
    count, first, bits = (int(number) for number in item.LUTDescriptor)
    table = _lut_data(item.LUTData, bits, little_endian=dataset.original_encoding[1] is not False)[: count or 65536]
    if table.size == 0:
        raise ImageError("unreadable", "an empty VOI LUT")
    index = np.clip(values.astype(np.int64) - first, 0, table.size - 1)
    return stretch(table)[index]


def _lut_data(data: object, bits: int, *, little_endian: bool) -> Pixels:
    if isinstance(data, bytes):
        data = np.frombuffer(data, ("<" if little_endian else ">") + ("u2" if bits > 8 else "u1"))
    return np.asarray(data, dtype=np.float32).reshape(-1)


def _through_window(dataset: FileDataset, values: Pixels) -> Pixels | None:
    """The first window; ``None`` where there is none, or one with an impossible width."""
    center, width = _first(dataset.get("WindowCenter")), _first(dataset.get("WindowWidth"))
    function = str(dataset.get("VOILUTFunction", "") or "LINEAR").upper()
    least = 1.0 if function == "LINEAR" else 0.0
    if not (np.isfinite(center) and np.isfinite(width)) or width < least or width == 0:
        return None
    return window(values, center, width, function)


def window(values: Pixels, center: float, width: float, function: str = "LINEAR") -> Pixels:
    """Map values to [0, 1] by one of the three functions of PS3.3 C.11.2.1.

    ``LINEAR`` treats values as the centres of integer steps (hence the 0.5 and 1), ``LINEAR_EXACT`` does not,
    ``SIGMOID`` has slope 1/width at the centre. Any other name is read as LINEAR, the standard's default.
    """
    if function == "SIGMOID":
        with np.errstate(over="ignore"):
            return (1.0 / (1.0 + np.exp(-4.0 * (values - center) / width))).astype(np.float32)
    if function == "LINEAR_EXACT":
        return np.clip((values - center) / width + 0.5, 0.0, 1.0).astype(np.float32)
    if width == 1:
        return (values > center - 0.5).astype(np.float32)
    return np.clip((values - (center - 0.5)) / (width - 1.0) + 0.5, 0.0, 1.0).astype(np.float32)


def _first(value: object) -> float:
    """The first of one or several decimal strings; NaN for none."""
    if isinstance(value, pydicom.multival.MultiValue):
        value = value[0] if len(value) else None
    return float("nan") if value in (None, "") else float(cast(float, value))


def _view(dataset: FileDataset) -> View:
    return _VIEWS.get(str(dataset.get("ViewPosition", "")).strip().upper(), "unknown")
