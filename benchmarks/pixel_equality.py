"""Compare our DICOM pixels with pydicom's functions applied by hand and with dcmtk.

    python benchmarks/pixel_equality.py [FILE_OR_FOLDER...]

Without arguments: every file that pydicom brings along for tests, and those of the package
pydicom-data where it is installed. Most are no radiographs, so the checks of modality and of the
smallest side are left out here. dcmtk (Debian package dcmtk) is compared with where it is
installed; of its three programs the first counts that reads a file.

Two rules of ours change what a film shows and are switched off for the comparison: windows that
hide the film are passed over, and a range with outliers is stretched between percentiles. A file
that they apply to is marked.

Differences are in units of the displayed range [0, 1]; dcmtk writes 16 bits for grey, 8 for colour.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array

from lmrrg.imaging import radiograph
from lmrrg.imaging.dicom import display, reader
from lmrrg.imaging.dicom.elements import DAMAGE
from lmrrg.imaging.dicom.header import is_dicom, transfer_syntax
from lmrrg.imaging.radiograph import ImageError, Limits
from lmrrg.imaging.reading import read_image

EQUAL = 2e-5
"""Largest difference of equal grey pixels: a step of dcmtk's 16 bits."""
EQUAL_COLOUR = 4e-3
"""The same for colour: a step of dcmtk's 8 bits."""
_GREY = ("MONOCHROME1", "MONOCHROME2")
PROGRAMS = ("dcmj2pnm", "dcml2pnm", "dcm2pnm")


class Row(NamedTuple):
    """What became of one file: ours is "read" or a code; a difference is None where nothing is."""

    name: str
    encoding: str
    ours: str
    by_hand: float | None
    dcmtk_reads: bool
    dcmtk: float | None
    is_colour: bool
    by_rule: bool


def main() -> None:
    """Print a table with a row for each file, and the counts of what became of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="*", type=Path, help="default: pydicom's test files")
    if not shutil.which(PROGRAMS[0]):
        print("dcmtk is not installed")
    reader._is_radiograph = lambda dataset: True
    radiograph.MIN_SIDE = 1
    rows = [_row(path) for path in _files(parser.parse_args().paths or _test_files())]
    print("| file | encoding | ours | to pydicom by hand | dcmtk |")
    print("|---|---|---|---|---|")
    for row in rows:
        cells = (row.name, row.encoding, _ours(row), _shown(row.by_hand), _dcmtk(row))
        print(f"| {' | '.join(cells)} |")
    marked = sum(row.by_rule for row in rows)
    print(f"\n{len(rows)} files, {marked} of them shown by a rule of ours")
    for outcome, count in Counter(_outcome(row) for row in rows).most_common():
        print(f"{count:5d}  {outcome}")


def _test_files() -> list[Path]:
    """Return the folders with pydicom's own test files and, if installed, pydicom-data's."""
    folders = [Path(pydicom.__file__).parent / "data" / "test_files"]
    further = find_spec("data_store")
    if further is not None and further.origin is not None:
        folders.append(Path(further.origin).parent / "data")
    return folders


def _files(paths: list[Path]) -> Iterator[Path]:
    """Yield the DICOM files."""
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and _is_dicom(file):
                yield file


def _is_dicom(path: Path) -> bool:
    if is_dicom(path.read_bytes()):
        return True
    # Neither the prefix nor a known first group: pixels make it one all the same.
    try:
        return "PixelData" in pydicom.dcmread(path, force=True)
    except DAMAGE:
        return False


def _row(path: Path) -> Row:
    dataset = pydicom.dcmread(path, force=True)
    is_colour = str(dataset.get("PhotometricInterpretation", "")) not in _GREY
    other = _dcm2pnm(path, dataset)
    row = Row(
        path.name, _encoding(dataset), "read", None, other is not None, None, is_colour, False
    )
    try:
        shown = read_image(path, Limits(secondary_capture=True)).pixels
        ours = _without_rules(path)
    except ImageError as error:
        return row._replace(ours=error.code)
    dataset.file_meta.TransferSyntaxUID = transfer_syntax(dataset)
    try:
        by_hand = _difference(ours, _by_hand(dataset))
    except DAMAGE:
        by_hand = None  # pydicom refuses some files that are repaired here
    by_rule = not np.array_equal(shown, ours)
    return row._replace(by_hand=by_hand, dcmtk=_difference(ours, other), by_rule=by_rule)


def _without_rules(path: Path) -> np.ndarray:
    """Return our pixels without the two rules."""
    span, inside = radiograph._LEAST_SPAN, display._LEAST_INSIDE
    radiograph._LEAST_SPAN = 0.0
    display._LEAST_INSIDE = 0.0
    try:
        return read_image(path, Limits(secondary_capture=True)).pixels
    finally:
        radiograph._LEAST_SPAN, display._LEAST_INSIDE = span, inside


def _outcome(row: Row) -> str:
    """Return what the counts call a file's outcome."""
    if row.ours != "read":
        return f"refused: {row.ours}, {'but dcmtk reads it' if row.dcmtk_reads else 'dcmtk too'}"
    if not row.dcmtk_reads:
        return "read, dcmtk does not"
    if row.dcmtk is None:
        return "read, of another size than dcmtk's"
    limit = EQUAL_COLOUR if row.is_colour else EQUAL
    return "read, equal to dcmtk" if row.dcmtk <= limit else "read, differs from dcmtk"


def _ours(row: Row) -> str:
    return f"{row.ours}, shown by a rule of ours" if row.by_rule else row.ours


def _dcmtk(row: Row) -> str:
    if not row.dcmtk_reads:
        return "not read"
    return "read" if row.dcmtk is None else f"{row.dcmtk:.1e}"


def _shown(difference: float | None) -> str:
    return "" if difference is None else f"{difference:.1e}"


def _encoding(dataset: pydicom.FileDataset) -> str:
    """Return the transfer syntax, the colour model and the bits, as far as they are stated."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    name = pydicom.uid.UID(syntax).name if syntax else "no syntax"
    parts = [re.sub(r"\s*\(.*", "", name).removesuffix(" Image Compression").split(",")[0]]
    if "PhotometricInterpretation" in dataset:
        parts.append(str(dataset.PhotometricInterpretation))
    if "BitsStored" in dataset:
        parts.append(f"{dataset.BitsStored}{'s' if dataset.get('PixelRepresentation') else 'u'}")
    return ", ".join(parts)


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
    if header.get("VOILUTSequence"):
        voi = ["+Wl", "1"]
    elif header.get("WindowCenter"):
        voi = ["+Wi", "1"]
    else:
        voi = ["+Wm"]
    options = ["-O", *voi, "+opw"] if header.get("PhotometricInterpretation") in _GREY else []
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.pgm"
        for program in filter(shutil.which, PROGRAMS):
            done = subprocess.run([program, *options, str(path), str(target)], capture_output=True)
            if not done.returncode and target.exists():
                return _read_pnm(target.read_bytes())
    return None


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
