"""Compare our DICOM pixels with pydicom's functions applied by hand and with dcmtk's dcmj2pnm.

    python benchmarks/pixel_equality.py [FILE_OR_FOLDER...]

dcmj2pnm (Debian package dcmtk) is compared with where it is installed.

Files that are no radiographs (pydicom's test files are mostly CT, MR and ultrasound) are read all
the same here. Differences are in units of the displayed range [0, 1]; dcmj2pnm writes 16 bits for
grey, 8 for colour.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array

from lmrrg.imaging.dicom import reader as dicom
from lmrrg.imaging.dicom.header import transfer_syntax
from lmrrg.imaging.radiograph import MIN_SIDE, ImageError
from lmrrg.imaging.reading import read_image


def main() -> None:
    """Print a table, one row per file that we read, and the largest differences."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    own = Path(pydicom.__file__).parent / "data" / "test_files"
    parser.add_argument(
        "paths", nargs="*", type=Path, default=[own], help="default: pydicom's own test files"
    )
    dicom.MODALITIES = ("CR", "DX", "RG", "CT", "MR", "NM", "OT", "US", "SC")
    worst = [0.0, 0.0]
    print("| file | encoding | size | max diff to pydicom by hand | max diff to dcmj2pnm |")
    print("|---|---|---|---|---|")
    for path in _dicom_files(parser.parse_args().paths):
        dataset = pydicom.dcmread(path, force=True)
        if not _is_comparable(dataset):
            continue
        dataset.file_meta.TransferSyntaxUID = transfer_syntax(dataset)
        try:
            ours = read_image(path).pixels
        except ImageError as error:
            print(f"| {path.name} | {_encoding(dataset)} | | refused: {error.code} | |")
            continue
        differences = [
            _difference(ours, other) for other in (_by_hand(dataset), _dcm2pnm(path, dataset))
        ]
        worst = [max(w, d) if d is not None else w for w, d in zip(worst, differences, strict=True)]
        shown = " | ".join("-" if d is None else f"{d:.1e}" for d in differences)
        print(f"| {path.name} | {_encoding(dataset)} | {ours.shape[0]}x{ours.shape[1]} | {shown} |")
    print(f"largest: {worst[0]:.1e} to pydicom by hand, {worst[1]:.1e} to dcmj2pnm")


def _dicom_files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        yield from sorted(
            p for p in path.rglob("*") if p.suffix in ("", ".dcm") and p.is_file()
        ) or [path]


def _is_comparable(dataset: pydicom.FileDataset) -> bool:
    """Return whether a file has one frame of grey or palette pixels of a size that we read."""
    return (
        all(name in dataset for name in ("PixelData", "Rows", "Columns", "BitsAllocated"))
        and str(dataset.get("NumberOfFrames") or 1) == "1"
        and min(dataset.Rows, dataset.Columns) >= MIN_SIDE
        and dataset.BitsAllocated in (8, 16)
    )


def _encoding(dataset: pydicom.FileDataset) -> str:
    name = re.sub(r"\s*\(.*", "", dataset.file_meta.TransferSyntaxUID.name).removesuffix(
        " Image Compression"
    )
    bits = f"{dataset.BitsStored}{'s' if dataset.PixelRepresentation else 'u'}"
    return f"{name.split(',')[0]}, {dataset.PhotometricInterpretation}, {bits} bits"


def _by_hand(dataset: pydicom.FileDataset) -> np.ndarray:
    """Follow pydicom's documentation: decode, modality LUT, VOI LUT, scale, invert."""
    stored = pixel_array(dataset)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)
    if stored.ndim == 3:
        return (
            stored.astype(np.float64)
            @ [0.299, 0.587, 0.114]
            / (255 if stored.dtype == np.uint8 else 65535)
        )
    values = apply_modality_lut(stored, dataset)
    shown = np.asarray(apply_voi_lut(values, dataset), np.float64)
    low, high = _displayed_range(dataset, values, shown)
    shown = (shown - low) / (high - low)
    return 1 - shown if dataset.PhotometricInterpretation == "MONOCHROME1" else shown


def _displayed_range(
    dataset: pydicom.FileDataset, values: np.ndarray, shown: np.ndarray
) -> tuple[float, float]:
    """Return the range that pydicom's result is scaled by.

    It is that of the LUT's bits, the one that a window maps to, or the image's own.
    """
    if dataset.get("VOILUTSequence"):
        return 0, (1 << int(dataset.VOILUTSequence[0].LUTDescriptor[2])) - 1
    if dataset.get("WindowCenter") not in (None, ""):
        low, high = apply_voi_lut(np.array([-1e9, 1e9]), dataset)
        return float(low), float(high)
    return float(values.min()), float(values.max())


def _dcm2pnm(path: Path, header: pydicom.Dataset) -> np.ndarray | None:
    """Return dcmtk's rendering without overlays at 16 bits (colour: 8).

    It uses the first VOI LUT, else the first window, else the range of the pixels.
    """
    if shutil.which("dcmj2pnm") is None:
        return None
    if header.get("VOILUTSequence"):
        voi = ["+Wl", "1"]
    elif header.get("WindowCenter"):
        voi = ["+Wi", "1"]
    else:
        voi = ["+Wm"]
    grey = header.PhotometricInterpretation in ("MONOCHROME1", "MONOCHROME2")
    options = ["-O", *voi, "+opw"] if grey else []
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.pgm"
        done = subprocess.run(["dcmj2pnm", *options, str(path), str(target)], capture_output=True)
        return None if done.returncode or not target.exists() else _read_pnm(target.read_bytes())


def _read_pnm(data: bytes) -> np.ndarray:
    """Return grey in [0, 1] of a text PGM of 16 bits (P2) or a binary PPM of 8 (P6)."""
    kind, width, height, top = re.sub(rb"#.*\n", b"", data[:200]).split()[:4]
    if kind == b"P2":
        samples = np.array(re.sub(rb"#.*\n", b"", data).split()[4:], np.float64)
        return samples.reshape(int(height), int(width)) / int(top)
    rgb = np.frombuffer(data[-int(width) * int(height) * 3 :], np.uint8).reshape(
        int(height), int(width), 3
    )
    return rgb @ [0.299, 0.587, 0.114] / int(top)


def _difference(ours: np.ndarray, other: np.ndarray | None) -> float | None:
    return None if other is None or other.shape != ours.shape else float(np.abs(ours - other).max())


if __name__ == "__main__":
    main()
