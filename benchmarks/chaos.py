"""Kill the processes of a PPO run at random, and check that nothing was lost or used twice.

    python benchmarks/chaos.py --sft-checkpoint runs/demo/sft/best --minutes 30 \\
        name=chaos ppo.iterations=200

Every few seconds one of: SIGKILL of a scorer, an engine, the reference, a policy rank; SIGKILL of
the driver; SIGTERM to the driver (a notice of preemption). A driver that is gone is started again
with the same command, as a job manager would. Afterwards the metrics must hold every iteration
once, versions of the weights that never go back, and parity within tolerance.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config
from lmrrg.run.tracking import read_metrics

ACTORS = ("RewardActor", "RolloutActor", "ReferenceWorker", "PolicyWorker")
DRIVER = {"driver killed": signal.SIGKILL, "driver preempted": signal.SIGTERM}


def main() -> int:
    """Run the command line; exit code 1 where the run did not survive whole."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config",
        default="configs/demo.yaml",
        help="YAML file with settings (default: %(default)s)",
    )
    parser.add_argument(
        "--sft-checkpoint", type=Path, required=True, help="model directory to start from"
    )
    parser.add_argument("--minutes", type=float, default=30, help="how long processes are killed")
    parser.add_argument(
        "--every",
        type=float,
        nargs=2,
        default=(15, 60),
        metavar="S",
        help="shortest and longest pause",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the accidents")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_intermixed_args()
    overrides = [*args.overrides, "ppo.checkpoint_every=1", "ppo.max_restarts=10"]
    command = [
        sys.executable,
        "rl/ppo.py",
        "--config",
        args.config,
        "--sft-checkpoint",
        str(args.sft_checkpoint),
    ]
    config = load_config(args.config, overrides)
    accidents = torment(
        [*command, *overrides],
        config,
        args.minutes * 60,
        tuple(args.every),
        random.Random(args.seed),
    )
    return summarise(config, accidents)


def torment(
    command: list[str],
    config: Config,
    seconds: float,
    pause: tuple[float, float],
    dice: random.Random,
) -> collections.Counter[str]:
    """Run ``command``, kill for ``seconds``, then let it finish; return the count of each accident.

    A driver that ends early is started again with the same command, as a job manager would do.
    """
    done: collections.Counter[str] = collections.Counter()
    end = time.monotonic() + seconds
    log = config.run_dir.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        driver = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        for choice in itertools.count():
            try:
                code = driver.wait(dice.uniform(*pause))
            except subprocess.TimeoutExpired:
                if time.monotonic() < end:
                    done[_accident(driver, dice)] += 1
                continue
            if code == 0 and len(read_metrics(config.run_dir, "ppo")) > config.ppo.iterations:
                return done
            print(f"start {choice}: the driver ended with {code}; starting it again", flush=True)
            done["driver started again"] += 1
            driver = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    return done


def _accident(driver: subprocess.Popen, dice: random.Random) -> str:
    """Kill or preempt one process at random, and return what was done."""
    # Each kind of actor is listed twice: a driver that starts again costs a minute.
    what = dice.choice([*ACTORS, *ACTORS, *DRIVER])
    if what in DRIVER:
        _end(driver.pid, DRIVER[what])
        return what
    victims = [
        p
        for p in psutil.Process(driver.pid).children(recursive=True)
        if f"ray::{what}" in _title(p)
    ]
    if not victims:
        return f"{what} not there"
    _end(dice.choice(victims).pid, signal.SIGKILL)
    return f"{what} killed"


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def _end(pid: int, how: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):  # it ended by itself
        psutil.Process(pid).send_signal(how)


def summarise(config: Config, accidents: collections.Counter[str]) -> int:
    """Print the outcome, and return 1 where something is wrong with the metrics."""
    # The first line is the SFT model, before any iteration.
    lines = read_metrics(config.run_dir, "ppo")[1:]
    steps = [line["step"] for line in lines]
    versions = [line["weights_version"] for line in lines]
    recoveries = sorted(line["recovery_s"] for line in lines if line["recovery_s"] > 0)
    print("accidents:", ", ".join(f"{what}: {count}" for what, count in sorted(accidents.items())))
    median = recoveries[len(recoveries) // 2] if recoveries else 0.0
    longest = recoveries[-1] if recoveries else 0.0
    times = f"median {median:.0f} s, longest {longest:.0f} s"
    print(f"recoveries within a driver: {len(recoveries)}, {times}")
    print(f"parity: largest mean {max(line['parity'] for line in lines):.2g} nats")
    faults = {
        "an iteration is missing or there twice": steps
        != list(range(1, config.ppo.iterations + 1)),
        "weights went back": versions != sorted(versions),
        "parity broken": any(line["parity"] > config.parity_tolerance for line in lines),
    }
    found = [name for name, wrong in faults.items() if wrong]
    print(
        "every iteration once, weights never back, parity kept"
        if not found
        else f"WRONG: {', '.join(found)}"
    )
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
