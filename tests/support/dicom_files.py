"""Writes small DICOM files for the tests, independently of the phantom's writer."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

NAME = "Secret^Patient"


def ramp(rows: int = 64, columns: int = 70, low: int = 0, high: int = 4095) -> np.ndarray:
    """Stored values that rise along each row and differ between rows."""
    values = np.linspace(low, high, rows * columns).reshape(rows, columns)
    return np.rint(values).astype(np.int16 if low < 0 else np.uint16)


def dataset(stored: np.ndarray, **elements: Any) -> Dataset:
    """A computed radiograph with the given stored values (16 bits); elements by keyword, ``None`` removes one."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = "2.25.1"
    made.SOPClassUID, made.SOPInstanceUID = ComputedRadiographyImageStorage, "2.25.1"
    made.PatientName, made.PatientID, made.Modality = NAME, "MRN-12345", "CR"
    made.Rows, made.Columns = stored.shape
    made.SamplesPerPixel, made.BitsAllocated, made.BitsStored, made.HighBit = 1, 16, 16, 15
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
    """The bytes of a file."""
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def dicom(stored: np.ndarray, **elements: Any) -> bytes:
    """The bytes of a computed radiograph; see :func:`dataset`."""
    return encoded(dataset(stored, **elements))


def lut_item(entries: list[int], first: int, *, as_words: bool = False) -> Dataset:
    """One item of a modality or VOI LUT sequence; its table is numbers (US) or raw 16-bit words (OW)."""
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, 16]
    if as_words:
        item.add_new(0x00283006, "OW", np.array(entries, "<u2").tobytes())
    else:
        item.add_new(0x00283006, "US", entries)
    item.ModalityLUTType = "US"
    return item
