"""Read thousands of damaged images, none of which may crash or hang the decoder.

Each must end in pixels in [0, 1] or in a coded error, in bounded time and memory.

    python benchmarks/fuzz/images.py [--count 10000] [--seed 0] [FILE...]

FILE: further files to damage.

Seeds are small films made here: DICOM in eight transfer syntaxes with windows, LUTs, padding,
colour and palette, PNG and JPEG. Damage: flipped bits, cuts, doubled or removed blocks, edited
lengths of DICOM elements and of PNG and JPEG segments, numbers replaced by extreme ones, and the
head of one file before the tail of another. All files go through one decoder child, so that a
crash, a hang or a growing process shows.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import gdcm
import numpy as np
import psutil
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from tqdm import tqdm

from lmrrg.imaging.decoder_pool import DecoderPool
from lmrrg.imaging.radiograph import ImageError

Damage = Callable[[bytes, np.random.Generator], bytes]
DEATHS = ("decoder_crashed", "decoder_timeout", "decoder_memory")
_EXTREMES = (
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\0\x80",
    b"\x01\0\0\0",
    b"\0\x10\0\0",
)


def main() -> None:
    """Print the outcomes, the slowest file and the memory; fail if the decoder ever died."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10_000, help="damaged files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("files", nargs="*", type=Path)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    seeds = [*films(rng), *(path.read_bytes() for path in arguments.files)]
    ends: Counter[str] = Counter()
    slowest = 0.0
    memory = 0
    with DecoderPool(timeout_s=10, memory_mb=1024) as pool:
        for number in tqdm(range(arguments.count), unit="file", mininterval=2):
            data = damaged(seeds, rng)
            started = time.perf_counter()
            ends[outcome(pool, data)] += 1
            # The first file also starts the decoder process.
            slowest = max(slowest, time.perf_counter() - started) if number else 0.0
            if number % 100 == 0:
                memory = max(
                    [memory, *(child.memory_info().rss for child in psutil.Process().children())]
                )
    for code, count in ends.most_common():
        print(f"{count:7d}  {code}")
    print(f"slowest file {slowest:.2f} s; largest decoder process {memory >> 20} MB")
    if any(ends[code] for code in DEATHS):
        raise SystemExit("the decoder died on some file")


def outcome(pool: DecoderPool, data: bytes) -> str:
    """Return "read" or the code of the refusal.

    Raises:
        AssertionError: pixels outside [0, 1].
    """
    try:
        pixels = pool.decode(data).pixels
    except ImageError as error:
        return error.code
    if not (pixels.min() >= 0 and pixels.max() <= 1):
        raise AssertionError("pixels outside [0, 1]")
    return "read"


def films(rng: np.random.Generator) -> list[bytes]:
    """Return the undamaged files."""
    low = np.linspace(200, 3500, 96 * 80).reshape(96, 80)
    stored = np.clip(low + rng.normal(0, 200, low.shape), 0, 4095).astype(np.uint16)
    syntaxes = (
        "ExplicitVRLittleEndian",
        "ImplicitVRLittleEndian",
        "DeflatedExplicitVRLittleEndian",
        "ExplicitVRBigEndian",
        "RLELossless",
        "JPEG2000Lossless",
    )
    made = [_file(_film(stored), name) for name in syntaxes]
    made += [
        _file(_film(stored, lut=True), "ExplicitVRLittleEndian"),
        _colour(stored),
        _palette(stored),
    ]
    made += [_jpeg_film(stored), _lossless_jpeg_film(stored)]
    grey = Image.fromarray((stored >> 4).astype(np.uint8))
    pictures = [
        (grey, "PNG"),
        (Image.fromarray(stored), "PNG"),
        (grey.convert("RGBA"), "PNG"),
        (grey.convert("P"), "PNG"),
        (grey, "JPEG"),
        (grey.convert("CMYK"), "JPEG"),
    ]
    return (
        made + [_saved(*picture) for picture in pictures] + [_saved(grey, "JPEG", progressive=True)]
    )


def _saved(image: Image.Image, kind: str, **options: bool) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _film(stored: np.ndarray, *, lut: bool = False) -> Dataset:
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    made.SOPInstanceUID = "2.25.1"
    made.Modality = "CR"
    made.ViewPosition = "PA"
    made.PatientName = "Nobody^At all"
    made.BurnedInAnnotation = "NO"
    made.Rows, made.Columns = stored.shape
    made.SamplesPerPixel = 1
    _set_bits(made, allocated=16, stored=12)
    made.PixelRepresentation = 0
    made.PhotometricInterpretation = "MONOCHROME1"
    made.PixelSpacing = ["0.2", "0.2"]
    made.PixelPaddingValue = 0
    made.RescaleSlope = "1"
    made.RescaleIntercept = "-10"
    made.WindowCenter = ["2000", "1000"]
    made.WindowWidth = ["3000", "500"]
    if lut:
        item = Dataset()
        item.LUTDescriptor = [4096, 0, 12]
        item.add_new("LUTData", "OW", np.arange(4096, dtype="<u2").tobytes())
        made.VOILUTSequence = [item]
    made.PixelData = stored.tobytes()
    made["PixelData"].VR = "OW"
    return made


def _set_bits(made: Dataset, *, allocated: int, stored: int) -> None:
    made.BitsAllocated = allocated
    made.BitsStored = stored
    made.HighBit = stored - 1


