"""Rollouts on disk: what was written, what it earned, and what the policy learnt from, one pair of files an iteration.

Reports and references are text of patients' studies. They leave the run's folder with nobody: no log, no tracker.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

from lmrrg.files import atomic_writer
from lmrrg.metrics.reward import RewardScores
from lmrrg.policy.batches import Experience
from lmrrg.policy.experience_file import load_experience, save_experience
from lmrrg.ppo.errors import PPOError
from rl.experience import Sample


@dataclass(frozen=True)
class DumpedRollout:
    """One iteration, read back."""

    iteration: int
    rows: list[dict]
    """For each report: report, reference, token_ids, finished, weights_version, and the reward with its parts."""
    experience: Experience


def dump_rollout(
    folder: Path, iteration: int, sample: Sample, scores: RewardScores, experience: Experience
) -> None:
    """Write ``iteration-NNNNNN.jsonl`` and ``.safetensors`` into ``folder``."""
    stem = folder / f"iteration-{iteration:06d}"
    save_experience(stem.with_suffix(".safetensors"), experience)
    with atomic_writer(stem.with_suffix(".jsonl")) as out:
        for place, (report, reference) in enumerate(
            zip(sample.reports, sample.references, strict=True)
        ):
            row = {
                "report": report.text,
                "reference": reference,
                "token_ids": report.token_ids,
                "finished": report.finished,
                "weights_version": sample.version,
            }
            row |= {f.name: getattr(scores, f.name)[place].item() for f in fields(RewardScores)}
            out.write(json.dumps(row) + "\n")


def read_rollouts(folder: Path) -> list[DumpedRollout]:
    """Return all dumped iterations in ``folder``, oldest first.

    Raises:
        PPOError: ``no_rollouts``, the run was made without ``ppo.dump_every``; ``experience_file``.
    """
    paths = sorted(folder.glob("iteration-*.jsonl"))
    if not paths:
        raise PPOError(
            "no_rollouts",
            f"{folder} holds no rollouts; make the run with ppo.dump_every=1",
        )
    return [
        DumpedRollout(
            iteration=int(path.stem.split("-")[1]),
            rows=[
                json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line
            ],
            experience=load_experience(path.with_suffix(".safetensors")),
        )
        for path in paths
    ]
