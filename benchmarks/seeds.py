"""Train SFT and PPO with several seeds, and show what PPO changes on every run.

    python benchmarks/seeds.py --config configs/demo.yaml [--minutes 60] [key=value ...]

Every SFT seed draws its own phantoms and trains its own model. Every PPO seed starts from it with
its own order of studies and samples. Evaluated are the last policies, never a mixture, with greedy
reports on the test studies of their SFT model's run, which neither stage has seen.

Prints a table with a line for each run: differences from its SFT model, RadCliQ's with the 95%
interval of a paired bootstrap over the studies, and which of :data:`GUARDS` fail; then mean and
range over all runs. The same goes into <storage>/<name>_seeds/seeds.json and seeds.md after every
run. The same command continues where it was stopped: what is trained and evaluated is not made
again. --minutes: no run begins later than that; --table: nothing is trained, and the table shows
what is there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config
from lmrrg.evaluation.evaluate import evaluate_checkpoint, read_results
from lmrrg.evaluation.rows import signed
from lmrrg.files import atomic_writer, directory_hash
from lmrrg.metrics.bootstrap import paired_bootstrap
from lmrrg.run.layout import RunLayout
from lmrrg.run.tracking import read_metrics

F1 = "micro_f1_14_uncertain_positive"
KL_ITERATIONS = 5
"""Iterations at the end whose KL is averaged."""

Row = dict[str, float]
"""What one run changes, by the names of :data:`COLUMNS`, with its two seeds."""

COLUMNS = {
    "radcliq": "RadCliQ − SFT (95% interval)",
    "f1": "micro F1 − SFT",
    "distinct": "distinct, of SFT's",
    "incoherent": "incoherent − SFT",
    "image": "changed by another image − SFT",
    "kl": "KL, nats",
}
GUARDS: dict[str, Callable[[Row], bool]] = {
    "RadCliQ below SFT": lambda row: row["radcliq"] < 0,
    "F1 above SFT": lambda row: row["f1"] > 0,
    "distinct at least 0.9 of SFT's": lambda row: row["distinct"] >= 0.9,
    "incoherent at most 1 point more": lambda row: row["incoherent"] <= 0.01 + 1e-9,
    "changed by another image at most 2 points less": lambda row: row["image"] >= -0.02 - 1e-9,
}
"""What every run must show, by name."""


def main() -> None:
    """Train and evaluate what is missing, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=Path("configs/demo.yaml"))
    parser.add_argument("--sft-seeds", type=int, nargs="+", default=(7, 11))
    parser.add_argument("--ppo-seeds", type=int, nargs="+", default=(1, 2, 3, 4, 5))
    parser.add_argument("--minutes", type=float, help="begin no run later than this")
    parser.add_argument("--table", action="store_true", help="train nothing, show what is there")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that win")
    args = parser.parse_intermixed_args()
    deadline = time.monotonic() + 60 * (args.minutes or float("inf"))
    sweep = Sweep(args.config, args.overrides, may_train=not args.table)
    rows: list[Row] = []
    for sft_seed in args.sft_seeds:
        for ppo_seed in args.ppo_seeds:
            if time.monotonic() > deadline:
                break
            row = sweep.row(sft_seed, ppo_seed)
            if row is not None:
                rows.append(row)
                sweep.write(rows)
    if not rows:
        raise SystemExit("no run is finished")
    print(table(rows))
    wanted = len(args.sft_seeds) * len(args.ppo_seeds)
    if len(rows) < wanted:
        print(f"\n{len(rows)} of {wanted} runs; the same command makes the others")


