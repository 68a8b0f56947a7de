"""``lmrrg demo``: run the whole system: studies, SFT, PPO, evaluation, run report."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from lmrrg.cli.stage_estimate import estimate_minutes
from lmrrg.config.description import config_help
from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config
from lmrrg.run.layout import RunLayout
from lmrrg.run.stage_log import stage_log

EPILOG = config_help()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        "--config",
        default="configs/demo.yaml",
        help="YAML file with settings (default: %(default)s)",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings that win over the file's"
    )


def run(args: argparse.Namespace) -> int:
    """Run the stages in order; a stage that was interrupted before goes on from its checkpoint."""
    config = load_config(args.config, args.overrides)
    logs = RunLayout(config.run_dir).log
    stages = _stages(config)
    print(
        f"{config.name}: {len(stages)} stages{_expectation(config)}; details in {logs}/",
        flush=True,
    )
    started = time.monotonic()
    for number, (name, work) in enumerate(stages, start=1):
        stage_started = time.monotonic()
        with stage_log(logs / f"{number}-{name.replace(' ', '-')}.log"):
            result = work(config)
        seconds = time.monotonic() - stage_started
        print(f"[{number}/{len(stages)}] {name:10} {_duration(seconds):>8}  {result}", flush=True)
    print(f"Done in {_duration(time.monotonic() - started)}.")
    return 0


def _expectation(config: Config) -> str:
    minutes = estimate_minutes(config)
    return "" if minutes is None else f", about {minutes:.0f} min on two cores"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


# Each stage imports its modules itself: torch, Ray and vLLM print warnings when they are imported,
# which belong in the stage's log.


def _studies(config: Config) -> str:
    from lmrrg.cli.stage_results import studies_line
    from lmrrg.run.studies import prepare_studies

    return studies_line(prepare_studies(config, again=not config.sft.resume))


def _eye(config: Config) -> str:
    from lmrrg.cli.stage_results import eye_line
    from sft.eye import run_eye

    run_eye(config)
    return eye_line(config.run_dir)


def _sft(config: Config) -> str:
    from lmrrg.cli.stage_results import sft_line
    from sft.train import run_sft

    run_sft(config)
    return sft_line(config.run_dir)


def _ppo(config: Config) -> str:
    from lmrrg.cli.stage_results import ppo_line
    from rl.ppo import run_ppo

    run_ppo(config)
    return ppo_line(config.run_dir)


def _evaluation(config: Config) -> str:
    from lmrrg.cli.stage_results import evaluation_line
    from lmrrg.evaluation.evaluate import evaluate_run

    evaluate_run(config)
    return evaluation_line(config.run_dir)


def _run_report(config: Config) -> str:
    from lmrrg.run_report.page import write_report

    return f"open {write_report(config.run_dir, config)}"


def _stages(config: Config) -> list[tuple[str, Callable[[Config], str]]]:
    """Return the name of each stage, and its work, which returns the line that sums it up."""
    eye = [("eye", _eye)] if config.eye.epochs else []
    return [
        ("studies", _studies),
        *eye,
        ("SFT", _sft),
        ("PPO", _ppo),
        ("evaluation", _evaluation),
        ("run report", _run_report),
    ]
