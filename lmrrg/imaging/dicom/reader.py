"""Read a projection radiograph from a DICOM object.

The steps, and the attributes that they read:

1. parse the header                                           :mod:`lmrrg.imaging.dicom.header`
2. refuse other objects: Modality (0008,0060), SOP Class UID (0008,0016), Number of Frames
   (0028,0008), Photometric Interpretation (0028,0004), Transfer Syntax UID (0002,0010)
3. refuse impossible sizes: Rows (0028,0010), Columns (0028,0011), Samples per Pixel (0028,0002),
   Bits Allocated, Bits Stored, High Bit (0028,0100 to 0102), and for a compressed frame the size
   in its own header                                          :mod:`lmrrg.imaging.dicom.codestream`
4. check Burned In Annotation (0028,0301)
5. decode Pixel Data (7FE0,0010) and keep the stored bits (PS3.5 8.1.1)
6. show: padding, modality, values of interest, inversion     :mod:`lmrrg.imaging.dicom.display`
7. make pixels square: Pixel Spacing and its kin              :mod:`lmrrg.imaging.dicom.header`

Refusals come before decoding wherever the header allows it. Nothing of the header but the view and
the burned-in flag leaves this module.
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
"""Encodings of Pixel Data that are read (PS3.5 section 10 and annex A)."""

# Computed radiography, digital radiography, and radiographic imaging (film, digitised).
MODALITIES = ("CR", "DX", "RG")
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
# Samples per pixel of every Photometric Interpretation that is read (PS3.3 C.7.6.3.1.1 and .2).
_SAMPLES = dict.fromkeys((*_GREY, "PALETTE COLOR"), 1) | dict.fromkeys(_COLOUR, 3)
# Accepted where Modality is absent: the storage classes of these modalities, and secondary capture.
_RADIOGRAPHY = (
    uid.ComputedRadiographyImageStorage,
    uid.DigitalXRayImageStorageForPresentation,
    uid.DigitalXRayImageStorageForProcessing,
    uid.SecondaryCaptureImageStorage,
)
# (7FE0,0010) as it is stored in little and in big endian.
_PIXEL_DATA_TAGS = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")
_SQUARE_ENOUGH = 0.01
"""Difference of a pixel's sides that is left alone: resampling would cost more than it corrects."""
# Elements are parsed when they are asked for, so damage shows anywhere, as whatever pydicom or a
# decoder raises: RuntimeError from the decoder plug-ins and (as a kind of it) for an unknown VR,
# AttributeError for an absent element, TypeError for an empty or a multiple number. The files of
# benchmarks/fuzz_images.py raise each of these.
_DAMAGE = (
    InvalidDicomError,
    BytesLengthException,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    OverflowError,
    OSError,
    RuntimeError,
    struct.error,
    zlib.error,
)

# pydicom quotes header values, such as names, in its errors, its warnings and its log.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module=r"pydicom\.")


