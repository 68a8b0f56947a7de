"""Run one data-parallel rank of the eye stage: what every Ray Train worker executes."""

from __future__ import annotations

import json
import math
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from lmrrg.config.sft import EyeConfig
from lmrrg.config.tree import Config
from lmrrg.model.classifier import binary_targets
from lmrrg.run.tracking import RunTracker
from lmrrg.vision.calibration import Calibration
from lmrrg.vision.efficientnet import EfficientNetBackbone
from lmrrg.vision.eye import Eye, save_eye
from lmrrg.vision.eye_validation import EyeValidation, validate_eye
from lmrrg.vision.squares import Squares
from sft.errors import SFTError
from sft.eye_objective import (
    EyeBatch,
    EyeObjective,
    count_labels,
    eye_positive_weights,
    mean_of_films,
    random_crops,
    start_from_rates,
    to_pixels,
)
from sft.fingerprint import check_fingerprint
from sft.objective import learning_rate, parameter_groups

_LOG_EVERY = 10
"""Optimizer steps between two lines of metrics."""

_VALIDATION_STUDIES = 16
"""Studies of one forward pass without gradients."""

_NOT_FINITE = "the eye's loss became NaN or infinite; a lower eye.learning_rate may help"


@dataclass(frozen=True)
class EyeJob:
    """Everything that a rank needs.

    Attributes:
        squares: films of the training studies, and after them of the validation studies.
        train_labels: int64 [N, 14], from :func:`~lmrrg.model.classifier.label_targets`.
        val_labels: the same of the validation studies.
        val_patients: their patients, for the folds of the calibration.
        fingerprint: identifies the run; a checkpoint with another one is refused.
        provenance: facts that every eye directory of the run records.
    """

    config: Config
    squares: Squares
    train_labels: Tensor
    val_labels: Tensor
    val_patients: list[str]
    fingerprint: str
    provenance: dict[str, Any]


def train_eye_rank(loop_config: dict[str, ray.ObjectRef[EyeJob]]) -> None:
    """Train until the last epoch, from the last checkpoint where Ray Train has one."""
    job = ray.get(loop_config["job"])
    torch.set_num_threads(job.config.threads)
    trainer = EyeTrainer(job)
    trainer.run(trainer.restore(ray.train.get_checkpoint()))


