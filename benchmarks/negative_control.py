"""Run CQRL's negative control: PPO with rewards that are shuffled among the studies.

It must not improve the true reward.

    make demo && .venv/bin/python benchmarks/negative_control.py --run runs/demo [ppo.iterations=60]

Trains PPO again from the run's SFT model with `reward.shuffle_control=true`, the same settings
otherwise, and compares its last model with the SFT model on the run's evaluation split: mean
RadCliQ, difference with 95% paired bootstrap interval (negative would be an improvement).
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import ray

from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config
from lmrrg.evaluation.evaluate import evaluate_checkpoint
from lmrrg.metrics.bootstrap import paired_bootstrap
from lmrrg.run.layout import RunLayout
from lmrrg.run.studies import prepare_studies
from rl.ppo import run_ppo


def main() -> None:
    """Train the control and print one JSON line with the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run", type=Path, default=Path("runs/demo"), help="finished run to control"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings that win over the run's"
    )
    args = parser.parse_intermixed_args()
    run = RunLayout(args.run)
    sft = run.best("sft")
    if not sft.is_dir():
        raise SystemExit(f"{args.run} has no SFT model; run `make demo` first")
    name = f"{args.run.name}_shuffled"
    overrides = [f"name={name}", "reward.shuffle_control=true", *args.overrides]
    config = load_config(run.settings, overrides)
    shutil.rmtree(config.run_dir, ignore_errors=True)
    run_ppo(config, sft)
    ray.shutdown()
    systems = {"sft": sft, "shuffled": RunLayout(config.run_dir).last("ppo")}
    scores = {
        system: _radcliq(checkpoint, config, system) for system, checkpoint in systems.items()
    }
    difference, p = paired_bootstrap(
        scores["shuffled"], scores["sft"], resamples=config.evaluation.bootstrap
    )
    print(
        json.dumps(
            {
                "studies": len(scores["sft"]),
                **{
                    f"radcliq_v1_{system}": sum(values) / len(values)
                    for system, values in scores.items()
                },
                "difference": difference.value,
                "interval_95": [difference.low, difference.high],
                "p": p,
            }
        )
    )


def _radcliq(checkpoint: Path, config: Config, system: str) -> list[float]:
    """Return RadCliQ-v1 of the greedy report of every evaluated study."""
    out = RunLayout(config.run_dir).evaluation / f"{system}.json"
    evaluate_checkpoint(checkpoint, prepare_studies(config), config, out)
    lines = out.with_suffix(".reports.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
    return [json.loads(line)["radcliq_v1"] for line in lines]


if __name__ == "__main__":
    main()
