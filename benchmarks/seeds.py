"""Train SFT and PPO with several seeds, and show what PPO changes on every run.

    python benchmarks/seeds.py --config configs/demo.yaml [key=value ...]

Every SFT seed draws its own phantoms and trains its own model. Every PPO seed starts from it with
its own order of studies and samples. Evaluated are the last policies, never a mixture, with greedy
reports on the test studies of their SFT model's run, which neither stage has seen. Prints one line
per run, differences from its SFT model, and mean and range over all runs; writes them into
<storage>/<name>_seeds/seeds.json. Runs that are there already are not made again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config
from lmrrg.evaluation.evaluate import evaluate_checkpoint, read_results
from lmrrg.files import atomic_writer
from lmrrg.run.layout import RunLayout
from lmrrg.run.tracking import read_metrics

COLUMNS = {
    "radcliq_v1": "RadCliQ",
    "micro_f1_14_uncertain_positive": "micro F1",
    "distinct_ratio": "distinct",
    "incoherent": "incoherent",
    "changed_other": "changed by image",
}
"""Metric of the evaluation -> title of its column; those that a run has not are left out."""
KL_ITERATIONS = 5
"""Iterations at the end whose KL is averaged."""


def main() -> None:
    """Train and evaluate what is missing, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=Path("configs/demo.yaml"))
    parser.add_argument("--sft-seeds", type=int, nargs="+", default=(7, 11))
    parser.add_argument("--ppo-seeds", type=int, nargs="+", default=(1, 2, 3, 4, 5))
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that win")
    args = parser.parse_intermixed_args()
    base = load_config(args.config, args.overrides)
    folder = base.storage_path.resolve() / f"{base.name}_seeds"
    rows = []
    for sft_seed in args.sft_seeds:
        own = [f"storage_path={folder}", f"name=sft-{sft_seed}", f"seed={sft_seed}"]
        sft = load_config(args.config, [*args.overrides, *own])
        _train("sft/train.py", args.config, [*args.overrides, *own], sft)
        start = _metrics(RunLayout(sft.run_dir).best("sft"), sft)
        print(f"SFT seed {sft_seed}: {_line(start)}", flush=True)
        for ppo_seed in args.ppo_seeds:
            name = f"ppo-{sft_seed}-{ppo_seed}"
            own = [f"storage_path={folder}", f"name={name}", f"seed={ppo_seed}", "ppo.mixtures=[]"]
            overrides = [*args.overrides, *own]
            ppo = load_config(args.config, overrides)
            checkpoint = str(RunLayout(sft.run_dir).best("sft"))
            _train("rl/ppo.py", args.config, ["--sft-checkpoint", checkpoint, *overrides], ppo)
            end = _metrics(RunLayout(ppo.run_dir).last("ppo"), sft)
            change = {metric: end[metric] - start[metric] for metric in end}
            change["kl"] = _last_kl(ppo)
            rows.append({"sft_seed": sft_seed, "ppo_seed": ppo_seed, **change})
            print(f"  PPO seed {ppo_seed}: {_line(change)}", flush=True)
    _print_summary(rows)
    with atomic_writer(folder / "seeds.json") as out:
        json.dump({"settings": args.overrides, "runs": rows}, out, indent=2)


def _train(script: str, config_file: Path, arguments: list[str], config: Config) -> None:
    """Run a stage in a process of its own; a finished run ends at once."""
    log = config.run_dir.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, script, "--config", str(config_file), *arguments]
    with log.open("ab") as out:
        if subprocess.run(command, stdout=out, stderr=subprocess.STDOUT).returncode:
            raise SystemExit(f"a run failed, see {log}")


def _metrics(checkpoint: Path, data: Config) -> dict[str, float]:
    """Return the metrics of a model on the test studies of the run ``data``."""
    out = data.run_dir.parent / "evaluation" / f"{checkpoint.parent.parent.name}.json"
    if out.is_file():
        results = read_results(out)
    else:
        results = evaluate_checkpoint(checkpoint, RunLayout(data.run_dir).studies, data, out)
    metrics: dict[str, Any] = results["systems"][0]["metrics"]
    return {name: metrics[name]["value"] for name in COLUMNS if name in metrics}


def _last_kl(ppo: Config) -> float:
    """Return the KL to the SFT model at the end of a run, nats per report."""
    last = read_metrics(ppo.run_dir, "ppo")[-KL_ITERATIONS:]
    return float(np.mean([line["kl_per_sequence"] for line in last]))


def _line(values: dict[str, float]) -> str:
    cells = [f"{COLUMNS.get(name, name)} {value:+.3f}" for name, value in values.items()]
    return ", ".join(cells)


def _print_summary(rows: list[dict[str, float]]) -> None:
    print(f"\nall {len(rows)} runs: mean (lowest to highest)")
    for name in rows[0]:
        if not name.endswith("seed"):
            values = [row[name] for row in rows]
            print(
                f"  {COLUMNS.get(name, name):18}{np.mean(values):+.3f} "
                f"({min(values):+.3f} to {max(values):+.3f})"
            )


if __name__ == "__main__":
    main()
