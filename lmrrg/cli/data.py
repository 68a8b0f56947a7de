"""``lmrrg data``: read a data set into a manifest of studies."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from lmrrg.config.data import CSVColumn, DataConfig, DataSource, PhantomConfig
from lmrrg.data.audit import find_duplicates
from lmrrg.data.importing import audit_path, refused_path, write_import
from lmrrg.files import atomic_writer, check_outputs
from lmrrg.imaging.batch import RefusedImage
from lmrrg.run.studies import import_checked
from lmrrg.studies import LABELS, Section

EPILOG = """\
data sets, and what --source names (images may lie elsewhere: --images):
  iu-xray        folder with indiana_reports.csv, indiana_projections.csv and images/; or with
                 NLMCXR_reports.tgz (or its XML files in ecgen-radiology/) and images/.
                 r2gen_annotation.json in it gives the splits.
  mimic-cxr      folder with mimic-cxr-2.0.0-metadata.csv.gz, -split.csv.gz, -chexpert.csv.gz, the
                 reports (mimic-cxr-reports.zip, or unpacked into files/) and the images
                 files/p10/.../*.jpg or *.dcm
  chexpert-plus  folder with df_chexpert_plus_240401.csv, PNG/ or DICOM/ and, if you have them,
                 chexbert_labels/
  padchest       folder with PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv(.gz) and the
                 images
  padchest-gr    folder with grounded_reports_20240819.json, master_table.csv and the images
  rexgradient    folder with metadata/train_metadata_view_position.json (valid, test) and deid_png/
  r2gen          folder with R2Gen's annotation.json (IU or MIMIC-CXR) and images/
  csv            your own table: columns study_id, patient_id, image (one, or several as
                 a.png;b.png; or one per row); and report, or findings and impression; if you have
                 them view, date, split, indication, comparison and the 14 classes. Columns of other
                 names: --columns; dates of another form than 2011-03-28: --date-format
  jsonl          a manifest that this command wrote, or one of that form
  phantom        no --source: drawn chest films with known findings, as DICOM in a folder "phantoms"
                 beside --out

what comes out:
  --out            a study per line: images, report sections, 14 labels, split, the patient's
                   previous study
  <out>.audit.json what was read, kept, dropped and why, splits, views, labels; also printed as a
                   table
  <out>.refused.csv
                   with --check-images: the image files that cannot be read, and why

Studies without text in --section, or without a frontal image, are left out and counted. A patient
is never in two splits: where a data set has no published split, a hash splits patients 80/10/10.
csv replaces ids by salted hashes. Keep the salt, and use it again for the same patients:
  export LMRRG_ID_SALT=$(openssl rand -hex 16)

examples:
  lmrrg data iu-xray --source data/iu_xray --out iu_xray/studies.jsonl
  lmrrg data mimic-cxr --source /data/mimic-cxr-jpg-2.1.0 --out mimic_cxr/studies.jsonl
  lmrrg data csv --source export.csv --images /data/films --out ours/studies.jsonl --hash-images
  lmrrg data csv --source export.csv --columns study_id=AccessionNumber patient_id=MRN \\
      report=ReportText image=Path date=StudyDate --date-format %d.%m.%Y --out ours/studies.jsonl
  lmrrg data phantom --out phantom/studies.jsonl --count 600,100,200 --seed 7
"""


_MOST_PRINTED = 50
"""Refused images that are printed; the file has all."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``lmrrg data``."""
    parser.add_argument(
        "kind", choices=get_args(DataSource), metavar="NAME", help="data set; see below"
    )
    parser.add_argument(
        "--source", type=Path, help="folder of the data set (csv, jsonl: the file); not for phantom"
    )
    parser.add_argument("--out", type=Path, required=True, help="manifest to write, .jsonl")
    parser.add_argument(
        "--images",
        type=Path,
        help="folder of images, where it is not the usual one of the data set",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        help="CSV of study_id and 14 classes with 1, 0, -1 or blank (default: the source's own)",
    )
    parser.add_argument(
        "--section",
        choices=get_args(Section),
        default="findings",
        help="text that is learned (default: findings)",
    )
    parser.add_argument(
        "--seed", type=int, default=7, help="seed of phantoms and of made splits (default: 7)"
    )
    parser.add_argument(
        "--ids",
        choices=("hashed", "published"),
        default="hashed",
        help="csv: hash ids, or keep them (default: hashed)",
    )
    parser.add_argument(
        "--columns",
        nargs="+",
        type=_column,
        default=[],
        metavar="NAME=COLUMN",
        help="csv: what the file calls a column, such as report=ReportText",
    )
    parser.add_argument(
        "--date-format",
        metavar="FORM",
        help="csv: form of the dates, such as %%d.%%m.%%Y (default: 2011-03-28 or 20110328)",
    )
    parser.add_argument(
        "--hash-images",
        action="store_true",
        help="look for copies among the image files (reads all)",
    )
    parser.add_argument(
        "--check-images",
        action="store_true",
        help="read every image: list the refused ones in <out>.refused.csv, count those that look "
        "inverted",
    )
    parser.add_argument(
        "--skip-refused-images",
        action="store_true",
        help="leave out the images that cannot be read (checks all)",
    )
    parser.add_argument(
        "--check-views",
        action="store_true",
        help="classify each image as frontal or lateral: fill in missing views, and count the tags "
        "that disagree (encodes all images)",
    )
    parser.add_argument(
        "--count",
        type=_counts,
        default=(600, 100, 200),
        metavar="TRAIN,VAL,TEST",
        help="phantom: studies per split",
    )
    parser.add_argument(
        "--size", type=int, default=256, help="phantom: rows and columns, pixels (default: 256)"
    )
    parser.add_argument(
        "--generator",
        choices=("procedural", "ct"),
        default="procedural",
        help="phantom: drawn films, or projections of a chest CT with the masks of 29 regions "
        "(default: procedural)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """Import a data set, write the manifest and its audit, and print the audit."""
    if args.kind != "phantom" and args.source is None:
        raise ValueError(f"--source is required for {args.kind}")
    if args.kind != "csv" and (args.columns or args.date_format):
        raise ValueError(f"--columns and --date-format are for csv, not for {args.kind}")
    # The audit's name replaces the suffix: a.v1 and a.v2 would have the same audit.
    if args.out.suffix != ".jsonl":
        raise ValueError(f"--out {args.out} must end in .jsonl; the audit is written beside it")
    check_outputs(
        [args.out, audit_path(args.out), refused_path(args.out)],
        [path for path in (args.source, args.labels) if path is not None],
    )
    train, val, test = args.count
    data = DataConfig(
        source=args.kind,
        path=args.source,
        images=args.images,
        labels=args.labels,
        section=args.section,
        ids=args.ids,
        columns=dict(args.columns),
        date_format=args.date_format,
        check_images=args.check_images,
        skip_refused_images=args.skip_refused_images,
        check_views=args.check_views,
        phantom=PhantomConfig(
            generator=args.generator, train=train, val=val, test=test, image_size=args.size
        ),
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    imported = import_checked(
        data, args.out.parent, args.seed, stop_at_refused=False, progress=not args.quiet
    )
    # Off by default: it reads every image, which takes long for a large data set.
    if args.hash_images:
        imported.duplicates = find_duplicates(imported.studies, progress=not args.quiet)
    audit = write_import(args.out, imported)
    print(imported.table())
    # A list of an earlier manifest would be out of date.
    refused_path(args.out).unlink(missing_ok=True)
    print(f"wrote {args.out} and {audit}")
    if imported.refused:
        _list_refused(imported.refused, refused_path(args.out), left_out=args.skip_refused_images)
    return 0


def _list_refused(refused: Sequence[RefusedImage], path: Path, *, left_out: bool) -> None:
    """Write the refused images with their codes to a file, and print the first ones."""
    with atomic_writer(path) as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerows([("image", "code"), *refused])
    for image in refused[:_MOST_PRINTED]:
        print(f"refused: {image.path} ({image.code})")
    if left_out:
        advice = "they are left out"
    else:
        advice = "a run stops at them; --skip-refused-images leaves them out"
    print(f"{len(refused)} images are refused, all in {path}: {advice}")


def _column(text: str) -> tuple[str, str]:
    name, equals, column = text.partition("=")
    known = (*get_args(CSVColumn), *LABELS)
    if not (equals and column) or name not in known:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not NAME=COLUMN with a NAME of {', '.join(known)}"
        )
    return name, column


def _counts(text: str) -> tuple[int, int, int]:
    try:
        train, val, test = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not three numbers like 600,100,200"
        ) from None
    return train, val, test
