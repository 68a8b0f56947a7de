"""Draw learning curves of PPO's choices on a run's data.

Compared are the controllers of lambda_KL, rollouts ahead, and PPO beside RLOO and GRPO.

    make demo && python benchmarks/ppo/learning_curves.py --run runs/demo [ppo.iterations=40]

Every variant starts from the same SFT model, once for each seed. A seed means its own phantoms
(where the run has some), order of studies and samples, shared by all variants, so their differences
are within a seed. Prints one line per variant: changes from the SFT model under greedy decoding on
the validation studies, mean over seeds (lowest to highest). Draws the curves into
<storage>/<run>_curves/curves.png. Runs that are there already are not made again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config
from lmrrg.run.layout import RunLayout
from lmrrg.run.tracking import read_metrics

VARIANTS: dict[str, tuple[str, ...]] = {
    "PPO, reward controller": (),
    "PPO, target controller": ("ppo.kl.controller=target",),
    "PPO, rllib controller": ("ppo.kl.controller=rllib",),
    "PPO, rollouts ahead": ("ppo.rollout_ahead=true",),
    "RLOO": ("ppo.algorithm=rloo",),
    "GRPO": ("ppo.algorithm=grpo",),
}
LENGTH = ("ppo.iterations=15", "ppo.eval_every=5", "ppo.eval_studies=200", "ppo.mixtures=[]")
STUDIES = ("data.phantom.train=400", "data.phantom.val=200", "data.phantom.test=1")
CHANGES = ("heldout", "heldout_reward", "heldout_distinct_ratio")
LAST = 5
"""Iterations at the end whose sampled rewards and KL are averaged."""

History = list[dict[str, float]]


def main() -> None:
    """Train what is missing, print the table and draw the curves."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run",
        type=Path,
        default=Path("runs/demo"),
        help="finished run whose SFT model is the start",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=(1, 2, 3), help="default: 1 2 3")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings that win over the run's"
    )
    args = parser.parse_intermixed_args()
    sft = RunLayout(args.run).best("sft").resolve()
    if not sft.is_dir():
        raise SystemExit(f"{args.run} has no SFT model; run `make demo` first")
    folder = (
        load_config(RunLayout(args.run).settings, args.overrides).storage_path.resolve()
        / f"{args.run.name}_curves"
    )
    histories: dict[str, list[History]] = {name: [] for name in VARIANTS}
    for seed in args.seeds:  # seed by seed: an interrupted sweep still compares all variants
        for name in VARIANTS:
            own = [f"storage_path={folder}", f"name={_slug(name)}-{seed}", f"seed={seed}"]
            overrides = [*LENGTH, *STUDIES, *VARIANTS[name], *args.overrides, *own]
            histories[name].append(_history(RunLayout(args.run).settings, overrides, sft))
        print(f"seed {seed} is done", flush=True)
    _table(histories)
    _draw(
        histories,
        folder / "curves.png",
        f"{args.run.name}, seeds {', '.join(map(str, args.seeds))}: mean and range",
    )


def _history(config_file: Path, overrides: list[str], sft: Path) -> History:
    """Return the metrics of a run, line 0 the SFT model's; it is trained now unless it is there."""
    config: Config = load_config(config_file, overrides)
    command = [
        sys.executable,
        "rl/ppo.py",
        "--config",
        str(config_file),
        "--sft-checkpoint",
        str(sft),
        *overrides,
    ]
    log = config.run_dir.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:  # a finished run ends at once
        if subprocess.run(command, stdout=out, stderr=subprocess.STDOUT).returncode:
            raise SystemExit(f"a run failed, see {log}")
    return read_metrics(config.run_dir, "ppo")


def _table(histories: dict[str, list[History]]) -> None:
    columns = ("held-out F1", "greedy reward", "distinct", "sampled reward", "KL, nats", "lambda")
    print(f"{'':24}" + "".join(f"{column:>26}" for column in columns))
    for name, runs in histories.items():
        rows = np.array([_row(run) for run in runs])
        cells = [f"{row.mean():+.3f} ({row.min():+.3f} to {row.max():+.3f})" for row in rows.T]
        print(f"{name:24}" + "".join(f"{cell:>26}" for cell in cells))
    first = next(iter(histories))
    print(f"\nbeside '{first}' of the same seed: greedy reward, held-out F1")
    for name, runs in histories.items():
        if name != first:
            pairs = [
                np.subtract(_row(run), _row(base))
                for run, base in zip(runs, histories[first], strict=True)
            ]
            values = "  ".join(f"{pair[1]:+.3f} {pair[0]:+.3f}" for pair in pairs)
            print(f"{name:24}{values}")


def _row(run: History) -> list[float]:
    evaluated = [line for line in run if "heldout" in line]
    changes = [evaluated[-1][name] - evaluated[0][name] for name in CHANGES]
    last = run[-LAST:]
    sampled = _mean(last, "reward") - _mean(run[1 : 1 + LAST], "reward")
    return [*changes, sampled, _mean(last, "kl_per_sequence"), _mean(last, "kl_coefficient")]


def _mean(run: History, name: str) -> float:
    return float(np.mean([line[name] for line in run]))


def _draw(histories: dict[str, list[History]], path: Path, title: str) -> None:
    """Draw the mean of the seeds, and their range as a band."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(14, 4.2))
    panels = (
        ("reward", "reward of the samples"),
        ("heldout_reward", "greedy reward, validation"),
        ("heldout", "held-out F1"),
    )
    for axis, (metric, label) in zip(axes, panels, strict=True):
        for name, runs in histories.items():
            steps = _values(runs[0], metric, "step")
            values = np.array([_values(run, metric, metric) for run in runs])
            axis.plot(steps, values.mean(axis=0), label=name)
            axis.fill_between(steps, values.min(axis=0), values.max(axis=0), alpha=0.08)
        axis.set(xlabel="iteration", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize="small")
    figure.suptitle(f"{title}. Research use only, not for diagnosis.", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def _values(run: History, metric: str, field: str) -> list[float]:
    """Return ``field`` of the iterations that have ``metric``: not all are evaluated."""
    return [line[field] for line in run if metric in line]


def _slug(name: str) -> str:
    return name.lower().replace(",", "").replace(" ", "-")


if __name__ == "__main__":
    main()
