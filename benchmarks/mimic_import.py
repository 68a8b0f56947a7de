"""Import a synthetic tree of MIMIC-CXR's size with ``lmrrg data mimic-cxr``.

Measured are rows per second and peak memory.

    python benchmarks/mimic_import.py FOLDER [--studies 227835]

The tree is made in FOLDER once and kept: the tables of MIMIC-CXR-JPG, the reports in their archive
(500 texts of our own words, in MIMIC's form), and 1.66 empty image files a study. The import never
opens an image; what reading them takes is another figure (benchmarks/speed/data.py).
"""

from __future__ import annotations

import argparse
import csv
import gzip
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

from tqdm import tqdm

from lmrrg.studies import LABELS

_WORDS = (
    "lungs",
    "clear",
    "without",
    "focal",
    "effusion",
    "heart",
    "mildly",
    "enlarged",
    "small",
    "left",
    "opacity",
)
_REPORT = """ FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___ with cough.

 COMPARISON:  ___

 FINDINGS:

 {findings}

 IMPRESSION:

 {impression}
"""
_METADATA = ("dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate", "StudyTime")


def studies(count: int) -> Iterator[tuple[int, int, list[str]]]:
    """Yield patient, study and image ids in MIMIC's form.

    A patient has 3.5 studies on average, a study one or two images.
    """
    for number in range(count):
        patient = 10_000_000 + number * 4 // 14 * 37
        study = 50_000_000 + number * 43
        images = 1 + (number % 100 < 66)
        yield (
            patient,
            study,
            [
                f"{number:08x}-{image:08x}-{patient:08x}-{study:08x}-00000000"
                for image in range(images)
            ],
        )


def make_tree(folder: Path, count: int) -> None:
    """Write the files of ``count`` studies."""
    rng = random.Random(0)
    reports = [_report(rng) for _ in range(500)]
    folder.mkdir(parents=True, exist_ok=True)

    with ExitStack() as stack:
        metadata = _table(folder, "metadata", _METADATA, stack)
        splits = _table(folder, "split", ("dicom_id", "study_id", "subject_id", "split"), stack)
        labels = _table(folder, "chexpert", ("subject_id", "study_id", *LABELS), stack)
        texts = stack.enter_context(
            ZipFile(folder / "mimic-cxr-reports.zip", "w", ZIP_DEFLATED, compresslevel=1)
        )
        for patient, study, images in tqdm(studies(count), total=count, desc="tree", unit="study"):
            place = f"files/p{str(patient)[:2]}/p{patient}/s{study}"
            (folder / place).mkdir(parents=True, exist_ok=True)
            split = (
                "test"
                if patient // 37 % 70 == 0
                else "validate"
                if patient // 37 % 90 == 1
                else "train"
            )
            for image, view in zip(images, ("PA", "LATERAL"), strict=False):
                (folder / place / f"{image}.jpg").touch()
                metadata.writerow(
                    (
                        image,
                        patient,
                        study,
                        view,
                        f"2150{1 + study % 12:02d}{1 + study % 28:02d}",
                        "101112.5",
                    )
                )
                splits.writerow((image, study, patient, split))
            labels.writerow(
                (patient, study, *(rng.choice(("", "", "1.0", "0.0", "-1.0")) for _ in LABELS))
            )
            texts.writestr(f"{place}.txt", rng.choice(reports))
    (folder / "made").write_text(str(count))


def _table(folder: Path, name: str, columns: Iterable[str], stack: ExitStack) -> Any:
    path = folder / f"mimic-cxr-2.0.0-{name}.csv.gz"
    file = gzip.open(path, "wt", compresslevel=1, newline="")  # noqa: SIM115 - closed by the stack
    writer = csv.writer(stack.enter_context(file))
    writer.writerow(columns)
    return writer


def _report(rng: random.Random) -> str:
    lines = [" ".join(rng.choices(_WORDS, k=9)).capitalize() + "." for _ in range(6)]
    return _REPORT.format(findings=" ".join(lines[:5]), impression=lines[5])


def main() -> None:
    """Make the tree where it is missing, import it in its own process, print time and memory."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", type=Path, help="scratch folder of the tree; about 2 GB of empty files' folders"
    )
    parser.add_argument(
        "--studies", type=int, default=227_835, help="studies of the tree (default %(default)s)"
    )
    args = parser.parse_args()
    made = args.folder / "made"
    if not made.is_file() or made.read_text() != str(args.studies):
        make_tree(args.folder, args.studies)
    command = [
        sys.executable,
        "-c",
        "from lmrrg.cli.main import main; raise SystemExit(main())",
        "data",
        "mimic-cxr",
    ]
    started = time.monotonic()
    subprocess.run(
        [*command, "--source", args.folder, "--out", args.folder / "studies.jsonl", "--quiet"],
        check=True,
    )
    wall = time.monotonic() - started
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime
    core = f"{cpu:.0f} s of one core ({args.studies / cpu:,.0f} rows/s)"
    print(f"{args.studies} studies: {wall:.0f} s by the clock, {core}")
    print(f"largest memory {used.ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