class EyeTrainer:
    """The eye of one rank, the mean of its weights, and the training loop around them."""

    def __init__(self, job: EyeJob) -> None:
        self.job = job
        self.config = job.config
        self.settings = job.config.eye
        self.rank = dist.get_rank()
        self.workers = dist.get_world_size()
        self.device = ray.train.torch.get_device()
        # Every rank starts with the same weights.
        torch.manual_seed(self.config.seed)
        eye = Eye.new(self.config.model.image_encoder.name, self.config.data.image_size)
        weight = eye_positive_weights(job.train_labels, self.settings)
        self.prior = weight.log()
        start_from_rates(eye, job.train_labels, self.settings, weight)
        freeze_blocks(eye, self.settings.frozen_blocks)
        self.eye = eye.to(self.device)
        self.objective = EyeObjective(eye, self.settings, weight).to(self.device)
        self.ranks = ray.train.torch.prepare_model(self.objective)
        self.mean = weight_mean(eye, self.settings.ema)
        self.optimizer = eye_optimizer(eye, self.settings)
        self.epoch_steps = -(-len(job.train_labels) // self.settings.minibatch)
        self.steps = self.settings.epochs * self.epoch_steps
        self.best = -math.inf

    def restore(self, checkpoint: ray.train.Checkpoint | None) -> int:
        """Load a checkpoint; return the epoch to start with.

        Raises:
            SFTError: ``resume_mismatch`` when it belongs to other settings or data.
        """
        if checkpoint is None:
            return 0
        with checkpoint.as_directory() as folder:
            progress = json.loads((Path(folder) / "progress.json").read_text(encoding="utf-8"))
            check_fingerprint(progress["fingerprint"], self.job.fingerprint, stage="eye")
            state = torch.load(
                Path(folder) / "state.pt", map_location=self.device, weights_only=True
            )
        self.eye.load_state_dict(state["eye"])
        self.mean.load_state_dict(state["mean"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best = progress["best"]
        return progress["epoch"]

    def run(self, first_epoch: int) -> None:
        """Train, validate and report a checkpoint to Ray Train, epoch by epoch to the last."""
        with self._open_tracker() as tracker:
            for epoch in range(first_epoch, self.settings.epochs):
                self._train_epoch(epoch, tracker)
                calibration, found = self._validate()
                if tracker:
                    step = (epoch + 1) * self.epoch_steps
                    tracker.log(step, {"epoch": epoch + 1, **_metrics(found)})
                self._report(epoch + 1, calibration, found)

    def _open_tracker(self) -> RunTracker | nullcontext[None]:
        """Return the tracker of the stage's metrics; only rank 0 has one."""
        return nullcontext() if self.rank else RunTracker(self.config.run_dir, "eye", self.config)

    def _train_epoch(self, epoch: int, tracker: RunTracker | None) -> None:
        self.objective.train()
        order = minibatches(
            len(self.job.train_labels), self.settings.minibatch, self.config.seed, epoch
        )
        total, steps, since = 0.0, 0, time.perf_counter()
        for number, minibatch in enumerate(order, start=1):
            step = epoch * self.epoch_steps + number
            total += self._step(step, minibatch)
            steps += 1
            if number % _LOG_EVERY == 0 or number == len(order):
                # On every rank, since the ranks' parts are added up.
                seconds = time.perf_counter() - since
                metrics = self._progress(total / steps, steps, seconds)
                total, steps, since = 0.0, 0, time.perf_counter()
                if tracker:
                    tracker.log(step, metrics)

    def _step(self, step: int, studies: list[int]) -> float:
        """Take optimizer step ``step`` (from 1); return this rank's part of the loss."""
        rate = learning_rate(step - 1, self.steps, self.settings) / self.settings.learning_rate
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        films = [len(self.job.squares.films[i]) for i in studies]
        counts = count_labels(self.job.train_labels[studies], films, self.settings)
        batch = self._batch(step, studies[self.rank :: self.workers])
        # DDP averages the gradients over the ranks, of which each has a part of the mean.
        loss = self.ranks(batch, counts)
        self.optimizer.zero_grad(set_to_none=True)
        (loss * self.workers).backward()
        nn.utils.clip_grad_norm_(self.eye.parameters(), self.settings.gradient_clip)
        self.optimizer.step()
        self.mean.update_parameters(self.eye)
        return float(loss.detach())

    def _batch(self, step: int, studies: list[int]) -> EyeBatch:
        squares, owners = self.job.squares.select(studies)
        # Seeded by step and rank: a resumed run cuts the crops of one that was never interrupted.
        crops = random_crops(squares, self.settings, (self.config.seed, step, self.rank))
        labels = self.job.train_labels[studies]
        return EyeBatch(crops.to(self.device), owners.to(self.device), labels.to(self.device))

    def _progress(self, loss: float, steps: int, seconds: float) -> dict[str, float]:
        """Return the metrics of the last steps, over all ranks.

        Raises:
            SFTError: ``loss_not_finite``.
        """
        mean = torch.tensor(loss, dtype=torch.float64, device=self.device)
        dist.all_reduce(mean)
        if not math.isfinite(float(mean)):
            raise SFTError("loss_not_finite", _NOT_FINITE)
        return {
            "train/loss": float(mean),
            "train/learning_rate": self.optimizer.param_groups[0]["lr"],
            "train/steps_per_second": steps / seconds,
            "train/studies_per_second": steps * self.settings.minibatch / seconds,
        }

    @torch.no_grad()
    def _validate(self) -> tuple[Calibration, EyeValidation]:
        """Calibrate and measure the mean of the weights on whole squares; all ranks get the same.

        Raises:
            SFTError: ``loss_not_finite``: the last optimizer step left no usable weights.
            FeatureError: ``no_positives``.
        """
        self.mean.eval()
        logits = torch.zeros(self.job.val_labels.shape, device=self.device)
        mine = list(range(self.rank, len(logits), self.workers))
        first = len(self.job.train_labels)  # among the squares
        for start in range(0, len(mine), _VALIDATION_STUDIES):
            studies = mine[start : start + _VALIDATION_STUDIES]
            squares, owners = self.job.squares.select(first + study for study in studies)
            films = self.mean(to_pixels(squares).to(self.device)).logits
            logits[studies] = mean_of_films(films, owners.to(self.device), len(studies)).float()
        # Every study's logits are 0 on all ranks but one, so the sum gathers them.
        dist.all_reduce(logits)
        if not logits.isfinite().all():
            raise SFTError("loss_not_finite", f"on the validation studies {_NOT_FINITE}")
        targets, counted = binary_targets(self.job.val_labels, self.settings)
        return validate_eye(logits.cpu(), targets, counted, self.prior, self.job.val_patients)

    def _report(self, epoch: int, calibration: Calibration, found: EyeValidation) -> None:
        """Give Ray Train the metrics, and on rank 0 a checkpoint."""
        self.best = max(self.best, found.average_precision)
        metrics = {"epoch": epoch, **_metrics(found)}
        if self.rank:
            ray.train.report(metrics)
            return
        progress = {"epoch": epoch, "best": self.best, "fingerprint": self.job.fingerprint}
        state = {
            "eye": self.eye.state_dict(),
            "mean": self.mean.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        eye = cast(Eye, self.mean.module)
        eye.calibration = calibration
        extra = {**self.job.provenance, **progress, "epochs": self.settings.epochs}
        with tempfile.TemporaryDirectory() as folder:
            torch.save(state, Path(folder) / "state.pt")
            save_eye(eye, Path(folder) / "model", extra | {"validation": found.as_json()})
            (Path(folder) / "progress.json").write_text(json.dumps(progress), encoding="utf-8")
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def freeze_blocks(eye: Eye, blocks: int) -> None:
    """Keep the weights of the backbone's stem and of its first ``blocks`` blocks."""
    assert isinstance(eye.backbone, EfficientNetBackbone), "the stage refuses other encoders"
    eye.backbone.stem.requires_grad_(False)
    for block in list(eye.backbone.blocks)[:blocks]:
        block.requires_grad_(False)


def weight_mean(eye: Eye, decay: float) -> AveragedModel:
    """Return a model of the exponential mean of the eye's weights.

    Its first steps forget faster, (1 + n) / (10 + n) in place of a larger ``decay``: otherwise the
    mean of a short training would be its start.
    """

    def average(mean: Tensor, current: Tensor, averaged: Tensor | int) -> Tensor:
        kept = min(decay, (1 + int(averaged)) / (10 + int(averaged)))
        return torch.lerp(current, mean, kept)

    return AveragedModel(eye, avg_fn=average)


def eye_optimizer(eye: Eye, settings: EyeConfig) -> torch.optim.AdamW:
    """Return the optimizer; every group has its peak learning rate under ``peak``."""
    body = parameter_groups(eye.backbone, settings.weight_decay)
    head = parameter_groups(eye.head, settings.weight_decay)
    groups = [group | {"peak": settings.learning_rate} for group in body]
    groups += [group | {"peak": settings.head_learning_rate} for group in head]
    return torch.optim.AdamW(groups, lr=settings.learning_rate)


def minibatches(studies: int, minibatch: int, seed: int, epoch: int) -> list[list[int]]:
    """Divide all studies, in random order, into minibatches of equal size.

    The order depends on ``seed`` and ``epoch`` alone. The last minibatch is filled up with studies
    from the epoch's start, so that every rank always has the same number of them.
    """
    order = np.random.default_rng([seed, epoch]).permutation(studies)
    steps = -(-studies // minibatch)
    return np.resize(order, (steps, minibatch)).tolist()


def _metrics(found: EyeValidation) -> dict[str, float]:
    error = found.cross_validated_error
    return {
        "val/average_precision": found.average_precision,
        "val/macro_auc": found.macro_auc,
        "val/calibration_error": math.nan if error is None else error,
    }
