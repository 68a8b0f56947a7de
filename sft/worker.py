"""Run one data-parallel rank of supervised fine-tuning: what every Ray Train worker executes."""

from __future__ import annotations

import json
import logging
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers.utils.logging import disable_progress_bar

from actors.deepspeed_setup import (
    deepspeed_environment,
    deepspeed_settings,
    gathered,
    join_process_group,
    step_optimizer,
    wrap,
)
from lmrrg.config.sft import SFTConfig
from lmrrg.config.tree import Config
from lmrrg.model.checkpoint import save_checkpoint
from lmrrg.model.classifier import binary_targets, positive_weights
from lmrrg.model.evidence import FINDINGS, stated_findings, thresholds_of
from lmrrg.model.generator import build_generator
from lmrrg.run.tracking import RunTracker
from lmrrg.studies import Study
from sft.batches import (
    Batch,
    balanced_visits,
    epoch_minibatches,
    forgotten_views,
    rank_microbatches,
)
from sft.errors import SFTError
from sft.fingerprint import check_fingerprint
from sft.greedy_validation import findings_f1, written_findings
from sft.job import Job, epoch_evidence, evidence_table, examples_of
from sft.objective import Objective, learning_rate, macro_auc, parameter_groups

_TAG = "state"
_CALIBRATION_STUDIES = 256
"""Training studies that fix the scale of the image features."""

_LOG_EVERY = 5
"""Optimizer steps between two lines of metrics."""

_BETAS = (0.9, 0.98)
"""AdamW's, as usual for training a transformer from scratch; torch's own are (0.9, 0.999)."""

_NOT_FINITE = "the loss became NaN or infinite; a lower learning rate may help"


class Totals(defaultdict[str, float]):
    """Sums by name; a new name starts at 0."""

    def __init__(self) -> None:
        super().__init__(float)

    def add(self, **values: float) -> None:
        """Add to the sums of the same names."""
        for name, value in values.items():
            self[name] += value


def rank_environment(config: Config) -> dict[str, str]:
    """Return the environment variables of a rank; torch and DeepSpeed read them at import."""
    return deepspeed_environment(config.threads, config.sft.gpus_per_worker) | {
        # The tokenizer's threads would compete with torch's, and it warns at every fork.
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONWARNINGS": "ignore::FutureWarning",
    }


def train_rank(loop_config: dict[str, ray.ObjectRef[Job]]) -> None:
    """Train until the last epoch, from the last checkpoint where Ray Train has one."""
    job = ray.get(loop_config["job"])
    torch.set_num_threads(job.config.threads)
    disable_progress_bar()  # of transformers: one bar per file that is read or written
    trainer = RankTrainer(job)
    logging.getLogger("ray.train").setLevel(logging.WARNING)  # DeepSpeed's import sets it back
    first_epoch = trainer.restore(ray.train.get_checkpoint())
    trainer.run(first_epoch)


