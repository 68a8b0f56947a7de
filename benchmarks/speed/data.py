"""Measure files read per second, beside naive pydicom + Pillow, and phantoms drawn per second.

DICOM, PNG and JPEG files are read into the model's square.

    python benchmarks/speed/data.py [--files 12] [--side 1024] [--rounds 5] [--phantoms-only]
        [--out FILE.json]

The files are phantom films that the script draws and encodes. Ours is ``read_image`` and
``to_square``, with every check of docs/data.md, in this process; "child" is the same through one
decoder process with limits, as uploads and the feature cache take it. Naive is what one would write
without this project: decode, pydicom's LUTs, min-max, inversion, Pillow's antialiased resize; no
check, no padding, no aspect ratio. In turns, in alternating order; a second is one of processor
time, of this process and its decoder child together, so that a busy machine does not matter.
Phantoms have no rival: studies drawn, written and described per second; ``ct`` only where the CT is
installed.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pydicom
import torch
from common.pairs import Spread, measure_in_turns, ratio
from common.stage import CACHE
from PIL import Image
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from lmrrg.config.data import PhantomConfig
from lmrrg.data.phantom.ct.dataset import import_ct_phantoms
from lmrrg.data.phantom.ct.volume import CTError, data_folder
from lmrrg.data.phantom.drawn.dataset import import_phantoms
from lmrrg.imaging.decoder_pool import DecoderPool
from lmrrg.imaging.reading import read_image, to_square

SQUARE = 256
ENCODINGS = {
    "DICOM, explicit little endian": None,
    "DICOM, RLE": pydicom.uid.RLELossless,
    "DICOM, JPEG 2000": pydicom.uid.JPEG2000Lossless,
}
PICTURES = {"PNG, 8 bits": ("PNG", 4), "PNG, 16 bits": ("PNG", 0), "JPEG": ("JPEG", 4)}
"""Format, and the bits that 12-bit values lose."""


def make_files(folder: Path, count: int, side: int) -> dict[str, list[bytes]]:
    """Return the same phantom films in every encoding."""
    shutil.rmtree(folder, ignore_errors=True)
    counts = PhantomConfig(train=count, val=1, test=1, image_size=side)
    drawn = import_phantoms(folder, counts, seed=1, progress=False).studies[:count]
    films = [study.images[0].path.read_bytes() for study in drawn]
    files: dict[str, list[bytes]] = {}
    for name, syntax in ENCODINGS.items():
        files[name] = [_recoded(film, syntax) for film in films]
    for name, (kind, lost) in PICTURES.items():
        files[name] = [_picture(film, kind, lost) for film in films]
    return files


def _recoded(film: bytes, syntax: pydicom.uid.UID | None) -> bytes:
    if syntax is None:
        return film
    dataset = pydicom.dcmread(io.BytesIO(film))
    plugin = "pydicom" if syntax == pydicom.uid.RLELossless else "pylibjpeg"
    dataset.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue()


def _picture(film: bytes, kind: str, lost: int) -> bytes:
    stored = pydicom.dcmread(io.BytesIO(film)).pixel_array
    image = Image.fromarray((stored >> lost).astype(np.uint8) if lost else stored)
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def naive(data: bytes) -> np.ndarray:
    """Return pixels [256, 256] in [0, 1], trusting the file."""
    if data[128:132] == b"DICM":
        dataset = pydicom.dcmread(io.BytesIO(data))
        shown = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset).astype(
            np.float32
        )
        inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
    else:
        shown = np.asarray(Image.open(io.BytesIO(data)), np.float32)
        inverted = False
    shown = (shown - shown.min()) / (shown.max() - shown.min())
    image = Image.fromarray(1 - shown if inverted else shown)
    return np.asarray(image.resize((SQUARE, SQUARE), Image.Resampling.BILINEAR))


def ours(data: bytes) -> np.ndarray:
    """Return the same as this project reads it."""
    return to_square(read_image(data).pixels, SQUARE)


def processor_seconds() -> float:
    """Return the processor time of this process and of the children that it has now."""
    children = [child.cpu_times() for child in psutil.Process().children()]
    return time.process_time() + sum(times.user + times.system for times in children)


def rate(read: Callable[[bytes], np.ndarray], files: list[bytes]) -> Callable[[], float]:
    """Return a function that reads all files once and returns files per second."""

    def turn() -> float:
        started = processor_seconds()
        for data in files:
            read(data)
        return len(files) / (processor_seconds() - started)

    return turn


def file_rates(
    folder: Path, count: int, side: int, rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Return files per second by encoding and reader, and print them as a table."""
    found: dict[str, dict[str, list[float]]] = {}
    with DecoderPool() as pool:
        for name, files in make_files(folder / "films", count, side).items():
            print(name)
            contenders = {
                "ours": rate(ours, files),
                "child": rate(lambda data: pool.decode(data, square=SQUARE).pixels, files),
                "naive": rate(naive, files),
            }
            found[name] = measure_in_turns(contenders, rounds)
    print(f"\n| {count} files of {side} x {side} | ours, files/s | child | naive | ours / naive |")
    print("|---|---|---|---|---|")
    for name, values in found.items():
        rates = " | ".join(str(Spread.of(values[who])) for who in ("ours", "child", "naive"))
        print(f"| {name} | {rates} | {ratio(values, 'ours', 'naive')} |")
    return found


def phantom_rates(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Return studies per second of both generators, at 256 pixels."""
    counts = PhantomConfig(train=30, val=1, test=1, image_size=SQUARE)

    def drawn(name: str, make: Callable[[int], object]) -> Callable[[], float]:
        numbers = iter(range(100))

        def turn() -> float:
            shutil.rmtree(folder / name, ignore_errors=True)
            started = processor_seconds()
            make(next(numbers))
            return 32 / (processor_seconds() - started)

        return turn

    generators = {
        "phantom, procedural": drawn(
            "procedural",
            lambda seed: import_phantoms(folder / "procedural", counts, seed=seed, progress=False),
        )
    }
    try:
        data_folder()
    except CTError as error:
        print(f"phantom, ct: not measured: {error}")
    else:
        _warm_projections(folder)
        generators["phantom, ct (two views)"] = drawn(
            "ct",
            lambda seed: import_ct_phantoms(
                folder / "ct", counts, folder / "projections", seed=seed, progress=False
            ),
        )
    return measure_in_turns(generators, rounds)


def _warm_projections(folder: Path) -> None:
    """Project what a first run projects once, so that a turn draws only."""
    many = PhantomConfig(train=150, val=1, test=1, image_size=SQUARE)
    import_ct_phantoms(folder / "ct", many, folder / "projections", seed=0)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--files", type=int, default=12, help="files per encoding (default %(default)s)"
    )
    parser.add_argument(
        "--side", type=int, default=1024, help="rows and columns, pixels (default %(default)s)"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="measured rounds (default %(default)s)"
    )
    parser.add_argument("--phantoms-only", action="store_true", help="leave the files out")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = CACHE / "data"
    found = {} if args.phantoms_only else file_rates(folder, args.files, args.side, args.rounds)
    phantoms = phantom_rates(folder, args.rounds)
    for name, drawn in phantoms.items():
        print(f"{name}: {Spread.of(drawn)} studies/s of one core")
    if args.out:
        args.out.write_text(json.dumps(found | {"phantoms": phantoms}, indent=2) + "\n")


if __name__ == "__main__":
    main()
