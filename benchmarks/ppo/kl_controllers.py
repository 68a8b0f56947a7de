"""Compare the controllers of lambda_KL with Ray Tune.

One trial for each controller, from the same SFT model, studies and seed.

    make demo && python benchmarks/ppo/kl_controllers.py --run runs/demo [ppo.iterations=20]

Every trial is the RLlib algorithm of `rl/ppo.py` (`rl.trainer.CQRL`) as Tune runs any algorithm;
its actors reserve their places beside the trial's, so a cluster with room for more runs more trials
at once (`--concurrent`). Prints one JSON line per controller with the means over the last
iterations: reward, KL (nats per report), lambda, the held-out metric of the best model, seconds.
Tune's own results and checkpoints are in <storage>/<run>_kl/tune.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import ray
from ray import tune

from actors.placement import connect
from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config
from lmrrg.run.layout import RunLayout
from lmrrg.run.studies import prepare_studies
from rl.trainer import CQRL

CONTROLLERS = ("reward", "target", "rllib")
LAST = 5
"""Iterations at the end of a trial whose means are printed."""


def main() -> None:
    """Run the sweep and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run",
        type=Path,
        default=Path("runs/demo"),
        help="finished run whose SFT model is the start",
    )
    parser.add_argument(
        "--concurrent", type=int, default=1, help="trials at a time (default: %(default)s)"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings that win over the run's"
    )
    args = parser.parse_intermixed_args()
    sft = RunLayout(args.run).best("sft").resolve()
    if not sft.is_dir():
        raise SystemExit(f"{args.run} has no SFT model; run `make demo` first")
    overrides = ["ppo.iterations=20", "ppo.value_warmup_iterations=1", *args.overrides]
    configs = [_trial(args.run, controller, overrides) for controller in CONTROLLERS]
    connect(configs[0].ray)
    results = sweep(configs, sft, args.concurrent)
    ray.shutdown()
    for row in results:
        print(json.dumps(row))


def sweep(configs: list[Config], sft: Path, concurrent: int) -> list[dict[str, Any]]:
    """Run one trial for each configuration, and return a row of results for each, in their order.

    Raises:
        RuntimeError: a trial failed.
    """
    folder = configs[0].run_dir.parent / "tune"
    grid = tune.Tuner(
        CQRL,
        param_space={
            "settings": tune.grid_search([config.model_dump(mode="json") for config in configs]),
            "sft_checkpoint": str(sft),
        },
        tune_config=tune.TuneConfig(max_concurrent_trials=concurrent),
        run_config=tune.RunConfig(
            name="kl",
            storage_path=str(folder),
            stop={"training_iteration": configs[0].ppo.iterations},
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True, num_to_keep=1),
            verbose=1,
        ),
    ).fit()
    if grid.errors:
        raise RuntimeError(f"{len(grid.errors)} of {len(configs)} trials failed: {grid.errors[0]}")
    return [_row(result) for result in grid]


def _trial(run: Path, controller: str, overrides: list[str]) -> Config:
    """Return the run's configuration with another controller, its studies prepared."""
    base = load_config(RunLayout(run).settings, overrides)
    folder = (base.storage_path / f"{run.name}_kl").resolve()
    config = load_config(
        RunLayout(run).settings,
        [
            *overrides,
            f"storage_path={folder}",
            f"name={controller}",
            f"ppo.kl.controller={controller}",
        ],
    )
    prepare_studies(config)
    return config


def _row(result: tune.Result) -> dict[str, Any]:
    assert result.config is not None
    assert result.metrics_dataframe is not None
    history = result.metrics_dataframe
    last = {
        name: float(history[f"cqrl/{name}"].tail(LAST).mean())
        for name in ("reward", "kl_per_sequence")
    }
    return {
        "controller": result.config["settings"]["ppo"]["kl"]["controller"],
        "iterations": len(history),
        **last,
        "kl_coefficient_first": float(history["cqrl/kl_coefficient"].iloc[0]),
        "kl_coefficient_last": float(history["cqrl/kl_coefficient"].iloc[-1]),
        "heldout_best": float(history["cqrl/heldout_best"].dropna().iloc[-1]),
        "seconds": float(history["time_total_s"].iloc[-1]),
    }


if __name__ == "__main__":
    main()
