"""Measure the seconds until sampled reports earn a given gain over the SFT model: ours and TRL's.

    python benchmarks/speed/time_to_reward.py --run runs/demo [--seeds 1 2 3] [--gain 0.15]
        [--limit 600] [--out FILE.json] [key=value ...]

All start from the run's SFT model, on the same training studies with the same visual tokens, and
earn the same reward (TRL through lmrrg.rewards.trl, which never charges for a missing end). Ours
has the run's settings, once with its credit of sentences and once without. TRL's GRPO has its own
defaults otherwise, no KL among them, and the run's batches, samples, passes and first learning
rate; it generates with transformers, as on any CPU, and trains the decoder alone, as we do.

The gain of an iteration is the mean reward of its reports minus what the SFT model earned on the
same studies, one report each. The clock stops when the mean gain of the last --window iterations
has reached --gain, or at --limit seconds; ours also at the end of its ppo.iterations. Counted are
iterations, not what a run does once (start, first evaluation, the SFT model's rewards). One
contender runs at a time.

TRL is installed as for ppo_vs_trl.py, into an environment of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from common.stage import CACHE, start_ray
from ppo_vs_trl import Trl
from safetensors.torch import save_file

from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config
from lmrrg.model.checkpoint import load_checkpoint
from lmrrg.run.layout import RunLayout
from rl.study_pool import StudyPool

TRL_VERSION = "1.16.0"
THREADS = 2
"""Of TRL; ours has as many processes as the run's settings say."""
Step = Callable[[], tuple[float, float]]
"""Runs one iteration; returns its seconds and its gain."""


@dataclass(frozen=True)
class Goal:
    """When the clock stops.

    Reached is the goal where the mean gain of ``window`` iterations is ``gain``; given up is it
    after ``limit`` seconds.
    """

    gain: float
    window: int
    limit: float

    def seconds(self, step: Step, iterations: int) -> float | None:
        """Return the seconds until the goal is reached; None: not within limit or iterations."""
        recent: deque[float] = deque(maxlen=self.window)
        spent = 0.0
        for _ in range(iterations):
            seconds, found = step()
            spent += seconds
            recent.append(found)
            if len(recent) == self.window and statistics.fmean(recent) >= self.gain:
                return spent
            if spent > self.limit:
                return None
        return None


class Ours:
    """The project's algorithm, with the SFT model's rewards sampled and no iteration made."""

    def __init__(self, config: Config, checkpoint: Path):
        from rl.trainer import CQRL, CQRLConfig

        self.algorithm = CQRL(CQRLConfig.of(config, checkpoint))
        crew = self.algorithm.crew
        self.algorithm.reference_rewards.complete(
            self.algorithm.sampler.plan(config.ppo.iterations),
            self.algorithm.studies,
            crew.rollouts,
            crew.rewards,
        )

    def step(self) -> tuple[float, float]:
        """Run one iteration."""
        started = time.perf_counter()
        metrics = self.algorithm.training_step()
        seconds = time.perf_counter() - started
        return seconds, metrics["reward"] - metrics["reward_reference"]

    def close(self) -> None:
        """Stop the actors."""
        self.algorithm.stop()


def trl_step(trl: Trl) -> tuple[float, float]:
    """Run one iteration of TRL's."""
    seconds = trl.iteration()
    return seconds, trl.answer["gain"]