class RankTrainer:
    """The model of one rank in a DeepSpeed engine, and the training loop around it."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.config = job.config
        self.sft = job.config.sft
        self.rank = dist.get_rank()
        self.workers = dist.get_world_size()
        self.model = build_generator(
            self.config.model, self.config.data, [], job.tokenizer, seed=self.config.seed
        )
        thresholds = None
        if self.config.model.uses_evidence:
            table = evidence_table(job)
            self.model.evidence_thresholds.copy_(table)
            thresholds = thresholds_of(self.config.evidence, table)
        self.train = examples_of(job, "train")
        self.val = examples_of(job, "val", thresholds)
        calibration = range(min(_CALIBRATION_STUDIES, len(self.train)))
        self.model.extractor.calibrate(job.train_files.select(calibration))
        objective = Objective(self.model, self.sft, positive_weights(self.train.labels, self.sft))
        self.engine = deepspeed_engine(objective, self.sft)
        self.epoch_steps = -(-len(self.train) // self.sft.minibatch)
        self.steps = self.sft.epochs * self.epoch_steps
        self.best = math.inf
        """Least criterion of any epoch so far."""
        self.best_epoch = 0
        self.visits = None
        if self.sft.class_balance:
            self.visits = balanced_visits(self._stated(job.train), self.sft.class_balance)

    def _stated(self, studies: list[Study]) -> Tensor:
        """Return which findings the reports of the studies state, bool [N, 13]."""
        return stated_findings(studies, self.config.data.section)[:, : len(FINDINGS)]

    def restore(self, checkpoint: ray.train.Checkpoint | None) -> int:
        """Load a checkpoint into the engine; return the epoch to start with.

        Raises:
            SFTError: ``resume_mismatch`` when it belongs to other settings or data;
                ``resume_failed`` when it holds no training state.
        """
        if checkpoint is None:
            return 0
        with checkpoint.as_directory() as folder:
            progress = json.loads((Path(folder) / "progress.json").read_text(encoding="utf-8"))
            check_fingerprint(progress["fingerprint"], self.job.fingerprint)
            loaded, _ = self.engine.load_checkpoint(folder, tag=_TAG)
        if loaded is None:
            raise SFTError("resume_failed", "the last checkpoint holds no training state")
        self.best = progress["best_criterion"]
        self.best_epoch = progress["best_epoch"]
        return progress["epoch"]

    def run(self, first_epoch: int) -> None:
        """Train, validate and report a checkpoint to Ray Train, epoch by epoch to the last.

        The last one is that of the settings, or the one after which ``sft.patience`` is at an end.
        """
        with self._open_tracker() as tracker:
            for epoch in range(first_epoch, self.sft.epochs):
                if self._is_finished(epoch):
                    return
                self._train_epoch(epoch, tracker)
                metrics = self._validate()
                if tracker:
                    tracker.log((epoch + 1) * self.epoch_steps, {"epoch": epoch + 1, **metrics})
                self._report(epoch + 1, metrics)

    def _open_tracker(self) -> RunTracker | nullcontext[None]:
        """Return the tracker of the run's metrics; only rank 0 has one."""
        return nullcontext() if self.rank else RunTracker(self.config.run_dir, "sft", self.config)

    def _train_epoch(self, epoch: int, tracker: RunTracker | None) -> None:
        seed = self.config.seed
        # Seeded by epoch and rank: a resumed run draws the same dropout masks as one that was never
        # interrupted. The two primes keep the seeds of neighbouring epochs and ranks apart.
        torch.manual_seed(((seed * 1_000_003 + epoch) * 1009 + self.rank) % 2**64)
        views = self.config.data.max_views
        forgotten = forgotten_views(len(self.train), views, seed, epoch)
        self.engine.train()
        order = epoch_minibatches(self.train.lengths, self.sft.minibatch, seed, epoch, self.visits)
        microbatches: list[list[int]] = []
        for minibatch in order:
            microbatches += self._microbatches(minibatch)
        evidence = epoch_evidence(self.train, self.config, epoch)
        batches = self.train.read_ahead(microbatches, forgotten, evidence)
        totals = Totals()
        since = time.perf_counter()
        for number, minibatch in enumerate(order, start=1):
            step = epoch * self.epoch_steps + number
            self._step(step, minibatch, batches, totals)
            if number % _LOG_EVERY == 0 or number == self.epoch_steps:
                # On every rank, since the ranks' sums are added up.
                metrics = self._means(totals, time.perf_counter() - since)
                totals = Totals()
                since = time.perf_counter()
                if tracker:
                    tracker.log(step, metrics)

    def _microbatches(self, minibatch: list[int]) -> list[list[int]]:
        return rank_microbatches(minibatch, self.rank, self.workers, self.sft.microbatch)

    def _step(
        self, step: int, minibatch: list[int], batches: Iterator[Batch], totals: Totals
    ) -> None:
        """Take optimizer step ``step`` (from 1) on this rank's microbatches of a minibatch.

        They come next in ``batches``.
        """
        rate = learning_rate(step - 1, self.steps, self.sft)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        tokens = sum(float(self.train.weights[i].sum()) for i in minibatch)
        classes = int(binary_targets(self.train.labels[minibatch], self.sft)[1].sum())
        masked = self.train.masked(minibatch)
        parts = len(self._microbatches(minibatch))
        norm = 0.0
        for number in range(1, parts + 1):
            started = time.perf_counter()
            batch = next(batches)
            totals.add(waited=time.perf_counter() - started)
            self.engine.set_gradient_accumulation_boundary(number == parts)
            nll, disease, attention, _ = self.engine(batch.to(self.engine.device))
            # Means over the whole minibatch. DeepSpeed averages the gradients over the ranks, so
            # each rank's part is multiplied by their number.
            loss = nll / tokens + self.sft.classification_weight * disease / max(1, classes)
            loss = loss + self.sft.attention_weight * attention / max(1, masked)
            self.engine.backward(loss * self.workers, scale_wrt_gas=False)
            if number < parts:
                self.engine.step()
            else:
                norm = step_optimizer(self.engine, self.sft.zero_stage)
            totals.add(
                nll=float(nll.detach()),
                disease=float(disease.detach()),
                attention=float(attention.detach()),
            )
        totals.add(steps=1, tokens=tokens, classes=classes, masked=masked, rate=rate, norm=norm)

    def _means(self, totals: Totals, seconds: float) -> dict[str, float]:
        """Return the metrics of the last steps, over all ranks.

        Raises:
            SFTError: ``loss_not_finite``.
        """
        nll, disease, attention, waited = self._sum_over_ranks(
            totals["nll"], totals["disease"], totals["attention"], totals["waited"]
        )
        if not math.isfinite(nll + disease):
            raise SFTError("loss_not_finite", _NOT_FINITE)
        steps = totals["steps"]
        means: dict[str, float] = {}
        if self.sft.attention_weight:
            means["train/attention_loss"] = attention / max(1, totals["masked"])
        return means | {
            "train/nll_per_token": nll / totals["tokens"],
            "train/disease_loss": disease / max(1, totals["classes"]),
            "train/gradient_norm": totals["norm"] / steps,
            "train/learning_rate": totals["rate"] / steps,
            "train/data_wait_share": waited / self.workers / seconds,
            "train/steps_per_second": steps / seconds,
            "train/studies_per_second": steps * self.sft.minibatch / seconds,
        }

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Return means over the validation studies, the same on every rank.

        Raises:
            SFTError: ``loss_not_finite``: the last optimizer step left no usable weights.
        """
        self.engine.eval()
        size = self.sft.microbatch
        mine = list(range(self.rank, len(self.val), self.workers))
        # ZeRO-3 gathers weights in step: every rank runs as many batches as the one with the most
        # studies, and repeats study 0 where it has none left.
        batches = -(-len(range(0, len(self.val), self.workers)) // size)
        sums = Totals()
        logits = torch.zeros(self.val.labels.shape)
        for number in range(batches):
            index = mine[number * size : (number + 1) * size]
            batch = self.val.batch(index or [0]).to(self.engine.device)
            nll, disease, _, of_batch = self.engine(batch)
            if index:
                sums.add(nll=float(nll), disease=float(disease))
                logits[index] = of_batch.float().cpu()
        total_nll, total_disease = self._sum_over_ranks(sums["nll"], sums["disease"])
        # Every study's logits are 0 on all ranks but one, so the sum gathers them.
        gathered_logits = torch.tensor(self._sum_over_ranks(*logits.flatten().tolist()))
        if not math.isfinite(total_nll + total_disease):
            raise SFTError("loss_not_finite", f"on the validation studies {_NOT_FINITE}")
        classes = int(binary_targets(self.val.labels, self.sft)[1].sum())
        return self._clinical_f1() | {
            "val/nll_per_token": total_nll / sum(self.val.lengths),
            "val/disease_loss": total_disease / max(1, classes),
            "val/macro_auc": macro_auc(
                gathered_logits.reshape(logits.shape), self.val.labels, self.sft
            ),
        }

    def _clinical_f1(self) -> dict[str, float]:
        """Return the F1 of greedy validation reports, where it chooses the best epoch."""
        if self.sft.select_by != "clinical_f1":
            return {}
        count = min(self.sft.select_studies, len(self.val))
        mine = list(range(self.rank, count, self.workers))
        written = torch.zeros(count, len(FINDINGS))
        if mine:
            tokens = self.config.data.max_report_tokens
            written[mine] = written_findings(self.model, self.val, mine, tokens).float()
        # Every study's row is 0 on all ranks but one, so the sum gathers them.
        everywhere = torch.tensor(self._sum_over_ranks(*written.flatten().tolist()))
        found = everywhere.reshape(written.shape) > 0
        return {"val/clinical_f1": findings_f1(found, self._stated(self.job.val[:count]))}

    def _criterion(self, metrics: dict[str, float]) -> float:
        """Return what the best epoch has least of."""
        if self.sft.select_by == "clinical_f1":
            return 1 - metrics["val/clinical_f1"]
        return metrics["val/nll_per_token"]

    def _is_finished(self, epochs: int) -> bool:
        """Return whether training ends after that many epochs."""
        patience = self.sft.patience
        waited = epochs - self.best_epoch
        return epochs >= self.sft.epochs or (patience is not None and waited >= patience)

    def _sum_over_ranks(self, *values: float) -> list[float]:
        # In float64, so that sums of many losses do not depend on how the ranks divide them.
        total = torch.tensor(values, dtype=torch.float64, device=self.engine.device)
        dist.all_reduce(total)
        return total.tolist()

    def _report(self, epoch: int, metrics: dict[str, float]) -> None:
        """Give Ray Train a checkpoint: every rank its optimizer part, rank 0 also the model."""
        criterion = self._criterion(metrics)
        if criterion < self.best:
            self.best = criterion
            self.best_epoch = epoch
        progress = {
            "epoch": epoch,
            "best_criterion": self.best,
            "best_epoch": self.best_epoch,
            "finished": self._is_finished(epoch),
            "fingerprint": self.job.fingerprint,
        }
        with tempfile.TemporaryDirectory() as folder:
            self.engine.save_checkpoint(folder, tag=_TAG, save_latest=False)
            with gathered(self.model, self.sft.zero_stage):
                if self.rank == 0:
                    self._save_model(Path(folder), progress, metrics)
            report = {"epoch": epoch, "criterion": criterion, **metrics}
            ray.train.report(report, checkpoint=ray.train.Checkpoint.from_directory(folder))

    def _save_model(
        self, folder: Path, progress: dict[str, Any], metrics: dict[str, float]
    ) -> None:
        provenance = {
            **self.job.provenance,
            **progress,
            "epochs": self.sft.epochs,
            "metrics": metrics,
        }
        save_checkpoint(self.model, folder / "model", provenance)
        (folder / "progress.json").write_text(json.dumps(progress), encoding="utf-8")


def deepspeed_engine(module: nn.Module, sft: SFTConfig) -> Any:
    """Return ``module`` in a DeepSpeed engine; joins the process group that Ray Train opened."""
    join_process_group(sft.gpus_per_worker)
    settings = deepspeed_settings(
        workers=dist.get_world_size(),
        minibatch=sft.minibatch,
        microbatch=sft.microbatch,
        learning_rate=sft.learning_rate,
        betas=_BETAS,
        gradient_clip=sft.gradient_clip,
        zero_stage=sft.zero_stage,
    )
    return wrap(module, parameter_groups(module, sft.weight_decay), settings)
