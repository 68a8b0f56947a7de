"""Reading a projection radiograph from DICOM. Nothing of the header but the view leaves this module.

Refusals come before decoding wherever the header allows it; :mod:`lmrrg.imaging.dicom.display` turns stored values into
what is shown.
"""

from __future__ import annotations

import logging
import struct
import warnings
import zlib
from typing import Any, cast

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import FileDataset
from pydicom.encaps import get_frame
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import DecodeOptions

from lmrrg.imaging.dicom.codestream import frame_header, is_complete
from lmrrg.imaging.dicom.display import display, luminance, palette
from lmrrg.imaging.dicom.header import parse, pixel_height, transfer_syntax, view
from lmrrg.imaging.radiograph import (
    DEFAULT_LIMITS,
    ImageError,
    Limits,
    Pixels,
    Radiograph,
    check_size,
    resize,
)

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
_GREY = ("MONOCHROME1", "MONOCHROME2")
_SAMPLES = dict.fromkeys((*_GREY, "PALETTE COLOR"), 1) | dict.fromkeys(
    ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"), 3
)
# Where the modality is absent: the storage classes of these modalities, and of secondary capture.
_RADIOGRAPHY = (
    uid.ComputedRadiographyImageStorage,
    uid.DigitalXRayImageStorageForPresentation,
    uid.DigitalXRayImageStorageForProcessing,
    uid.SecondaryCaptureImageStorage,
)
_PIXEL_DATA_TAGS = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")
_SQUARE_ENOUGH = 0.01
# Elements are parsed when they are asked for, so damage shows anywhere, as whatever pydicom or a decoder raises:
# RuntimeError from the decoder plug-ins and (as a kind of it) for an unknown VR, AttributeError for an absent element,
# TypeError for an empty or a multiple number. The files of `benchmarks/fuzz_images.py` raise each of these.
_DAMAGE = (
    InvalidDicomError, BytesLengthException, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError,
    OverflowError, OSError, RuntimeError, struct.error, zlib.error,
)  # fmt: skip

# pydicom quotes header values in its complaints, its warnings and its log.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module=r"pydicom\.")


