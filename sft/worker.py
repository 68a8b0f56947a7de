"""One data-parallel rank of SFT: what every Ray Train worker runs."""

from __future__ import annotations

import json
import logging
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
import torch.distributed as dist
from ray.experimental import tqdm_ray
from transformers import PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from actors.deepspeed_setup import gradient_norm
from lmrrg.config.tree import Config
from lmrrg.model.checkpoint import save_checkpoint
from lmrrg.model.classifier import binary_targets, positive_weights
from lmrrg.model.generator import build_generator
from lmrrg.run.tracking import RunTracker
from lmrrg.studies import Study
from lmrrg.vision.files import FeatureFiles
from sft.batches import Batch, Examples, epoch_minibatches, forgotten_views, rank_share
from sft.engine import gathered, make_engine
from sft.errors import SFTError
from sft.fingerprint import check_fingerprint
from sft.objective import Objective, learning_rate, macro_auc

TAG = "state"
_CALIBRATION = 256  # training studies that fix the scale of the image features
_LOG_EVERY = 5
_NOT_FINITE = "the loss became NaN or infinite; a lower learning rate may help"


@dataclass(frozen=True, repr=False)
class Job:
    """What a rank needs; ``fingerprint`` is what the run is known by. Its repr holds no report."""

    config: Config
    train: list[Study]
    val: list[Study]
    train_files: FeatureFiles
    val_files: FeatureFiles
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str
    provenance: dict[str, Any]
    priors: Mapping[str, str] = field(default_factory=dict)


class Totals(defaultdict[str, float]):
    """Named sums."""

    def __init__(self) -> None:
        super().__init__(float)

    def add(self, **values: float) -> None:
        """Add to the sums of the same names."""
        for name, value in values.items():
            self[name] += value