def read_dicom(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Radiograph:
    """Decode one DICOM object; padding is black, and pixels that are not square are made square.

    Raises:
        ImageError: any code of :data:`~lmrrg.imaging.radiograph.IMAGE_ERROR_CODES` that concerns
            DICOM files; the message holds nothing from the header.
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
    """Refuse an object that is not a single radiograph in an encoding that is read.

    Raises:
        ImageError: ``wrong_modality``, ``truncated``, ``no_pixels``, ``multi_frame``,
            ``unsupported_photometric`` or ``unsupported_transfer_syntax``.
    """
    if not _is_radiograph(dataset):
        raise ImageError("wrong_modality")
    if "PixelData" not in dataset:
        # pydicom leaves out an element whose value goes beyond the end of the file.
        cut = any(tag in data for tag in _PIXEL_DATA_TAGS)
        raise ImageError("truncated" if cut else "no_pixels")
    if int(dataset.get("NumberOfFrames", 1) or 1) > 1:
        raise ImageError("multi_frame")
    if dataset.get("PhotometricInterpretation", "") not in _SAMPLES:
        raise ImageError("unsupported_photometric")
    if transfer_syntax(dataset) not in TRANSFER_SYNTAXES:
        raise ImageError("unsupported_transfer_syntax")


def _is_radiograph(dataset: FileDataset) -> bool:
    """Return whether Modality (0008,0060), or in its absence SOP Class UID (0008,0016), fits.

    A file without either is taken for a radiograph.
    """
    modality = str(dataset.get("Modality", "") or "").strip().upper()
    if modality:
        return modality in MODALITIES
    storage = dataset.get("SOPClassUID")
    return not storage or storage in _RADIOGRAPHY


def _check_shape(dataset: FileDataset, limits: Limits) -> None:
    """Check the image's size against the limits and against its pixel data.

    Attributes that the header omits, or states impossibly, are set for the decoder.

    Raises:
        ImageError: ``too_large``, ``too_small``, ``unsupported_bits``, ``unreadable``,
            ``truncated`` or ``size_mismatch``.
    """
    check_size(int(dataset.Rows), int(dataset.Columns), limits)
    if int(dataset.BitsAllocated) not in (8, 16):
        raise ImageError("unsupported_bits")
    samples = _SAMPLES[dataset.PhotometricInterpretation]
    if int(dataset.get("SamplesPerPixel", samples) or samples) != samples:
        raise ImageError("unreadable", "the samples per pixel do not fit the colour model")
    dataset.SamplesPerPixel = samples
    dataset.NumberOfFrames = 1
    _complete_bits(dataset)
    dataset.file_meta.TransferSyntaxUID = transfer_syntax(dataset)
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        _check_frame(dataset)
        return
    size = _native_size(dataset)
    if len(dataset.PixelData) < size:
        raise ImageError("truncated")
    # One byte makes the length even (PS3.5 8.1.1), and zeros are padding too; anything else is more
    # pixels, so the header's size is wrong.
    if dataset.PixelData[size + 1 :].strip(b"\0"):
        raise ImageError("size_mismatch")


def _complete_bits(dataset: FileDataset) -> None:
    """Set Pixel Representation, Bits Stored and High Bit (0028,0101 to 0103) to possible values.

    Bits Stored is at most Bits Allocated, and High Bit leaves room for the stored bits below it
    (PS3.5 8.1.1).
    """
    allocated = dataset.BitsAllocated
    dataset.PixelRepresentation = int(dataset.get("PixelRepresentation", 0) or 0)
    dataset.BitsStored = min(int(dataset.get("BitsStored", 0) or allocated), allocated)
    highest = min(int(dataset.get("HighBit", 0) or 0), allocated - 1)
    dataset.HighBit = max(highest, dataset.BitsStored - 1)


def _native_size(dataset: FileDataset) -> int:
    """Return the bytes of the image without compression."""
    values = int(dataset.Rows) * int(dataset.Columns) * dataset.SamplesPerPixel
    count = values * int(dataset.BitsAllocated) // 8
    # Two pixels share their colour: four samples instead of six (PS3.3 C.7.6.3.1.2). Compressed
    # frames are decoded to full colour.
    is_encapsulated = transfer_syntax(dataset).is_encapsulated
    is_subsampled = dataset.PhotometricInterpretation == "YBR_FULL_422" and not is_encapsulated
    return count // 3 * 2 if is_subsampled else count


def _check_frame(dataset: FileDataset) -> None:
    """Compare the size in a compressed frame's own header, which decoders obey, with the file's.

    Raises:
        ImageError: ``unreadable``, ``size_mismatch`` or ``truncated``.
    """
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    if transfer_syntax(dataset) == uid.RLELossless:
        # RLE states no size. Its worst coding, runs of one byte, doubles the data, behind a header
        # of 64 bytes (PS3.5 annex G).
        if len(frame) > 2 * _native_size(dataset) + 64:
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
    """Return whether Burned In Annotation (0028,0301) is YES.

    Raises:
        ImageError: ``burned_in_annotation``, it is, and ``limits`` refuse that.
    """
    burned_in = str(dataset.get("BurnedInAnnotation", "") or "").strip().upper() == "YES"
    if burned_in and limits.burned_in == "refuse":
        raise ImageError("burned_in_annotation")
    return burned_in


def _pixels(dataset: FileDataset) -> Pixels:
    """Decode Pixel Data (7FE0,0010) and return what is shown, [H, W] in [0, 1].

    Raises:
        ImageError: ``size_mismatch`` or ``constant_image``.
    """
    decoder = get_decoder(transfer_syntax(dataset))
    # `_codes` removes the unused bits: pydicom would keep the lowest ones, whatever High Bit is.
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
    """Return the stored bits of each sample, without overlays or other data in the unused bits.

    A native sample has them from High Bit (0028,0102) downwards (PS3.5 8.1.1); a decoded one has
    them at its lower end.
    """
    # Unsigned and in the machine's byte order: shifts and masks then work on plain bits.
    bits = array.astype(array.dtype.newbyteorder("="), copy=False).view(f"u{array.dtype.itemsize}")
    if not transfer_syntax(dataset).is_encapsulated:
        bits = bits >> (dataset.HighBit + 1 - dataset.BitsStored)
    return bits & ((1 << dataset.BitsStored) - 1)


def _square(pixels: Pixels, height: float, limits: Limits) -> Pixels:
    """Return the image on square pixels, enlarged along the longer side of a pixel.

    Raises:
        ImageError: ``too_large``.
    """
    if abs(height - 1) <= _SQUARE_ENOUGH:
        return pixels
    rows, columns = pixels.shape
    if height > 1:
        rows = round(rows * height)
    else:
        columns = round(columns / height)
    check_size(rows, columns, limits)
    return resize(pixels, rows, columns)
