"""Go through the dumped rollouts of a run again: score them anew, and learn from them without sampling.

    python rl/replay.py --config runs/demo/config.yaml
    python rl/replay.py --config runs/demo/config.yaml --train --out runs/demo/replayed

The first form tells how far today's rewards are from those of the run: 0 unless the scorer has changed. The second one
repeats the updates in their order from the SFT model and writes the policy; with a dump of every iteration
(``ppo.dump_every=1``) that is the policy of the run.
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
from rl.storage.rollout_files import DumpedRollout, read_rollouts
from rl.study_pool import stream_seed


def rescore(config: Config, rollouts: Sequence[DumpedRollout]) -> list[RewardScores]:
    """Rewards of the dumped reports by the scorers of ``config``, rollout by rollout."""
    pool = RewardPool(config)
    try:
        pool.start()
        return [
            pool.score(
                *(
                    [row[name] for row in rollout.rows]
                    for name in ("report", "reference", "token_ids", "finished")
                )
            )
            for rollout in progress_bar(rollouts, desc="scoring", unit="rollout")
        ]
    finally:
        pool.close()


def retrain(config: Config, rollouts: Sequence[DumpedRollout], sft: Path, out: Path) -> None:
    """Repeat the updates in their order, from the SFT model, and write the policy into ``out``."""
    policy = PolicyGroup(config, sft)
    try:
        policy.start()
        for rollout in progress_bar(rollouts, desc="learning", unit="rollout"):
            done = rollout.iteration - 1
            seed = stream_seed(config.seed, "minibatches", done)
            policy.update(
                rollout.experience, seed=seed, learning_rate=policy_learning_rate(config.ppo, done)
            )
        policy.save_model(out, {"stage": "replay", "iteration": rollouts[-1].iteration})
    finally:
        policy.close()


def report_changes(rollouts: Sequence[DumpedRollout], scores: Sequence[RewardScores]) -> float:
    """Print, for every rollout, how far the rewards are from the dumped ones; return the largest difference.

    Reports that had no score, or have none now, are counted instead.
    """
    largest = 0.0
    for rollout, now in zip(rollouts, scores, strict=True):
        then = np.array([row["reward"] for row in rollout.rows], dtype=float)
        both = np.isfinite(then) & now.valid
        off = float(np.abs(now.reward - then)[both].max(initial=0.0))
        print(
            f"iteration {rollout.iteration}: largest difference {off:.3g}, {int((~both).sum())} without a score"
        )
        largest = max(largest, off)
    return largest


def main(argv: list[str] | None = None) -> int:
    """Command line; bad input ends with one sentence and exit code 2."""
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
    connect(config)
    if args.train:
        sft = (args.sft_checkpoint or layout.best("sft")).resolve()
        out = (args.out or layout.ppo_replayed).resolve()
        retrain(config, rollouts, sft, out)
    else:
        report_changes(rollouts, rescore(config, rollouts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