def _file(made: Dataset, syntax: str) -> bytes:
    target = getattr(pydicom.uid, syntax)
    if target.is_encapsulated:
        made.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        made.compress(
            target,
            encoding_plugin="" if syntax == "RLELossless" else "pylibjpeg",
            generate_instance_uid=False,
        )
    elif syntax == "ExplicitVRBigEndian":
        made.PixelData = np.frombuffer(made.PixelData, "<u2").astype(">u2").tobytes()
        made["PixelData"].VR = "OW"
    made.file_meta.TransferSyntaxUID = target
    out = io.BytesIO()
    made.save_as(out, enforce_file_format=True)
    return out.getvalue()


def _colour(stored: np.ndarray) -> bytes:
    made = _film(stored)
    made.SamplesPerPixel = 3
    made.PhotometricInterpretation = "YBR_FULL"
    made.PlanarConfiguration = 1
    _set_bits(made, allocated=8, stored=8)
    made.PixelData = np.repeat((stored >> 4).astype(np.uint8).reshape(1, -1), 3, axis=0).tobytes()
    return _file(made, "ExplicitVRLittleEndian")


def _palette(stored: np.ndarray) -> bytes:
    made = _film(stored)
    made.PhotometricInterpretation = "PALETTE COLOR"
    for name in ("Red", "Green", "Blue"):
        made.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", [4096, 0, 16])
        setattr(
            made,
            f"{name}PaletteColorLookupTableData",
            (np.arange(4096) * 16).astype("<u2").tobytes(),
        )
    return _file(made, "ExplicitVRLittleEndian")


def _jpeg_film(stored: np.ndarray) -> bytes:
    made = _film(stored)
    _set_bits(made, allocated=8, stored=8)
    frame = _saved(Image.fromarray((stored >> 4).astype(np.uint8)), "JPEG")
    made.PixelData = pydicom.encaps.encapsulate([frame])
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True
    made.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    out = io.BytesIO()
    made.save_as(out, enforce_file_format=True)
    return out.getvalue()


def _lossless_jpeg_film(stored: np.ndarray) -> bytes:
    """Return a film as JPEG lossless (SOF3), written by GDCM from and to files."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "native.dcm"
        target = Path(folder) / "lossless.dcm"
        source.write_bytes(_file(_film(stored), "ExplicitVRLittleEndian"))
        reader = gdcm.ImageReader()
        reader.SetFileName(str(source))
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(target))
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        if not reader.Read():
            raise RuntimeError("GDCM does not read the film")
        change.SetInput(reader.GetImage())
        if not change.Change():
            raise RuntimeError("GDCM does not encode the film")
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        if not writer.Write():
            raise RuntimeError("GDCM does not write the film")
        return target.read_bytes()


def damaged(seeds: list[bytes], rng: np.random.Generator) -> bytes:
    """Return a file after one to three damages, or the head of one before the tail of another."""
    data = seeds[rng.integers(len(seeds))]
    if rng.random() < 0.1:
        other = seeds[rng.integers(len(seeds))]
        return data[: rng.integers(len(data))] + other[rng.integers(len(other)) :]
    for _ in range(rng.integers(1, 4)):
        data = _DAMAGES[rng.integers(len(_DAMAGES))](data, rng)
    return data


def _position(data: bytes, rng: np.random.Generator) -> int:
    """Return a position, mostly in the first kilobytes, where the headers are."""
    end = len(data) if rng.random() < 0.3 else min(len(data), 2000)
    return int(rng.integers(max(1, end)))


def _flip(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.integers(1, 9)):
        if changed:
            changed[_position(data, rng)] ^= 1 << rng.integers(8)
    return bytes(changed)


def _cut(data: bytes, rng: np.random.Generator) -> bytes:
    return (
        data[: _position(data, rng)] if rng.random() < 0.5 else data[: rng.integers(len(data) + 1)]
    )


def _move(data: bytes, rng: np.random.Generator) -> bytes:
    at = _position(data, rng)
    size = int(rng.integers(1, 200))
    return (
        data[:at] + data[at + size :]
        if rng.random() < 0.5
        else data[:at] + data[at : at + size] * 2 + data[at + size :]
    )


def _overwrite(data: bytes, rng: np.random.Generator) -> bytes:
    at = _position(data, rng)
    value = _EXTREMES[rng.integers(len(_EXTREMES))]
    return data[:at] + value + data[at + len(value) :]


def _edit_number(data: bytes, rng: np.random.Generator) -> bytes:
    """Change a length or value after a DICOM tag, a PNG chunk or a JPEG marker.

    The tags are those of groups 2, 8, 28 and 7FE0.
    """
    marks = (
        b"\x28\0",
        b"\x08\0",
        b"\x02\0",
        b"\xe0\x7f",
        b"\xfe\xff",
        b"\0\x28",
        b"IHDR",
        b"IDAT",
        b"\xff\xc0",
        b"\xff\xc3",
        b"\xff\xc4",
        b"\xff\xda",
        b"\xff\x51",
    )
    starts = [at for mark in marks if (at := data.find(mark, _position(data, rng))) >= 0]
    if not starts:
        return data
    at = starts[rng.integers(len(starts))] + int(rng.integers(-4, 14))
    size = int(rng.choice([1, 2, 4]))
    value = (
        _EXTREMES[rng.integers(len(_EXTREMES))][:size] if rng.random() < 0.5 else rng.bytes(size)
    )
    return data[: max(0, at)] + value + data[max(0, at) + size :]


# Edited numbers twice: they find more than the other damages.
_DAMAGES: tuple[Damage, ...] = (_flip, _cut, _move, _overwrite, _edit_number, _edit_number)

if __name__ == "__main__":
    main()
