"""``lmrrg evaluate``: score one checkpoint on a manifest, or compare all systems of a run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lmrrg.config.base import ConfigError
from lmrrg.config.description import config_help
from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config

EPILOG = f"""\
two ways
  lmrrg evaluate --config FILE
      Compares SFT, PPO and the baselines of the run that the config names, and writes
      RUN/evaluation/ and the run report, RUN/report.html.
  lmrrg evaluate --checkpoint DIR --studies FILE --out results.json
      Generates and scores reports with one checkpoint. Beside results.json it writes results.md
      and results.reports.jsonl.

exit code
  0   also when a sanity check fails (few distinct reports, an ignored image, missing ends)
  1   with --strict, when a sanity check fails
  2   bad input

{config_help()}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file with settings")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="DIR", help="model directory to evaluate"
    )
    parser.add_argument(
        "--studies",
        type=Path,
        metavar="FILE",
        help="manifest of studies (JSONL), with --checkpoint",
    )
    parser.add_argument(
        "--split", choices=("val", "test"), help="split to evaluate (default: data.eval_split)"
    )
    parser.add_argument(
        "--convention",
        choices=("raw", "r2gen", "coco"),
        help="text handling of BLEU, METEOR, ROUGE-L and CIDEr; the others are shown beside raw "
        "(default: evaluation.convention)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE.json", help="results file (JSON), with --checkpoint"
    )
    parser.add_argument(
        "--strict", action="store_true", help="exit with 1 when a sanity check fails"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings that win over the file's"
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the results and write them.

    Raises:
        ConfigError: arguments that do not belong together, or a bad setting.
    """
    _check(args)
    config = _settings(args)  # a bad setting ends the command before the slow imports

    from lmrrg.evaluation.evaluate import evaluate_checkpoint, evaluate_run, read_results
    from lmrrg.run_report.page import write_report

    if args.checkpoint is None:
        results = read_results(evaluate_run(config))
        print(f"run report: {write_report(config.run_dir, config)}")
    else:
        results = evaluate_checkpoint(args.checkpoint, args.studies, config, args.out)
    return 1 if args.strict and any(_sanity(system) for system in results["systems"]) else 0


def _check(args: argparse.Namespace) -> None:
    if args.checkpoint is None:
        if args.studies or args.out:
            raise ConfigError("--studies and --out go with --checkpoint")
        if args.config is None:
            raise ConfigError(
                "give --config FILE to compare the systems of a run, or --checkpoint DIR"
            )
    elif not (args.studies and args.out):
        raise ConfigError("--checkpoint needs --studies FILE and --out FILE")
    elif args.out.suffix.lower() != ".json":
        # The table's name is that of --out with .md in place of the suffix: exp.step1 and
        # exp.step2 would share exp.md.
        raise ConfigError(
            f"--out {args.out} must end in .json; the table and the reports are written beside it"
        )


def _settings(args: argparse.Namespace) -> Config:
    overrides = list(args.overrides)
    if args.split:
        overrides.append(f"data.eval_split={args.split}")
    if args.convention:
        overrides.append(f"evaluation.convention={args.convention}")
    if args.checkpoint is not None and args.config is None:
        overrides = _image_settings(args.checkpoint) + overrides
    return load_config(args.config, overrides)


def _image_settings(checkpoint: Path) -> list[str]:
    """Return the size and number of images of the checkpoint's training."""
    from lmrrg.model.checkpoint import checkpoint_settings

    _, inputs = checkpoint_settings(checkpoint)
    return [f"data.image_size={inputs.image_size}", f"data.max_views={inputs.max_views}"]


def _sanity(system: dict[str, Any]) -> list[Any]:
    # The baselines fail by construction: one of them writes the same report for everybody.
    return system["sanity"] if system["checkpoint"] else []