class Sweep:
    """The runs of all seeds in one folder.

    Args:
        config_file: settings of all runs.
        overrides: settings that win over the file's.
        may_train: whether what is missing is trained.
    """

    def __init__(self, config_file: Path, overrides: Sequence[str], *, may_train: bool):
        self._file = config_file
        self._overrides = list(overrides)
        self._may_train = may_train
        base = load_config(config_file, overrides)
        self._folder = base.storage_path.resolve() / f"{base.name}_seeds"

    def row(self, sft_seed: int, ppo_seed: int) -> Row | None:
        """Return what the run of two seeds changes; None where it is not there."""
        sft_settings = self._settings(f"sft-{sft_seed}", sft_seed)
        sft = load_config(self._file, sft_settings)
        start = RunLayout(sft.run_dir).best("sft")
        if not self._trained("sft/train.py", [], sft_settings, sft, start):
            return None
        ppo_settings = [*self._settings(f"ppo-{sft_seed}-{ppo_seed}", ppo_seed), "ppo.mixtures=[]"]
        ppo = load_config(self._file, ppo_settings)
        end = RunLayout(ppo.run_dir).last("ppo")
        own = ["--sft-checkpoint", str(start)]
        if not self._trained("rl/ppo.py", own, ppo_settings, ppo, end):
            return None
        change = difference(self._evaluated(start, sft), self._evaluated(end, sft), sft)
        return {"sft_seed": sft_seed, "ppo_seed": ppo_seed, **change, "kl": last_kl(ppo)}

    def write(self, rows: Sequence[Row]) -> None:
        """Write the rows so far, and the table."""
        with atomic_writer(self._folder / "seeds.json") as out:
            json.dump({"settings": self._overrides, "runs": rows}, out, indent=2)
        with atomic_writer(self._folder / "seeds.md") as out:
            out.write(table(rows) + "\n")

    def _settings(self, name: str, seed: int) -> list[str]:
        return [*self._overrides, f"storage_path={self._folder}", f"name={name}", f"seed={seed}"]

    def _trained(
        self, script: str, own: list[str], settings: list[str], config: Config, model: Path
    ) -> bool:
        """Train in a process of its own; a finished run ends at once. Return whether it is there.

        With ``may_train`` off a run counts as there where its model and all iterations are.
        """
        if not self._may_train:
            done = len(read_metrics(config.run_dir, "ppo")) > config.ppo.iterations
            return model.is_dir() and (done or script == "sft/train.py")
        log = config.run_dir.with_suffix(".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, script, "--config", str(self._file), *own, *settings]
        print(f"{config.name}: {script}, see {log}", file=sys.stderr, flush=True)
        with log.open("ab") as out:
            if subprocess.run(command, stdout=out, stderr=subprocess.STDOUT).returncode:
                raise SystemExit(f"a run failed, see {log}; the same command continues")
        return True

    def _evaluated(self, checkpoint: Path, data: Config) -> Path:
        """Return the results of a model on the test studies of the run ``data``."""
        out = self._folder / "evaluation" / f"{checkpoint.parent.parent.name}.json"
        if out.is_file():
            evaluated = read_results(out)["systems"][0]["checkpoint"]["sha256"]
            if evaluated == directory_hash(checkpoint):
                return out
        evaluate_checkpoint(checkpoint, RunLayout(data.run_dir).studies, data, out)
        return out


def difference(start: Path, end: Path, config: Config) -> Row:
    """Return what the metrics of two results files differ by, RadCliQ's with its interval."""
    old = metrics(start)
    new = metrics(end)
    before = radcliq_by_study(start)
    after = radcliq_by_study(end)
    interval, _ = paired_bootstrap(
        [after[study] for study in before],
        list(before.values()),
        resamples=config.evaluation.bootstrap,
    )
    return {
        "radcliq": interval.value,
        "radcliq_low": interval.low,
        "radcliq_high": interval.high,
        "f1": new[F1] - old[F1],
        "distinct": new["distinct_ratio"] / old["distinct_ratio"],
        # Both count coherent reports.
        "incoherent": old["coherence"] - new["coherence"],
        "image": new["changed_other"] - old["changed_other"],
    }


def metrics(results: Path) -> dict[str, float]:
    """Return the values of all metrics of the only system in a results file."""
    found: dict[str, Any] = read_results(results)["systems"][0]["metrics"]
    return {name: metric["value"] for name, metric in found.items()}


def radcliq_by_study(results: Path) -> dict[str, float]:
    """Return RadCliQ of every report beside a results file, by the id of its study."""
    # Not splitlines(): a report may hold other characters at which that splits.
    lines = results.with_suffix(".reports.jsonl").read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line]
    return {row["id"]: row["radcliq_v1"] for row in rows}


def last_kl(ppo: Config) -> float:
    """Return the KL to the SFT model at the end of a run, nats per report."""
    last = read_metrics(ppo.run_dir, "ppo")[-KL_ITERATIONS:]
    return float(np.mean([line["kl_per_sequence"] for line in last]))


def table(rows: Sequence[Row]) -> str:
    """Return the runs as a Markdown table, and below it mean and range and the guards."""
    head = ["SFT seed", "PPO seed", *COLUMNS.values(), "fails"]
    lines = [_line(head), _line(["---"] * len(head))]
    for row in rows:
        seeds = [f"{row['sft_seed']:g}", f"{row['ppo_seed']:g}"]
        lines.append(_line([*seeds, *_cells(row), "; ".join(failed(row)) or "–"]))
    means: list[str] = []
    for name in COLUMNS:
        values = [row[name] for row in rows]
        plus = name not in ("distinct", "kl")
        low, mean, high = (
            signed(value, plus=plus) for value in (min(values), float(np.mean(values)), max(values))
        )
        means.append(f"{mean} ({low} to {high})")
    lines.append(_line(["all", "mean (range)", *means, ""]))
    lines.append("")
    for name, holds in GUARDS.items():
        lines.append(f"- {name}: {sum(map(holds, rows))} of {len(rows)} runs")
    return "\n".join(lines)


def failed(row: Row) -> list[str]:
    """Return the names of the guards that a run fails."""
    return [name for name, holds in GUARDS.items() if not holds(row)]


def _cells(row: Row) -> list[str]:
    interval = (
        f"{signed(row['radcliq_low'], plus=True)} to {signed(row['radcliq_high'], plus=True)}"
    )
    return [
        f"{signed(row['radcliq'], plus=True)} ({interval})",
        signed(row["f1"], plus=True),
        signed(row["distinct"]),
        signed(row["incoherent"], plus=True),
        signed(row["image"], plus=True),
        signed(row["kl"], 1),
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