def trl_job(config: Config, checkpoint: Path, ours: Ours) -> dict[str, Any]:
    """Return TRL's job: every training study whose SFT reward ours has sampled."""
    algorithm = ours.algorithm
    studies: StudyPool = algorithm.studies
    known = dict(algorithm.reference_rewards.state_dict())
    visits = [index for index, reward in known.items() if reward is not None]
    batch = studies.take(visits)
    folder = CACHE / "time-to-reward"
    folder.mkdir(parents=True, exist_ok=True)
    generator = load_checkpoint(checkpoint).eval()
    with torch.inference_mode():
        visual = generator.visual(batch.features).tokens
    save_file({"visual": visual.contiguous()}, str(folder / "visual.safetensors"))
    ppo = config.ppo
    return {
        "decoder": str(checkpoint / "decoder"),
        "visual": str(folder / "visual.safetensors"),
        "prompts": batch.prompts,
        "references": batch.references,
        "sft_rewards": [known[index] for index in visits],
        "reward": config.reward.model_dump(mode="json"),
        "batch": ppo.rollout_batch,
        "samples": ppo.samples_per_study,
        "minibatch": ppo.minibatch,
        "microbatch": ppo.minibatch,
        "epochs": ppo.epochs,
        "new_tokens": config.rollout.max_new_tokens,
        "learning_rate": ppo.learning_rate,
        "threads": THREADS,
        "bf16": ppo.precision == "bf16",
        "seed": config.seed,
        "folder": str(CACHE / "trl-output"),
    }


def measure(run: RunLayout, overrides: list[str], seed: int, goal: Goal) -> dict[str, float | None]:
    """Return the seconds of every contender with one seed."""
    checkpoint = run.best("sft").resolve()
    found: dict[str, float | None] = {}
    job: dict[str, Any] = {}
    for name, own in (("ours", []), ("ours, credit=last", ["ppo.credit=last"])):
        settings = [f"seed={seed}", f"name=time-{seed}", f"storage_path={CACHE}"]
        # Studies are those of the run; they need a manifest in the new run's folder.
        config = load_config(run.settings, [*overrides, *settings, *own, "ppo.eval_every=1000"])
        manifest = RunLayout(config.run_dir).studies
        manifest.parent.mkdir(parents=True, exist_ok=True)
        manifest.write_bytes(run.studies.read_bytes())
        start_ray(config)
        ours = Ours(config, checkpoint)
        found[name] = goal.seconds(ours.step, config.ppo.iterations)
        job = job or trl_job(config, checkpoint, ours)
        ours.close()
        ray.shutdown()
    trl = Trl(TRL_VERSION, job, "trl_images_worker.py")
    found["TRL GRPO"] = goal.seconds(lambda: trl_step(trl), 10**6)
    trl.close()
    return found


def report(rows: list[dict[str, float | None]], gain: float, limit: float) -> None:
    """Print the seconds of every contender and how often each reached the gain."""
    print(f"seconds to a gain of {gain:g} in sampled reward, within {limit:g} s")
    for name in rows[0]:
        values = [row[name] for row in rows]
        shown = ["not reached" if value is None else f"{value:.0f}" for value in values]
        print(f"{name:20} {', '.join(shown)}")
        pairs = [(row["TRL GRPO"], row[name]) for row in rows]
        ratios = [trl / own for trl, own in pairs if trl is not None and own is not None]
        if ratios and name != "TRL GRPO":
            print(f"{'':20} TRL / {name}: median {statistics.median(ratios):.2f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=Path("runs/demo"), help="finished SFT run")
    parser.add_argument("--seeds", type=int, nargs="+", default=(1, 2, 3))
    parser.add_argument("--gain", type=float, default=0.15, help="reward (default %(default)s)")
    parser.add_argument("--window", type=int, default=5, help="iterations (default %(default)s)")
    parser.add_argument("--limit", type=float, default=600, help="seconds (default %(default)s)")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that win")
    args = parser.parse_intermixed_args()
    run = RunLayout(args.run)
    if not run.best("sft").is_dir():
        raise SystemExit(f"{args.run} has no SFT model; run `python sft/train.py` first")
    goal = Goal(args.gain, args.window, args.limit)
    rows: list[dict[str, float | None]] = []
    for seed in args.seeds:
        rows.append(measure(run, args.overrides, seed, goal))
        print(f"seed {seed}: {rows[-1]}", flush=True)
    report(rows, args.gain, args.limit)
    if args.out:
        args.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
