"""``lmrrg generate``: write reports for films that have none."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from lmrrg import RESEARCH_USE_ONLY
from lmrrg.config.description import config_help
from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config
from lmrrg.data.films import StudyPer, find_films
from lmrrg.data.priors import prior_reports
from lmrrg.errors import CodedError
from lmrrg.files import atomic_writer, check_outputs
from lmrrg.imaging.batch import RefusedImage
from lmrrg.imaging.decoder_pool import image_limits
from lmrrg.manifest import read_studies
from lmrrg.studies import Split

if TYPE_CHECKING:
    from serve_app.batch import FilmStudy

_MOST_SHOWN = 20

EPILOG = f"""\
films
  --images DIR    every DICOM, PNG and JPEG file below a folder. DICOM files with one Study Instance
                  UID are one study; of the others each is a study, or those of a folder are
                  (--study-per folder).
  --studies FILE  a manifest that `lmrrg data` wrote, or one of that form; its reports, if any, are
                  not read, but for the prior's where the model was trained with it

output
  --out               JSONL, a record for each study: study_id (the Study Instance UID, the path
                      below DIR, or the manifest's id), report, files, files_refused, complete,
                      probabilities of the 14 classes, images, model and a notice. It appears when
                      all are written; a command that was stopped continues where it was.
  <out>.refused.csv   files that cannot be read, with the code that says why. A study goes on with
                      its other images; one without any has no record.
  `lmrrg score --hypotheses` reads the file where you have references.

The reports are those that the service would write: greedy, from a checkpoint of sft/ or ppo/.
{RESEARCH_USE_ONLY}

examples
  lmrrg generate --checkpoint runs/iu/ppo/best --images /data/films --out reports.jsonl
  lmrrg generate --checkpoint runs/iu/ppo/best --studies studies.jsonl --split test --out r.jsonl

{config_help()}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="DIR", help="model directory"
    )
    films = parser.add_mutually_exclusive_group(required=True)
    films.add_argument("--images", type=Path, metavar="DIR", help="folder of films")
    films.add_argument("--studies", type=Path, metavar="FILE", help="manifest of studies (JSONL)")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE.jsonl", help="file of reports"
    )
    parser.add_argument(
        "--split", choices=get_args(Split), help="with --studies: only this split (default: all)"
    )
    parser.add_argument(
        "--study-per",
        choices=get_args(StudyPer),
        default="file",
        help="with --images: what is a study of PNG and JPEG files (default: %(default)s)",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file with settings")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings that win over the file's"
    )


def run(args: argparse.Namespace) -> int:
    """Write the reports, and list the files that were refused."""
    if args.out.suffix != ".jsonl":
        raise CodedError("bad_output", f"--out {args.out} must end in .jsonl")
    config = load_config(args.config, args.overrides)
    refused_path = args.out.with_suffix(".refused.csv")
    check_outputs([args.out, refused_path], filter(None, [args.studies]))
    # Imported here: the help and bad arguments need not wait for vLLM.
    from lmrrg.model.checkpoint import checkpoint_settings
    from serve_app.batch import part_path, write_reports
    from serve_app.reporter import Reporter, model_info
    from serve_app.settings import ServiceSettings

    _, inputs = checkpoint_settings(args.checkpoint)
    studies = _studies(args, config)
    version = model_info(args.checkpoint).version
    try:
        with closing(Reporter(args.checkpoint, ServiceSettings.of(config))) as reporter:
            refused = write_reports(
                studies,
                reporter,
                version,
                config.data,
                inputs.image_size,
                args.out,
                progress=not args.quiet,
            )
    except KeyboardInterrupt:
        print(f"reports so far: {part_path(args.out)}; the same command goes on", file=sys.stderr)
        raise
    written = _count_readable(studies, refused)
    print(f"{written} of {len(studies)} studies have a report: {args.out}")
    _list_refused(refused_path, refused)
    return 0


def _studies(args: argparse.Namespace, config: Config) -> list[FilmStudy]:
    from serve_app.batch import FilmStudy

    if args.images is not None:
        found = find_films(args.images, args.study_per, image_limits(config.data))
        if found.other_files:
            print(f"{found.other_files} files are neither DICOM, PNG nor JPEG", file=sys.stderr)
        return [FilmStudy(study, images) for study, images in found.studies.items()]
    everything = read_studies(args.studies)
    priors = prior_reports(everything, config.data.section)
    chosen = [study for study in everything if args.split in (None, study.split)]
    if not chosen:
        raise CodedError("no_studies", f"{args.studies} has no study to write a report for")
    return [
        FilmStudy(study.id, study.images, study.indication, priors.get(study.id, ""))
        for study in chosen
    ]


def _count_readable(studies: Sequence[FilmStudy], refused: Sequence[RefusedImage]) -> int:
    """Return the number of studies with an image that could be read."""
    lost = {image.path for image in refused}
    count = 0
    for study in studies:
        count += any(Path(image.path) not in lost for image in study.images)
    return count


def _list_refused(path: Path, refused: Sequence[RefusedImage]) -> None:
    """Write the refused files and print the first of them."""
    if not refused:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    csv.writer(text).writerows([("file", "code"), *refused])
    with atomic_writer(path) as out:
        out.write(text.getvalue())
    for image in refused[:_MOST_SHOWN]:
        print(f"refused: {image.path} ({image.code})", file=sys.stderr)
    print(f"{len(refused)} files are refused: {path}", file=sys.stderr)