def environment(config: Config) -> dict[str, str]:
    """Environment variables of a rank; they must be there before torch and DeepSpeed are imported."""
    env = {
        "TORCHDYNAMO_DISABLE": "1",
        "OMP_NUM_THREADS": str(config.threads),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONWARNINGS": "ignore::FutureWarning",
    }
    return (
        env
        if config.sft.gpus_per_worker
        else {**env, "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    )


def train_rank(loop_config: dict[str, ray.ObjectRef[Job]]) -> None:
    """Train until the last epoch, from the last checkpoint where Ray Train has one."""
    job = ray.get(loop_config["job"])
    torch.set_num_threads(job.config.threads)
    disable_progress_bar()  # of transformers: one bar per file that is read or written
    trainer = RankTrainer(job)
    logging.getLogger("ray.train").setLevel(logging.WARNING)  # after DeepSpeed, which sets it back
    start = trainer.restore(ray.train.get_checkpoint())
    trainer.run(start)


class RunLog:
    """Metrics and progress bar of a run; rank 0 has one."""

    def __init__(self, config: Config, steps: int, done: int) -> None:
        self._tracker = RunTracker(config.run_dir, "sft", config)
        self._bar = tqdm_ray.tqdm(desc="SFT", total=steps, unit="step", flush_interval_s=2.0)
        self._bar.n, self._steps = done, steps

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, error_type: type | None, error: object, traceback: object) -> None:
        if self._bar.n < self._steps:
            self._bar.close()
        self._tracker.finish(exit_code=0 if error_type is None else 1)

    def advance(self) -> None:
        """Count one step. The last one closes the bar: this process may end before Ray passes on what it says later."""
        self._bar.update(1)
        if self._bar.n == self._steps:
            self._bar.close()

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Write one line of metrics."""
        self._tracker.log(step, values)


class RankTrainer:
    """The DeepSpeed engine of one rank and the loop around it."""

    def __init__(self, job: Job) -> None:
        self.job, self.config, self.sft = job, job.config, job.config.sft
        self.rank, self.workers = dist.get_rank(), dist.get_world_size()
        self.train = Examples(job.train, job.train_files, job.tokenizer, job.config, job.priors)
        self.val = Examples(job.val, job.val_files, job.tokenizer, job.config, job.priors)
        self.model = build_generator(
            job.config.model, job.config.data, [], job.tokenizer, seed=job.config.seed
        )
        self.model.extractor.calibrate(
            job.train_files.select(range(min(_CALIBRATION, len(self.train))))
        )
        objective = Objective(self.model, self.sft, positive_weights(self.train.labels, self.sft))
        self.engine = make_engine(objective, self.sft)
        self.epoch_steps = -(-len(self.train) // self.sft.minibatch)
        self.steps = self.sft.epochs * self.epoch_steps
        self.best = math.inf

    def restore(self, checkpoint: ray.train.Checkpoint | None) -> int:
        """Load a checkpoint into the engine; the epoch to start with.

        Raises:
            SFTError: ``resume_mismatch`` when it belongs to other settings or data.
        """
        if checkpoint is None:
            return 0
        with checkpoint.as_directory() as folder:
            progress = json.loads((Path(folder) / "progress.json").read_text(encoding="utf-8"))
            check_fingerprint(progress["fingerprint"], self.job.fingerprint)
            loaded, _ = self.engine.load_checkpoint(folder, tag=TAG)
        if loaded is None:
            raise SFTError("resume_failed", "the last checkpoint holds no training state")
        self.best = progress["best_val_nll"]
        return progress["epoch"]

    def run(self, start: int) -> None:
        """Epochs ``start`` to the last: train, validate, report a checkpoint to Ray Train."""
        with (
            RunLog(self.config, self.steps, start * self.epoch_steps)
            if self.rank == 0
            else nullcontext() as log
        ):
            for epoch in range(start, self.sft.epochs):
                self._train_epoch(epoch, log)
                metrics = self._validate()
                if log:
                    log.metrics((epoch + 1) * self.epoch_steps, {"epoch": epoch + 1, **metrics})
                self._report(epoch + 1, metrics)

    def _train_epoch(self, epoch: int, log: RunLog | None) -> None:
        # Seeded by epoch and rank: a resumed run draws the same dropout masks as one that was never interrupted.
        torch.manual_seed(((self.config.seed * 1_000_003 + epoch) * 1009 + self.rank) % 2**64)
        forgotten = forgotten_views(
            len(self.train), self.config.data.max_views, self.config.seed, epoch
        )
        self.engine.train()
        totals, since = Totals(), time.perf_counter()
        order = epoch_minibatches(self.train.lengths, self.sft.minibatch, self.config.seed, epoch)
        shares = [share for minibatch in order for share in self._shares(minibatch)]
        batches = self.train.read_ahead(shares, forgotten)
        for number, minibatch in enumerate(order, start=1):
            step = epoch * self.epoch_steps + number
            self._step(step, minibatch, batches, totals)
            if log:
                log.advance()
            if number % _LOG_EVERY == 0 or number == self.epoch_steps:
                metrics = self._means(totals, time.perf_counter() - since)
                totals, since = Totals(), time.perf_counter()
                if log:
                    log.metrics(step, metrics)

    def _shares(self, minibatch: list[int]) -> list[list[int]]:
        return rank_share(minibatch, self.rank, self.workers, self.sft.microbatch)

    def _step(
        self, step: int, minibatch: list[int], batches: Iterator[Batch], totals: Totals
    ) -> None:
        """Optimizer step ``step`` (from 1), on the rank's share of a minibatch, which comes next in ``batches``."""
        rate = learning_rate(step - 1, self.steps, self.sft)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        tokens = sum(len(self.train.reports[i]) for i in minibatch)
        classes = int(binary_targets(self.train.labels[minibatch], self.sft)[1].sum())
        masked, parts = self.train.masked(minibatch), len(self._shares(minibatch))
        for number in range(1, parts + 1):
            started = time.perf_counter()
            batch = next(batches)
            totals.add(waited=time.perf_counter() - started)
            self.engine.set_gradient_accumulation_boundary(number == parts)
            nll, disease, seen, _ = self.engine(batch.to(self.engine.device))
            # Means over the whole minibatch: DeepSpeed averages over ranks, so each rank's part counts workers times.
            loss = nll / tokens + self.sft.classification_weight * disease / max(1, classes)
            loss = loss + self.sft.attention_weight * seen / max(1, masked)
            self.engine.backward(loss * self.workers, scale_wrt_gas=False)
            if number == parts and self.sft.zero_stage == 0:
                norm = gradient_norm(self.engine)  # without ZeRO DeepSpeed clips but keeps no norm
            self.engine.step()
            totals.add(
                nll=float(nll.detach()), disease=float(disease.detach()), seen=float(seen.detach())
            )
        norm = norm if self.sft.zero_stage == 0 else float(self.engine.get_global_grad_norm())
        totals.add(steps=1, tokens=tokens, classes=classes, masked=masked, rate=rate, norm=norm)

    def _means(self, totals: Totals, seconds: float) -> dict[str, float]:
        """Metrics of the last steps, over all ranks.

        Raises:
            SFTError: ``loss_not_finite``.
        """
        sums = self._sum_over_ranks(
            *(totals[name] for name in ("nll", "disease", "seen", "waited"))
        )
        nll, disease, seen, waited = sums
        if not math.isfinite(nll + disease):
            raise SFTError("loss_not_finite", _NOT_FINITE)
        steps = totals["steps"]
        supervised = (
            {"train/attention_loss": seen / max(1, totals["masked"])}
            if self.sft.attention_weight
            else {}
        )
        return supervised | {
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
        """Means over the validation studies, the same on every rank.

        Raises:
            SFTError: ``loss_not_finite``: what the last optimizer step left is no model.
        """
        self.engine.eval()
        mine = list(range(self.rank, len(self.val), self.workers))
        # ZeRO-3 gathers weights in step: every rank runs as many batches as the one with the most studies.
        batches = -(-len(range(0, len(self.val), self.workers)) // self.sft.microbatch)
        sums, logits = Totals(), torch.zeros(self.val.labels.shape)
        for number in range(batches):
            share = mine[number * self.sft.microbatch : (number + 1) * self.sft.microbatch]
            nll, disease, _, seen = self.engine(self.val.batch(share or [0]).to(self.engine.device))
            if share:
                sums.add(nll=float(nll), disease=float(disease))
                logits[share] = seen.float().cpu()
        total_nll, total_disease = self._sum_over_ranks(sums["nll"], sums["disease"])
        logits = torch.tensor(self._sum_over_ranks(*logits.flatten().tolist())).reshape(
            logits.shape
        )
        if not math.isfinite(total_nll + total_disease):
            raise SFTError("loss_not_finite", f"on the validation studies {_NOT_FINITE}")
        classes = int(binary_targets(self.val.labels, self.sft)[1].sum())
        return {
            "val/nll_per_token": total_nll / sum(self.val.lengths),
            "val/disease_loss": total_disease / max(1, classes),
            "val/macro_auc": macro_auc(logits, self.val.labels, self.sft),
        }

    def _sum_over_ranks(self, *values: float) -> list[float]:
        total = torch.tensor(values, dtype=torch.float64, device=self.engine.device)
        dist.all_reduce(total)
        return total.tolist()

    def _report(self, epoch: int, metrics: dict[str, float]) -> None:
        """Hand the whole state to Ray Train: every rank its optimizer shard, rank 0 also the model directory."""
        self.best = min(self.best, metrics["val/nll_per_token"])
        progress = {"epoch": epoch, "best_val_nll": self.best, "fingerprint": self.job.fingerprint}
        with tempfile.TemporaryDirectory() as folder:
            self.engine.save_checkpoint(folder, tag=TAG, save_latest=False)
            with gathered(self.model, self.sft):
                if self.rank == 0:
                    extra = {
                        **self.job.provenance,
                        **progress,
                        "epochs": self.sft.epochs,
                        "metrics": metrics,
                    }
                    save_checkpoint(self.model, Path(folder) / "model", extra)
                    (Path(folder) / "progress.json").write_text(
                        json.dumps(progress), encoding="utf-8"
                    )
            report = {"epoch": epoch, "val_nll": metrics["val/nll_per_token"], **metrics}
            ray.train.report(report, checkpoint=ray.train.Checkpoint.from_directory(folder))
