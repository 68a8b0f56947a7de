"""Supervised fine-tuning on Ray Train with DeepSpeed: cross-entropy of the report plus the 14-class disease loss.

    python sft/train.py --config configs/demo.yaml sft.epochs=5
    ray job submit --working-dir . -- python sft/train.py --config configs/iu_xray.yaml

Every epoch ends with a validation and a checkpoint; the best one by validation NLL and the last one become model
directories, ``<run>/sft/best`` and ``<run>/sft/last``. A run that was interrupted goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

import pyarrow.fs
import ray
import ray.train
from ray.train.torch import TorchConfig
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import RayTrainCallback
from ray.train.v2.api.config import (
    CheckpointConfig,
    FailureConfig,
    LoggingConfig,
    RunConfig,
    ScalingConfig,
)
from ray.train.v2.api.exceptions import WorkerGroupError

from actors.placement import connect, warn_of_idle_gpus
from lmrrg.config.loading import config_help, load_config
from lmrrg.config.tree import Config
from lmrrg.errors import run_command
from lmrrg.files import atomic_writer
from lmrrg.manifest import manifest_hash
from lmrrg.model.checkpoint import CheckpointError, read_checkpoint_config
from lmrrg.model.decoder import build_tokenizer
from lmrrg.run.layout import RunLayout
from lmrrg.run.record import record_run
from lmrrg.run.studies import prepare_studies, priors_of, studies_of
from lmrrg.studies import Study
from lmrrg.vision.files import FeatureFiles, image_hashes
from sft.errors import SFTError
from sft.failures import Trainer, said_by_a_rank
from sft.fingerprint import check_fingerprint, fingerprint, is_same_run
from sft.worker import Job, environment, train_rank

_RAY_NAME = "ray_train"
_MAX_FAILURES = 2  # restarts from the last checkpoint after a lost worker or node; none after a rank's coded error


def run_sft(config: Config) -> Path:
    """Train, or go on with, the run of ``config``; the best checkpoint's directory, ``run_dir/sft/best``.

    A run that is already complete is returned as it is.

    Raises:
        SFTError: ``no_studies``, ``no_region_masks`` (asked to supervise the attention without any),
            ``resume_mismatch`` (settings, data, images or pretrained weights changed since the last checkpoint),
            ``loss_not_finite``.
        StudyError: the studies cannot be read; ``resume_mismatch``, they are not those that the run has worked on.
        CodedError: any other of a rank's.
    """
    config = config.model_copy(update={"storage_path": Path(config.storage_path).resolve()})
    layout = RunLayout(config.run_dir)
    manifest = prepare_studies(config, again=not config.sft.resume)
    train, val = (
        _with_reports(studies_of(config, split), config, split) for split in ("train", "val")
    )
    _check_masks(train, config)
    tokenizer = build_tokenizer(
        config.model, [study.report(config.data.section) for study in train]
    )
    hashes = image_hashes([*train, *val], config.data)
    run = fingerprint(
        config, manifest, json.dumps(tokenizer.get_vocab(), sort_keys=True), hashes.values()
    )
    storage = _storage(config)
    if not config.sft.resume:
        _delete(layout.stage("sft"), _storage(config, f"sft/{_RAY_NAME}"))
        layout.metrics("sft").unlink(missing_ok=True)
    elif _is_complete(layout, config, run):
        return layout.best("sft")
    _check_mark(layout.sft_fingerprint, run)
    provenance = {"data_sha256": manifest_hash(manifest), "seed": config.seed, "stage": "sft"}
    train_files = FeatureFiles(train, config.data, hashes=hashes)
    val_files = FeatureFiles(val, config.data, beside=[train_files], hashes=hashes)
    job = Job(
        config, train, val, train_files, val_files, tokenizer, run, provenance, priors_of(config)
    )
    connect(config)
    warn_of_idle_gpus(config.sft.gpus_per_worker)
    _mark(
        layout.sft_fingerprint, run
    )  # now that it can start: settings that do not work leave the name free
    record_run(config, manifest)
    return _materialise(_fit(_trainer(job, storage)), layout)


def main(argv: list[str] | None = None) -> int:
    """Command line; bad input, or a file that cannot be read or written, ends with one sentence and exit code 2."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=config_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config",
        default="configs/demo.yaml",
        help="YAML file with settings (default: %(default)s)",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings that win over the file's"
    )
    args = parser.parse_intermixed_args(argv)
    return run_command("sft", lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    best = run_sft(load_config(args.config, args.overrides))
    print(f"best checkpoint: {best}")
    return 0


def _with_reports(studies: list[Study], config: Config, split: str) -> list[Study]:
    """The studies that have the section to learn; SFTError when none has."""
    kept = [study for study in studies if study.report(config.data.section).strip()]
    if not kept:
        raise SFTError("no_studies", f"no {split} study has a {config.data.section} section")
    return kept


def _check_masks(train: list[Study], config: Config) -> None:
    if config.sft.attention_weight and not any("masks" in study.truth for study in train):
        raise SFTError(
            "no_region_masks",
            "sft.attention_weight needs region masks, which only CT phantoms have",
        )


def _storage(config: Config, part: str = "sft") -> str:
    """Where Ray Train keeps its checkpoints: the run's folder, or below ``ray.checkpoint_storage`` (s3://...)."""
    return config.checkpoint_uri(part) or str(config.run_dir / part)


def _delete(folder: Path, storage: str) -> None:
    """The store goes first: where it fails, the models in the run's folder are still there."""
    filesystem, path = pyarrow.fs.FileSystem.from_uri(storage)
    if filesystem.get_file_info(path).type == pyarrow.fs.FileType.Directory:
        filesystem.delete_dir(path)
    shutil.rmtree(folder, ignore_errors=True)


def _check_mark(mark: Path, run: str) -> None:
    """Tell a mismatch before any work; SFTError ``resume_mismatch``."""
    if mark.is_file():
        check_fingerprint(mark.read_text(encoding="utf-8"), run)


def _mark(mark: Path, run: str) -> None:
    """Mark the folder as this run's."""
    mark.parent.mkdir(parents=True, exist_ok=True)
    with atomic_writer(mark) as out:
        out.write(run)


def _is_complete(layout: RunLayout, config: Config, run: str) -> bool:
    if not (layout.best("sft").is_dir() and layout.last("sft").is_dir()):
        return False
    provenance = read_checkpoint_config(layout.last("sft"))["provenance"]
    return is_same_run(provenance["fingerprint"], run) and provenance["epoch"] == config.sft.epochs


class _LocalTrainer(Trainer):
    """A trainer for a local cluster: no watcher that asks a dashboard, which is not there, every second."""

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        callbacks = super()._create_default_callbacks()
        return [
            callback
            for callback in callbacks
            if not isinstance(callback, PlacementGroupCleanerCallback)
        ]


def _trainer(job: Job, storage: str) -> Trainer:
    sft = job.config.sft
    resources = {"CPU": sft.cpus_per_worker} | (
        {"GPU": sft.gpus_per_worker} if sft.gpus_per_worker else {}
    )
    trainer = Trainer if job.config.ray.address or os.environ.get("RAY_ADDRESS") else _LocalTrainer
    # The controller takes a rank's report at its next poll, and the rank waits for that: 2 s by default.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    return trainer(
        train_rank,
        # By reference: Ray Train shows the loop's settings in its state, and reports do not belong there.
        train_loop_config={"job": ray.put(job)},
        torch_config=TorchConfig(backend="nccl" if sft.gpus_per_worker else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=sft.workers, use_gpu=sft.gpus_per_worker > 0, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name=_RAY_NAME,
            storage_path=storage,
            failure_config=FailureConfig(max_failures=_MAX_FAILURES),
            checkpoint_config=CheckpointConfig(
                num_to_keep=2, checkpoint_score_attribute="val_nll", checkpoint_score_order="min"
            ),
            logging_config=LoggingConfig(log_level="WARNING"),
            worker_runtime_env={"env_vars": environment(job.config)},
        ),
    )


def _fit(trainer: Trainer) -> ray.train.Result:
    """Train; what a rank has to say comes out as it was raised there."""
    try:
        return trainer.fit()
    except WorkerGroupError as error:
        if said := said_by_a_rank(error):
            raise said from error
        raise


def _materialise(result: ray.train.Result, layout: RunLayout) -> Path:
    """Copy the best and the last model directory out of Ray Train's storage; the best one's path."""
    best = result.get_best_checkpoint("val_nll", "min")
    if best is None or result.checkpoint is None:
        raise CheckpointError("missing_file", "the training run reported no checkpoint")
    for target, checkpoint in ((layout.best("sft"), best), (layout.last("sft"), result.checkpoint)):
        part = target.with_name(f".{target.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        with checkpoint.as_directory() as source:
            shutil.copytree(Path(source) / "model", part)
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
    return layout.best("sft")


if __name__ == "__main__":
    sys.exit(main())
