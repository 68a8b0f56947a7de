"""``lmrrg data``: read a data set into a manifest of studies."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from lmrrg.config import DataConfig, PhantomConfig
from lmrrg.data.importing import write_import
from lmrrg.data.sources import import_studies
from lmrrg.studies import Section

EPILOG = """\
sources:
  phantom   drawn chest films with known findings, written as DICOM into a folder "phantoms" beside --out
  iu-xray   Indiana University (Open-i): a folder with indiana_reports.csv, indiana_projections.csv and images/;
            the splits of r2gen_annotation.json are used where that file lies in it
  r2gen     a folder with annotation.json (train, val, test) and images/
  jsonl     a manifest in this project's form

Studies without text in the section, or without a frontal image, are dropped and counted. The counts are printed
and saved beside the manifest as <name>.audit.json.

examples:
  lmrrg data phantom --out phantom/studies.jsonl --count 600,100,200 --seed 7
  lmrrg data iu-xray --source iu_xray --out iu_xray/studies.jsonl --labels chexbert.csv
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``lmrrg data``."""
    parser.add_argument("kind", choices=("phantom", "iu-xray", "r2gen", "jsonl"), help="kind of the data set")
    parser.add_argument("--source", type=Path, help="folder of the data set (jsonl: the manifest); not for phantom")
    parser.add_argument("--out", type=Path, required=True, help="manifest to write, .jsonl")
    parser.add_argument("--images", type=Path, help="folder of images (default: images/ in the source)")
    parser.add_argument(
        "--labels", type=Path, help="CSV of study_id and 14 classes with 1, 0, -1 or blank (default: the source's own)"
    )
    parser.add_argument(
        "--section", choices=get_args(Section), default="findings", help="text that is learned (default: findings)"
    )
    parser.add_argument("--seed", type=int, default=7, help="seed of phantoms and of made splits (default: 7)")
    parser.add_argument(
        "--count", type=_counts, default=(600, 100, 200), metavar="TRAIN,VAL,TEST", help="phantom: studies per split"
    )
    parser.add_argument("--size", type=int, default=256, help="phantom: rows and columns, pixels (default: 256)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """Import, write the manifest and its audit, print the audit."""
    if args.kind != "phantom" and args.source is None:
        raise ValueError(f"--source is required for {args.kind}")
    train, val, test = args.count
    data = DataConfig(
        source=args.kind,
        path=args.source,
        images=args.images,
        labels=args.labels,
        section=args.section,
        phantom=PhantomConfig(train=train, val=val, test=test, image_size=args.size),
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    imported = import_studies(data, args.out.parent, args.seed, progress=not args.quiet)
    audit = write_import(args.out, imported)
    print(imported.table())
    print(f"wrote {args.out} and {audit}")
    return 0


def _counts(text: str) -> tuple[int, int, int]:
    try:
        train, val, test = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not three numbers like 600,100,200") from None
    return train, val, test
