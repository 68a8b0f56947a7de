"""Write small DICOM files for the tests, independently of the phantom's writer."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

NAME = "Secret^Patient"


def ramp(rows: int = 64, columns: int = 70, low: int = 0, high: int = 4095) -> np.ndarray:
    """Return stored values that rise along each row and differ between rows."""
    values = np.linspace(low, high, rows * columns).reshape(rows, columns)
    return np.rint(values).astype(np.int16 if low < 0 else np.uint16)


def dataset(stored: np.ndarray, **elements: Any) -> Dataset:
    """Return a computed radiograph with the given stored values (16 bits).

    Keywords set elements; ``None`` removes one.
    """
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = "2.25.1"
    made.SOPClassUID = ComputedRadiographyImageStorage
    made.SOPInstanceUID = "2.25.1"
    made.PatientName = NAME
    made.PatientID = "MRN-12345"
    made.Modality = "CR"
    made.Rows, made.Columns = stored.shape
    made.SamplesPerPixel = 1
    made.BitsAllocated = 16
    made.BitsStored = 16
    made.HighBit = 15
    made.PixelRepresentation = int(stored.dtype.kind == "i")
    made.PhotometricInterpretation = "MONOCHROME2"
    made.PixelData = stored.astype("<i2" if stored.dtype.kind == "i" else "<u2").tobytes()
    for name, value in elements.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    return made


def encoded(made: Dataset) -> bytes:
    """Return the bytes of a file."""
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def dicom(stored: np.ndarray, **elements: Any) -> bytes:
    """Return the bytes of a computed radiograph; see :func:`dataset`."""
    return encoded(dataset(stored, **elements))


def lut_item(entries: list[int], first: int, *, as_words: bool = False) -> Dataset:
    """Return one item of a modality or VOI LUT sequence.

    Its table is numbers (US) or raw 16-bit words (OW).
    """
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, 16]
    if as_words:
        item.add_new(0x00283006, "OW", np.array(entries, "<u2").tobytes())
    else:
        item.add_new(0x00283006, "US", entries)
    item.ModalityLUTType = "US"
    return item