def read_dicom(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Radiograph:
    """Decode one DICOM object; padded pixels are black, pixels that are not square become so.

    Raises:
        ImageError: any code of a DICOM file; the message holds nothing from the header.
    """
    try:
        dataset = parse(data, limits)
        _check_kind(dataset, data)
        _check_shape(dataset, limits)
        burned_in = _burned_in(dataset, limits)
        pixels = _square(_pixels(dataset), pixel_height(dataset), limits)
        return Radiograph(pixels, view(dataset), "dicom", burned_in)
    except ImageError:
        raise
    except _DAMAGE:
        # `from None`: pydicom's messages quote header values.
        raise ImageError("unreadable") from None


def _check_kind(dataset: FileDataset, data: bytes) -> None:
    """Refuse what is no single radiograph in an encoding that is read."""
    modality = str(dataset.get("Modality", "") or "").strip().upper()
    storage = dataset.get("SOPClassUID")
    if modality not in MODALITIES and (
        modality or (storage or _RADIOGRAPHY[0]) not in _RADIOGRAPHY
    ):
        raise ImageError("wrong_modality")
    if "PixelData" not in dataset:
        # pydicom leaves out an element that the file does not hold to its end.
        cut = any(tag in data for tag in _PIXEL_DATA_TAGS)
        raise ImageError("truncated" if cut else "no_pixels")
    if int(dataset.get("NumberOfFrames", 1) or 1) > 1:
        raise ImageError("multi_frame")
    if dataset.get("PhotometricInterpretation", "") not in _SAMPLES:
        raise ImageError("unsupported_photometric")
    if transfer_syntax(dataset) not in TRANSFER_SYNTAXES:
        raise ImageError("unsupported_transfer_syntax")


def _check_shape(dataset: FileDataset, limits: Limits) -> None:
    """Refuse sizes that are not allowed, or that the pixel data do not have; what the header may omit is set."""
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    check_size(rows, columns, limits)
    if int(dataset.BitsAllocated) not in (8, 16):
        raise ImageError("unsupported_bits")
    samples = _SAMPLES[dataset.PhotometricInterpretation]
    if int(dataset.get("SamplesPerPixel", samples) or samples) != samples:
        raise ImageError("unreadable", "the samples per pixel do not fit the colour model")
    dataset.SamplesPerPixel, dataset.NumberOfFrames = samples, 1
    dataset.PixelRepresentation = int(dataset.get("PixelRepresentation", 0) or 0)
    dataset.BitsStored = min(
        int(dataset.get("BitsStored", 0) or dataset.BitsAllocated), dataset.BitsAllocated
    )
    dataset.HighBit = min(int(dataset.get("HighBit", 0) or 0), dataset.BitsAllocated - 1)
    dataset.HighBit = max(dataset.HighBit, dataset.BitsStored - 1)
    dataset.file_meta.TransferSyntaxUID = syntax = transfer_syntax(dataset)
    if syntax.is_encapsulated:
        _check_frame(dataset)
        return
    if len(dataset.PixelData) < _size(dataset):
        raise ImageError("truncated")
    if dataset.PixelData[_size(dataset) + 1 :].strip(b"\0"):
        raise ImageError(
            "size_mismatch"
        )  # a byte or zeros are padding, anything else is more pixels


def _size(dataset: FileDataset) -> int:
    """Bytes of the image without compression."""
    count = (
        int(dataset.Rows)
        * int(dataset.Columns)
        * dataset.SamplesPerPixel
        * int(dataset.BitsAllocated)
        // 8
    )
    subsampled = (
        dataset.PhotometricInterpretation == "YBR_FULL_422"
        and not transfer_syntax(dataset).is_encapsulated
    )
    return count // 3 * 2 if subsampled else count


def _check_frame(dataset: FileDataset) -> None:
    """A compressed frame states its own size, and a decoder believes that one."""
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    if transfer_syntax(dataset) == uid.RLELossless:
        if len(frame) > 2 * _size(dataset) + 64:  # runs of one byte, the worst coding there is
            raise ImageError("size_mismatch")
        return
    header = frame_header(frame)
    if header is None:
        raise ImageError("unreadable")
    if header != (int(dataset.Rows), int(dataset.Columns), dataset.SamplesPerPixel):
        raise ImageError("size_mismatch")
    if not is_complete(frame):
        raise ImageError("truncated")


def _burned_in(dataset: FileDataset, limits: Limits) -> bool:
    burned_in = str(dataset.get("BurnedInAnnotation", "") or "").strip().upper() == "YES"
    if burned_in and limits.burned_in == "refuse":
        raise ImageError("burned_in_annotation")
    return burned_in


def _pixels(dataset: FileDataset) -> Pixels:
    decoder = get_decoder(transfer_syntax(dataset))
    # Unused bits are ours to remove: pydicom takes the lowest ones as used, whatever High Bit says.
    as_they_lie = DecodeOptions(correct_unused_bits=False)
    array, _ = decoder.as_array(dataset, index=0, **cast(Any, as_they_lie))
    if array.shape[:2] != (int(dataset.Rows), int(dataset.Columns)):
        raise ImageError("size_mismatch")
    if dataset.PhotometricInterpretation in _GREY:
        return display(dataset, _codes(dataset, array), dataset.BitsStored)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        return luminance(*palette(dataset, _codes(dataset, array)))
    return luminance(array, (1 << dataset.BitsStored) - 1)


def _codes(dataset: FileDataset, array: NDArray[np.integer]) -> NDArray[np.unsignedinteger]:
    """The used bits of each sample (PS3.5 8.1.1), without overlays or whatever else lies in the others."""
    bits = array.astype(array.dtype.newbyteorder("="), copy=False).view(f"u{array.dtype.itemsize}")
    if not transfer_syntax(dataset).is_encapsulated:
        bits = bits >> (dataset.HighBit + 1 - dataset.BitsStored)
    return bits & ((1 << dataset.BitsStored) - 1)


def _square(pixels: Pixels, height: float, limits: Limits) -> Pixels:
    """The image on square pixels, by enlarging along their longer side."""
    if abs(height - 1) <= _SQUARE_ENOUGH:
        return pixels
    rows, columns = pixels.shape
    rows, columns = (
        (round(rows * height), columns) if height > 1 else (rows, round(columns / height))
    )
    check_size(rows, columns, limits)
    return resize(pixels, rows, columns)
