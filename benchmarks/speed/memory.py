"""Measure host memory over 200 PPO iterations.

The sum of PSS over all processes of the run must not grow.

    python benchmarks/speed/memory.py [--iterations 200] [--out FILE.png]

A tiny decoder and 8 studies, so that an iteration takes about a second. PSS counts what processes
share once: the sum is what the run takes from the machine, the object store included. The first
quarter, in which allocators and caches fill, does not count; a straight line through the rest gives
the growth.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import psutil
from common.pairs import verdict
from common.stage import demo_config, endless_writer, start_ray
from tqdm import tqdm

from lmrrg.config.tree import Config

EVERY = 5
"""Iterations between two readings."""
TINY = (
    "model.extractor_width=32",
    "model.extractor_blocks=1",
    "model.extractor_heads=2",
    "model.decoder.hidden_size=64",
    "model.decoder.heads=2",
    "model.decoder.layers=2",
    "model.decoder.intermediate_size=128",
    "rollout.max_new_tokens=24",
    "rollout.kv_cache_mb=16",
    "rollout.max_sequences=16",
    "ppo.studies_per_iteration=8",
    "ppo.samples_per_study=2",
    "ppo.minibatch=8",
    "ppo.microbatch=4",
    "ppo.eval_studies=8",
    "ppo.resume=false",
)
TARGET_MB = 0.1
"""Growth per iteration that counts as flat: 20 MB over 200 iterations of a run of 3 to 4 GB."""


def pss_mb(process: psutil.Process) -> dict[str, float]:
    """Return the PSS of the process and all its descendants, MB, by kind of process."""
    found: dict[str, float] = {}
    for each in [process, *process.children(recursive=True)]:
        try:
            name = each.name() if each.pid != process.pid else "driver"
            pss = each.memory_full_info().pss / 1e6
        except psutil.NoSuchProcess:
            continue
        kind = name.split(".")[0].split("::")[-1]
        found[kind] = found.get(kind, 0.0) + pss
    return found


def run(config: Config, checkpoint: Path) -> list[tuple[int, dict[str, float]]]:
    """Train, and read memory after every few iterations."""
    import ray

    from rl.trainer import CQRL, CQRLConfig

    start_ray(config)
    algorithm = CQRL(CQRLConfig.of(config, checkpoint))
    here = psutil.Process()
    readings = []
    try:
        for number in tqdm(range(1, config.ppo.iterations + 1), desc="PPO", unit="iteration"):
            algorithm.step()
            if number % EVERY == 0:
                readings.append((number, pss_mb(here)))
    finally:
        algorithm.stop()
        ray.shutdown()
    return readings


def growth(iterations: np.ndarray, megabytes: np.ndarray) -> float:
    """Return the slope, MB per iteration, of the straight line after the first quarter."""
    kept = iterations > iterations[-1] / 4
    return float(np.polyfit(iterations[kept], megabytes[kept], 1)[0])


def plot(readings: list[tuple[int, dict[str, float]]], path: Path) -> None:
    """Draw the total and the largest kinds of processes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    steps = [number for number, _ in readings]
    axes.plot(
        steps, [sum(kinds.values()) for _, kinds in readings], label="all processes", linewidth=2
    )
    last = readings[-1][1]
    for kind in sorted(last, key=last.__getitem__, reverse=True)[:5]:
        axes.plot(steps, [kinds.get(kind, 0.0) for _, kinds in readings], label=kind)
    axes.set(xlabel="iteration", ylabel="PSS, MB", ylim=(0, None))
    axes.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--iterations", type=int, default=200, help="PPO iterations (default %(default)s)"
    )
    parser.add_argument("--out", type=Path, help="draw the readings into this PNG file")
    args = parser.parse_args()
    config = demo_config("memory", *TINY, f"ppo.iterations={args.iterations}", studies=16)
    readings = run(config, endless_writer(config))
    print(f"{'iteration':>9} {'all, MB':>9}  largest kinds of processes, MB")
    for number, kinds in readings[:: max(1, len(readings) // 10)] + readings[-1:]:
        top = sorted(kinds.items(), key=lambda item: -item[1])[:8]
        print(
            f"{number:9} {sum(kinds.values()):9.0f}  "
            + ", ".join(f"{kind} {size:.0f}" for kind, size in top)
        )
    steps = np.array([number for number, _ in readings], float)
    for kind in [
        "all",
        *sorted(readings[-1][1], key=readings[-1][1].__getitem__, reverse=True)[:8],
    ]:
        sizes = np.array(
            [sum(k.values()) if kind == "all" else k.get(kind, 0.0) for _, k in readings]
        )
        print(f"growth of {kind}: {growth(steps, sizes):+.3f} MB per iteration")
    total = growth(steps, np.array([sum(kinds.values()) for _, kinds in readings]))
    print(verdict("growth, MB per iteration", total, at_most=TARGET_MB))
    if args.out:
        plot(readings, args.out)


if __name__ == "__main__":
    main()
