"""Read a projection radiograph from a DICOM object.

The steps, and the attributes that they read:

1. parse the header                                           :mod:`lmrrg.imaging.dicom.header`
2. refuse other objects: Modality (0008,0060), SOP Class UID (0008,0016), Body Part Examined
   (0018,0015), Number of Frames (0028,0008), Photometric Interpretation (0028,0004), Transfer
   Syntax UID (0002,0010)
3. refuse impossible sizes: Rows (0028,0010), Columns (0028,0011), Samples per Pixel (0028,0002),
   Bits Allocated, Bits Stored, High Bit (0028,0100 to 0102), and for a compressed frame the size
   in its own header                                          :mod:`lmrrg.imaging.dicom.codestream`
4. warn by Burned In Annotation (0028,0301), Presentation Intent Type (0008,0068), Patient's Age
   (0010,1010) and its kin
5. decode Pixel Data (7FE0,0010) and keep the stored bits (PS3.5 8.1.1)
6. show: padding, modality, values of interest, inversion     :mod:`lmrrg.imaging.dicom.display`
   and check the inversion by the pixels                      :mod:`lmrrg.imaging.polarity`
7. make pixels square: Pixel Spacing and its kin              :mod:`lmrrg.imaging.dicom.header`
8. turn the film upright: Patient Orientation (0020,0020)     :mod:`lmrrg.imaging.dicom.geometry`

Refusals come before decoding wherever the header allows it. Nothing of the header but the view, the
warnings, and digests of Patient ID (0010,0020) and Study Instance UID (0020,000D) leaves this
module.
"""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import FileDataset
from pydicom.encaps import generate_fragments, get_frame

