"""Rollouts on disk: the reports, their rewards and the experience of an iteration, in two files.

Reports and references are text of patients' studies. They stay in the run folder: they must not
reach a log or a tracking service.
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
    """The dumped rollout of one iteration."""

    iteration: int
    rows: list[dict]
    """For each report: report, reference, token_ids, finished, weights_version, and the reward with
    its parts."""
    experience: Experience


def dump_rollout(
    folder: Path, iteration: int, sample: Sample, scores: RewardScores, experience: Experience
) -> None:
    """Write ``iteration-NNNNNN.jsonl`` and ``.safetensors`` into ``folder``."""
    stem = folder / f"iteration-{iteration:06d}"
    save_experience(stem.with_suffix(".safetensors"), experience)
    # The JSONL comes last: readers look for it, so a dump cut short is no dump.
    with atomic_writer(stem.with_suffix(".jsonl")) as out:
        for number, (report, reference) in enumerate(
            zip(sample.reports, sample.references, strict=True)
        ):
            row = {
                "report": report.text,
                "reference": reference,
                "token_ids": report.token_ids,
                "finished": report.finished,
                "weights_version": sample.version,
            }
            for field in fields(RewardScores):
                row[field.name] = getattr(scores, field.name)[number].item()
            out.write(json.dumps(row) + "\n")


def read_rollouts(folder: Path) -> list[DumpedRollout]:
    """Return all rollouts in ``folder``, oldest first.

    Raises:
        PPOError: ``no_rollouts``, the run was made without ``ppo.dump_every``; ``experience_file``.
    """
    paths = sorted(folder.glob("iteration-*.jsonl"))
    if not paths:
        raise PPOError(
            "no_rollouts", f"{folder} holds no rollouts; make the run with ppo.dump_every=1"
        )
    return [_read_rollout(path) for path in paths]


def _read_rollout(path: Path) -> DumpedRollout:
    # Not splitlines(): a report may hold other characters at which that splits.
    lines = path.read_text(encoding="utf-8").split("\n")
    return DumpedRollout(
        iteration=int(path.stem.split("-")[1]),
        rows=[json.loads(line) for line in lines if line],
        experience=load_experience(path.with_suffix(".safetensors")),
    )
