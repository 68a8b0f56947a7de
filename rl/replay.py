"""Replay the dumped rollouts of a run: score them anew, or learn from them without sampling.

    python rl/replay.py --config runs/demo/config.yaml
    python rl/replay.py --config runs/demo/config.yaml --train --out runs/demo/replayed

The first form prints how far today's rewards are from those of the run: 0 unless the scorer has
changed. The second one repeats the updates in their order from the SFT model and writes the policy;
with a dump of every iteration (``ppo.dump_every=1``) that is the policy of the run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import ray

from actors.placement import connect
from actors.policy import PolicyGroup
from actors.reward import RewardPool
from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config
from lmrrg.errors import run_command
from lmrrg.metrics.reward import RewardScores
from lmrrg.ppo.schedule import policy_learning_rate
from lmrrg.progress import progress_bar
from lmrrg.run.layout import RunLayout
from rl.crew import policy_settings
from rl.storage.rollout_files import DumpedRollout, read_rollouts
from rl.study_pool import stream_seed


def rescore(config: Config, rollouts: Sequence[DumpedRollout]) -> list[RewardScores]:
    """Return the rewards of the dumped reports by today's scorers, rollout by rollout."""
    pool = RewardPool(config.reward, threads=config.threads)
    try:
        pool.start()
        scores = []
        for rollout in progress_bar(rollouts, desc="scoring", unit="rollout"):
            rows = rollout.rows
            scores.append(
                pool.score(
                    [row["report"] for row in rows],
                    [row["reference"] for row in rows],
                    [row["token_ids"] for row in rows],
                    [row["finished"] for row in rows],
                )
            )
        return scores
    finally:
        pool.close()


def retrain(config: Config, rollouts: Sequence[DumpedRollout], sft: Path, out: Path) -> None:
    """Repeat the updates in their order, from the SFT model, and write the policy into ``out``."""
    policy = PolicyGroup(policy_settings(config), sft)
    try:
        policy.start()
        for rollout in progress_bar(rollouts, desc="learning", unit="rollout"):
            # Files are numbered from 1, the schedule and the seeds of a run from 0.
            iteration = rollout.iteration - 1
            policy.update(
                rollout.experience,
                seed=stream_seed(config.seed, "minibatches", iteration),
                learning_rate=policy_learning_rate(config.ppo, iteration),
            )
        policy.save_model(out, {"stage": "replay", "iteration": rollouts[-1].iteration})
    finally:
        policy.close()


def report_changes(rollouts: Sequence[DumpedRollout], scores: Sequence[RewardScores]) -> float:
    """Print how far each rollout's rewards are from the dumped ones; return the largest difference.

    Reports that had no score, or have none now, are counted instead.
    """
    largest = 0.0
    for rollout, now in zip(rollouts, scores, strict=True):
        then = np.array([row["reward"] for row in rollout.rows], dtype=float)
        has_both = np.isfinite(then) & now.valid
        difference = float(np.abs(now.reward - then)[has_both].max(initial=0.0))
        unscored = int((~has_both).sum())
        print(
            f"iteration {rollout.iteration}: largest difference {difference:.3g}, "
            f"{unscored} without a score"
        )
        largest = max(largest, difference)
    return largest


def main(argv: list[str] | None = None) -> int:
    """Run the command line; bad input ends with one sentence and exit code 2."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="the run's config.yaml")
    parser.add_argument(
        "--train", action="store_true", help="learn from the rollouts instead of scoring them"
    )
    parser.add_argument(
        "--sft-checkpoint",
        type=Path,
        help="model directory to start from (default: <run>/sft/best)",
    )
    parser.add_argument(
        "--out", type=Path, help="model directory to write (default: <run>/ppo/replayed)"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings that win over the file's"
    )
    args = parser.parse_intermixed_args(argv)
    try:
        return run_command("replay", lambda: _run(args))
    finally:
        ray.shutdown()


def _run(args: argparse.Namespace) -> int:
    config = load_config(args.config, args.overrides)
    layout = RunLayout(config.run_dir)
    rollouts = read_rollouts(layout.ppo_rollouts)
    connect(config.ray)
    if args.train:
        sft = (args.sft_checkpoint or layout.best("sft")).resolve()
        out = (args.out or layout.ppo_replayed).resolve()
        retrain(config, rollouts, sft, out)
    else:
        report_changes(rollouts, rescore(config, rollouts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
