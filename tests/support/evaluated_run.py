"""A finished toy run: phantoms, models, metrics and files are real, the vLLM engine is a fake."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config
from lmrrg.evaluation.evaluate import evaluate_run
from lmrrg.model.checkpoint import load_checkpoint, save_checkpoint
from lmrrg.model.generator import build_generator
from lmrrg.policy.credited_reports import (
    CreditedReport,
    CreditedReports,
    CreditedSentence,
    CreditedStudy,
    write_credited,
)
from lmrrg.run.layout import RunLayout
from lmrrg.run.record import record_run
from lmrrg.run.studies import prepare_studies, studies_of
from lmrrg.run.tracking import RunTracker
from lmrrg.vision.files import load_features
from lmrrg.vision.study_features import StudyFeatures

NORMAL = "The lungs are clear. The heart size is normal."
SETTINGS = (
    "name=toy",
    "data.phantom={train: 24, val: 8, test: 20, image_size: 256}",
    "model.extractor_width=32",
    "model.extractor_blocks=1",
    "model.decoder={hidden_size: 64, heads: 2, layers: 1, intermediate_size: 64, vocabulary: 300}",
    "tracking.wandb_mode=disabled",
    "evaluation.bootstrap=200",
    "evaluation.convention=r2gen",
    "evaluation.meteor=false",
    "evaluation.examples=8",
    "evaluation.extra_metrics=[tests.support.own.lab:shared_words]",
)

CREDITED = CreditedReports(
    iteration=30,
    form="leave_one_out",
    weight=3.0,
    studies=[
        CreditedStudy(
            id="train-7",
            abnormal=True,
            reference="There is a large left pleural effusion.",
            reports=[
                CreditedReport(
                    sentences=[
                        CreditedSentence(text="There is a left effusion.", credit=0.9),
                        CreditedSentence(text="There is an acute rib fracture.", credit=-0.45),
                    ],
                    end=-0.001,
                    reward=0.25,
                    finished=True,
                ),
                CreditedReport(sentences=[], end=0.0, reward=None, finished=False),
            ],
        )
    ],
)
"""What PPO would have kept of its last iteration."""


@dataclass(frozen=True)
class Written:
    """One report of the fake engine."""

    text: str
    finished: bool = True


class MemoryEngine:
    """Fake vLLM engine that looks up the reference of an image and leaves out some sentences.

    For an unknown image it writes the normal report. ``model`` is real. The class counts the open
    engines, so that a test can check that there is never more than one.
    """

    open_now = 0
    most_open = 0

    def __init__(self, checkpoint: Path, known: dict[str, str], forget: float):
        self.model = load_checkpoint(checkpoint)
        self._known = known
        self._forget = forget
        MemoryEngine.open_now += 1
        MemoryEngine.most_open = max(MemoryEngine.most_open, MemoryEngine.open_now)

    def generate(
        self,
        features: StudyFeatures,
        prompts: Sequence[Sequence[int]],
        *,
        progress: Callable[[int], object],
    ) -> list[list[Written]]:
        """Return one greedy report per study, as the vLLM engine does."""
        assert len(features) == len(prompts)
        progress(len(prompts))
        return [[self._write(fingerprint(features, row))] for row in range(len(features))]

    def close(self) -> None:
        """Count the engine as closed."""
        MemoryEngine.open_now -= 1

    def _write(self, image: str) -> Written:
        sentences = self._known.get(image, NORMAL).split(". ")
        rng = np.random.default_rng(int(image[:8], 16))
        kept = [sentence for sentence in sentences if rng.random() >= self._forget]
        return Written(
            ". ".join(kept or sentences[:1]).rstrip(".") + ".", finished=rng.random() < 0.95
        )


def fingerprint(features: StudyFeatures, row: int) -> str:
    """Return the hash of the image features of one study."""
    return hashlib.sha256(features.patches[row].contiguous().numpy().tobytes()).hexdigest()


def memory_engines(config: Config, forget: dict[str, float]) -> Callable[[Path], Any]:
    """Return a function that opens fake engines.

    ``forget`` is the fraction of sentences that are left out, by stage folder.
    """
    studies = studies_of(config, config.data.eval_split)
    features = load_features(studies, config.data, progress=False)
    known = {fingerprint(features, row): study.findings for row, study in enumerate(studies)}
    return lambda checkpoint: MemoryEngine(checkpoint, known, forget[checkpoint.parent.name])


def make_run(folder: Path, overrides: Sequence[str] = ()) -> Config:
    """Make the run up to its evaluation: studies, checkpoints of both stages and their metrics."""
    paths = (f"storage_path={folder}", f"data.cache_dir={folder / 'cache'}")
    config = load_config(None, [*SETTINGS, *paths, *overrides])
    manifest = prepare_studies(config, progress=False)
    record_run(config, manifest)
    reports = [study.findings for study in studies_of(config, "train")]
    for number, stage in enumerate(("sft", "ppo")):
        model = build_generator(config.model, config.data, reports, seed=number)
        save_checkpoint(model, config.run_dir / stage / "best", {"stage": stage})
    _write_metrics(config)
    write_credited(RunLayout(config.run_dir).ppo_credited, CREDITED)
    return config


def evaluated_run(folder: Path, overrides: Sequence[str] = ()) -> Config:
    """Make a run and evaluate it with fake engines; PPO leaves out fewer sentences than SFT."""
    config = make_run(folder, overrides)
    evaluate_run(config, memory_engines(config, {"sft": 0.45, "ppo": 0.15}))
    return config


def _write_metrics(config: Config) -> None:
    rng = np.random.default_rng(0)
    with RunTracker(config.run_dir, "sft", config) as tracker:
        for step in range(1, 241):
            nll = 4 * math.exp(-step / 60) + 0.6 + 0.1 * rng.normal()
            rates = {
                "train/learning_rate": 6e-4 * (1 - step / 240),
                "train/gradient_norm": 1 / step,
            }
            tracker.log(
                step, {"train/nll_per_token": nll, "train/disease_loss": 0.2 * nll, **rates}
            )
            if step % 20 == 0:
                tracker.log(
                    step, {"val/nll_per_token": nll + 0.1, "val/macro_auc": 0.5 + step / 800}
                )
    with RunTracker(config.run_dir, "ppo", config) as tracker:
        for step in range(1, 31):
            noise = 0.05 * rng.normal()
            reward = -0.4 + 0.03 * step + noise
            metrics = {
                "reward": reward,
                "reward_reference": -0.4 + noise,
                "reward_abnormal": reward - 0.3,
                "radgraph": 0.4 + 0.01 * step,
                "bertscore": 0.5 + 0.008 * step,
                "semb": 0.6 + 0.005 * step,
                "radcliq_v1": 0.4 - 0.03 * step,
                "incoherence_penalty": 0.03 / step,
                "repetition_penalty": 0.02 / step,
                "no_eos_penalty": 0.1 / step,
                "length_penalty": 0.0,
                "kl_per_sequence": 0.2 * step,
                "kl_coefficient": 0.05 * 0.98**step,
                "length": 40 + step / 3,
                "reference_length": 44 + noise,
                "distinct_ratio": 0.95 - 0.002 * step,
                "all_normal_ratio": 0.3 + noise,
                "no_eos_ratio": 0.2 / step,
                "incoherent_ratio": 0.02 / step,
                "parity": 1e-6 * (1 + noise),
                "parity_max": 1e-5 * (1 + noise),
                "policy_loss": -0.01,
                "value_loss": 0.5 * 0.9**step,
                "explained_variance": 1 - 0.9**step,
                "entropy": 1.2 - 0.01 * step,
                "iteration_s": 11 + noise,
                "sample_s": 4 + noise,
            }
            tracker.log(step, metrics)
            if step % 10 == 0:
                tracker.log(
                    step,
                    {
                        "heldout": 0.4 + 0.005 * step,
                        "heldout_reward": reward,
                        "heldout_distinct_ratio": 0.9,
                        "heldout_incoherent_ratio": 0.01,
                    },
                )


@functools.cache
def finished_run(session_folder: Path) -> Config:
    """Return the one evaluated run of a test session; tests must not change its files."""
    return evaluated_run(session_folder / "evaluated_run")