from lmrrg.imaging.dicom import elements
from lmrrg.imaging.dicom.codestream import (
    MOST_PADDING,
    frame_header,
    repaired_scans,
    without_padding,
)
from lmrrg.imaging.dicom.decode import decode
from lmrrg.imaging.dicom.display import display, luminance, palette
from lmrrg.imaging.dicom.geometry import square, upright
from lmrrg.imaging.dicom.header import parse, pixel_height, transfer_syntax, view
from lmrrg.imaging.dicom.patient import digest, is_child, shows_another_part
from lmrrg.imaging.polarity import checked_polarity
from lmrrg.imaging.radiograph import (
    DEFAULT_LIMITS,
    ImageError,
    Limits,
    Pixels,
    Polarity,
    Radiograph,
    check_density,
    check_size,
    colour_warnings,
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
# Screenshots, scanned films and burnt-in results; the grey and colour kinds of several frames too.
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
# SOI of JPEG and JPEG-LS, SOC and SIZ of JPEG 2000: what the first fragment of a frame begins with.
_FRAME_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51")
# (7FE0,0010) as it is stored in little and in big endian.
_PIXEL_DATA_TAGS = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")

# pydicom quotes header values, such as names, in its errors, its warnings and its log.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module=r"pydicom\.")


def read_dicom(
    data: bytes, limits: Limits = DEFAULT_LIMITS, *, polarity: Polarity = "header"
) -> Radiograph:
    """Decode one DICOM object; padding is black, and pixels that are not square are made square.

    Raises:
        ImageError: any code of :data:`~lmrrg.imaging.radiograph.IMAGE_ERROR_CODES` that concerns
            DICOM files; the message holds nothing from the header.
    """
    try:
        dataset = parse(data, limits)
        _check_kind(dataset, data, limits)
        frame = _check_shape(dataset, limits)
        check_density(len(dataset.PixelData), int(dataset.Rows), int(dataset.Columns))
        stated = _stated_warnings(dataset, limits)
        shown, found = _pixels(dataset, frame, polarity)
        pixels = upright(square(shown, pixel_height(dataset), limits), dataset)
        return Radiograph(
            pixels,
            view(dataset),
            "dicom",
            (*stated, *found),
            patient=digest(elements.text(dataset, "PatientID")),
            study=digest(elements.text(dataset, "StudyInstanceUID")),
        )
    except ImageError:
        raise
    except elements.DAMAGE:
        # `from None`: pydicom's messages quote header values.
        raise ImageError("unreadable") from None


def _check_kind(dataset: FileDataset, data: bytes, limits: Limits) -> None:
    """Refuse an object that is not a single radiograph in an encoding that is read.

    Raises:
        ImageError: ``wrong_modality``, ``wrong_body_part``, ``truncated``, ``no_pixels``,
            ``multi_frame``, ``unsupported_photometric`` or ``unsupported_transfer_syntax``.
    """
    if _is_secondary_capture(dataset):
        if not limits.secondary_capture:
            detail = "a secondary capture of modality OT; data.allow_secondary_capture reads them"
            raise ImageError("wrong_modality", detail)
    elif not _is_radiograph(dataset):
        raise ImageError("wrong_modality")
    if limits.body_part == "refuse" and shows_another_part(dataset):
        detail = "the header names another part of the body; data.body_part=any reads all"
        raise ImageError("wrong_body_part", detail)
    if "PixelData" not in dataset:
        # pydicom leaves out an element whose value goes beyond the end of the file.
        cut = any(tag in data for tag in _PIXEL_DATA_TAGS)
        raise ImageError("truncated" if cut else "no_pixels")
    if (elements.integer(dataset, "NumberOfFrames") or 1) > 1:
        raise ImageError("multi_frame")
    if dataset.get("PhotometricInterpretation", "") not in _SAMPLES:
        raise ImageError("unsupported_photometric")
    if transfer_syntax(dataset) not in TRANSFER_SYNTAXES:
        raise ImageError("unsupported_transfer_syntax")


def _is_secondary_capture(dataset: FileDataset) -> bool:
    """Return whether a file of modality OT ("other") is of a class of secondary captures."""
    storage = elements.text(dataset, "SOPClassUID")
    is_of_kind = storage == _SECONDARY_CAPTURE or storage.startswith(f"{_SECONDARY_CAPTURE}.")
    return is_of_kind and elements.text(dataset, "Modality") == "OT"


def _is_radiograph(dataset: FileDataset) -> bool:
    """Return whether Modality (0008,0060), or in its absence SOP Class UID (0008,0016), fits.

    A file without either is taken for a radiograph.
    """
    modality = elements.text(dataset, "Modality")
    if modality:
        return modality in MODALITIES
    storage = elements.text(dataset, "SOPClassUID")
    return not storage or storage in _RADIOGRAPHY


def _check_shape(dataset: FileDataset, limits: Limits) -> bytes | None:
    """Check the image's size against the limits and its pixel data; return the compressed frame.

    Attributes that the header omits, or states impossibly, are set for the decoder. The frame is
    without its padding, and None where the pixels are native.

    Raises:
        ImageError: ``too_large``, ``too_small``, ``unsupported_bits``, ``unreadable``,
            ``multi_frame``, ``truncated`` or ``size_mismatch``.
    """
    check_size(int(dataset.Rows), int(dataset.Columns), limits)
    if int(dataset.BitsAllocated) not in (8, 16):
        raise ImageError("unsupported_bits")
    samples = _SAMPLES[dataset.PhotometricInterpretation]
    # Another number than 1, 3 or 4 exists in no colour model, so it is damage and not a statement.
    if elements.integer(dataset, "SamplesPerPixel") in {1, 3, 4} - {samples}:
        raise ImageError("unreadable", "the samples per pixel do not fit the colour model")
    # Set anew even where they were fine, so that no later step meets an unparsable one.
    elements.replace(dataset, "SamplesPerPixel", samples)
    # Frames that the header does not count show by their number of fragments, in `_frame`.
    counts_frames = elements.integer(dataset, "NumberOfFrames") is not None
    is_uncounted = "NumberOfFrames" in dataset and not counts_frames
    elements.replace(dataset, "NumberOfFrames", 1)
    _complete_bits(dataset)
    dataset.file_meta.TransferSyntaxUID = _actual_syntax(dataset)
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        if is_uncounted and _has_several_frames(dataset):
            raise ImageError("multi_frame")
        return _frame(dataset)
    _check_native(dataset)
    return None


def _actual_syntax(dataset: FileDataset) -> uid.UID:
    """Return the stated transfer syntax, or a native one where a compressed one is not true.

    Compressed pixel data have an undefined length (PS3.5 A.4). Some archives inflate the pixels
    and leave the old syntax in the header.
    """
    syntax = transfer_syntax(dataset)
    element = dataset["PixelData"]
    if not syntax.is_encapsulated or element.is_undefined_length:
        return syntax
    size = _native_size(dataset, is_encapsulated=False)
    # One byte makes an odd length even.
    is_native = len(element.value) == size + size % 2
    return uid.ExplicitVRLittleEndian if is_native else syntax


def _check_native(dataset: FileDataset) -> None:
    """Compare the length of native pixels with the size in the header.

    Raises:
        ImageError: ``truncated`` or ``size_mismatch``.
    """
    size = _native_size(dataset, is_encapsulated=False)
    if len(dataset.PixelData) < size:
        raise ImageError("truncated")
    # Zeros are padding, and a little of anything else is (PS3.5 8.1.1, note). More means further
    # pixels, so the header's size is wrong.
    excess = len(dataset.PixelData[size + 1 :].rstrip(b"\0"))
    if not excess:
        return
    row = size // int(dataset.Rows)
    # As many bytes as further columns would have: the picture would be sheared.
    column = size // int(dataset.Columns)
    has_more_columns = (len(dataset.PixelData) - size) % column == 0
    if has_more_columns or excess >= max(row, MOST_PADDING):
        raise ImageError("size_mismatch")


def _complete_bits(dataset: FileDataset) -> None:
    """Set the attributes of a sample that the decoders read to possible values.

    They are Pixel Representation, Bits Stored and High Bit (0028,0101 to 0103) and Planar
    Configuration (0028,0006). Bits Stored is at most Bits Allocated, and High Bit leaves room for
    the stored bits below it (PS3.5 8.1.1).
    """
    allocated = dataset.BitsAllocated
    elements.replace(
        dataset, "PixelRepresentation", int(elements.integer(dataset, "PixelRepresentation") == 1)
    )
    stored = elements.integer(dataset, "BitsStored") or 0
    elements.replace(dataset, "BitsStored", min(stored, allocated) if stored > 0 else allocated)
    highest = min(elements.integer(dataset, "HighBit") or 0, allocated - 1)
    elements.replace(dataset, "HighBit", max(highest, dataset.BitsStored - 1))
    if dataset.SamplesPerPixel > 1:
        is_planar = elements.integer(dataset, "PlanarConfiguration") == 1
        elements.replace(dataset, "PlanarConfiguration", int(is_planar))
    elif "PlanarConfiguration" in dataset:
        del dataset.PlanarConfiguration  # without meaning here, but the decoder would parse it


def _native_size(dataset: FileDataset, *, is_encapsulated: bool) -> int:
    """Return the bytes of the image without compression."""
    values = int(dataset.Rows) * int(dataset.Columns) * dataset.SamplesPerPixel
    count = values * int(dataset.BitsAllocated) // 8
    # Two pixels share their colour: four samples instead of six (PS3.3 C.7.6.3.1.2). Compressed
    # frames are decoded to full colour.
    is_subsampled = dataset.PhotometricInterpretation == "YBR_FULL_422" and not is_encapsulated
    return count // 3 * 2 if is_subsampled else count


def _has_several_frames(dataset: FileDataset) -> bool:
    """Return whether more than one fragment starts a frame of its own."""
    starts = 0
    is_rle = transfer_syntax(dataset) == uid.RLELossless  # one fragment each (PS3.5 annex G)
    for fragment in generate_fragments(dataset.PixelData):
        starts += is_rle or fragment.startswith(_FRAME_STARTS)
    return starts > 1


def _frame(dataset: FileDataset) -> bytes:
    """Return the compressed frame without padding, and with repaired scan headers.

    Decoders obey the size in its own header, which is compared with the file's before.

    Raises:
        ImageError: ``unreadable``, ``size_mismatch`` or ``truncated``.
    """
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    if transfer_syntax(dataset) == uid.RLELossless:
        # RLE states no size. Its worst coding, runs of one byte, doubles the data, behind a header
        # of 64 bytes (PS3.5 annex G).
        if len(frame) > 2 * _native_size(dataset, is_encapsulated=True) + 64:
            raise ImageError("size_mismatch")
        return frame
    header = frame_header(frame)
    if header is None:
        raise ImageError("unreadable")
    if header != (int(dataset.Rows), int(dataset.Columns), dataset.SamplesPerPixel):
        raise ImageError("size_mismatch")
    content = without_padding(frame)
    if content is None:
        raise ImageError("truncated")
    return repaired_scans(content)


def _stated_warnings(dataset: FileDataset, limits: Limits) -> list[str]:
    """Return the warnings that the header alone gives.

    They follow Burned In Annotation (0028,0301), Presentation Intent Type (0008,0068) or the
    storage class of digital X-ray images for processing, and the patient's age.

    Raises:
        ImageError: ``burned_in_annotation``, the header reports text, and ``limits`` refuse that.
    """
    stated = []
    if "YES" in elements.texts(dataset, "BurnedInAnnotation"):
        if limits.burned_in == "refuse":
            raise ImageError("burned_in_annotation")
        stated.append("burned_in_annotation")
    storage = elements.text(dataset, "SOPClassUID")
    if (
        elements.text(dataset, "PresentationIntentType") == "FOR PROCESSING"
        or storage == uid.DigitalXRayImageStorageForProcessing
    ):
        stated.append("for_processing")
    if is_child(dataset):
        stated.append("population")
    return stated


def _pixels(
    dataset: FileDataset, frame: bytes | None, polarity: Polarity
) -> tuple[Pixels, tuple[str, ...]]:
    """Decode Pixel Data (7FE0,0010) and return what is shown, [H, W] in [0, 1], and its warnings.

    ``frame`` is the compressed frame, None where the pixels are native.

    Raises:
        ImageError: ``size_mismatch``, ``constant_image`` or ``unsupported_transfer_syntax``.
    """
    array = decode(dataset, frame)
    if array.shape[:2] != (int(dataset.Rows), int(dataset.Columns)):
        raise ImageError("size_mismatch")
    if dataset.PhotometricInterpretation in _GREY:
        codes = _codes(dataset, array)
        bits = dataset.BitsStored

        def turned() -> Pixels:
            return display(dataset, codes, bits, turned=True)

        return checked_polarity(display(dataset, codes, bits), polarity, turned)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        colours, most = palette(dataset, _codes(dataset, array))
    else:
        colours, most = array, (1 << dataset.BitsStored) - 1
    shown, found = checked_polarity(luminance(colours, most), polarity)
    return shown, (*found, *colour_warnings(colours, most))


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
