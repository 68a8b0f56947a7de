"""`lmrrg demo`: the whole system with one config: studies, SFT, PPO, evaluation, run report."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import TypeVar

from lmrrg.config.loading import config_help, load_config

EPILOG = config_help()

T = TypeVar("T")


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
    """Run the stages in order; a stage that was finished before resumes from its checkpoints."""
    config = load_config(
        args.config, args.overrides
    )  # before the stages are imported, which takes long

    from lmrrg.evaluation.evaluate import evaluate_run
    from lmrrg.run.studies import prepare_studies
    from lmrrg.run_report.page import write_report
    from rl.ppo import run_ppo
    from sft.train import run_sft

    started = time.monotonic()
    _stage("studies", lambda: prepare_studies(config, again=not config.sft.resume))
    sft = _stage("SFT", lambda: run_sft(config))
    _stage("PPO with the RadCliQ reward", lambda: run_ppo(config, sft))
    _stage("evaluation", lambda: evaluate_run(config))
    report = _stage("run report", lambda: write_report(config.run_dir, config))
    print(f"\nDone in {(time.monotonic() - started) / 60:.1f} min. Open {report}")
    return 0


def _stage(name: str, work: Callable[[], T]) -> T:
    print(f"\n== {name}", flush=True)
    started = time.monotonic()
    result = work()
    print(f"== {name}: {time.monotonic() - started:.0f} s", flush=True)
    return result
