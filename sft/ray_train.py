"""What the training stages share around Ray Train: storage, attempts, copies of the models."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import pyarrow.fs
import ray
import ray.train
from ray.train import WorkerGroupError
from ray.train.torch import TorchConfig
from ray.train.v2.api.config import CheckpointConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.v2.torch.torch_trainer import TorchTrainer

from actors.placement import bundle
from lmrrg.config.base import Stage
from lmrrg.config.tree import Config
from lmrrg.errors import CodedError
from lmrrg.model.checkpoint import CheckpointError
from lmrrg.run.layout import RunLayout

logger = logging.getLogger(__name__)

RAY_NAME = "ray_train"
"""Name of Ray Train's own folder in the storage of a stage."""

MAX_FAILURES = 2
"""How often a run starts again from its last checkpoint after workers or nodes were lost."""


class Ranks(Protocol):
    """Settings of a stage that say how many ranks it has and what each of them reserves."""

    @property
    def workers(self) -> int:
        """Return the number of ranks."""

    @property
    def cpus_per_worker(self) -> float:
        """Return the CPUs of a rank."""

    @property
    def gpus_per_worker(self) -> float:
        """Return the GPUs of a rank."""


class Best(NamedTuple):
    """Which checkpoint is the best one: the metric that decides, and whether less is better."""

    metric: str
    order: Literal["min", "max"]


def storage_of(config: Config, part: str) -> str:
    """Return where Ray Train keeps the checkpoints of a stage, or of a folder inside one.

    That is the run's folder, or below ``ray.checkpoint_storage`` (s3://...) where it is set.
    """
    return config.checkpoint_uri(part) or str(config.run_dir / part)


def delete_checkpoints(folder: Path, storage: str) -> None:
    """Delete a stage's checkpoints in ``storage``, then its models in ``folder``."""
    # In this order: where the store fails, the models in the run's folder are still there.
    filesystem, path = pyarrow.fs.FileSystem.from_uri(storage)
    if filesystem.get_file_info(path).type == pyarrow.fs.FileType.Directory:
        filesystem.delete_dir(path)
    shutil.rmtree(folder, ignore_errors=True)


def new_trainer(
    train_rank: Callable[..., None],
    job: Any,
    storage: str,
    *,
    ranks: Ranks,
    best: Best,
    environment: Mapping[str, str],
) -> TorchTrainer:
    """Return a trainer of one attempt; it continues from the newest checkpoint in ``storage``.

    Args:
        train_rank: what each rank runs; it gets ``{"job": reference}``.
        job: everything that a rank needs.
        ranks: the stage's branch of the settings.
        best: the last checkpoint stays, and this one.
        environment: variables of each rank.
    """
    # The controller takes a rank's report at its next poll, and the rank waits for that. Ray's
    # default of 2 s would be most of a small model's epoch.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    return TorchTrainer(
        train_rank,
        # By reference: Ray Train shows these settings in its state, where reports must not appear.
        train_loop_config={"job": ray.put(job)},
        torch_config=TorchConfig(backend="nccl" if ranks.gpus_per_worker else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=ranks.workers,
            use_gpu=ranks.gpus_per_worker > 0,
            resources_per_worker=bundle(ranks.cpus_per_worker, ranks.gpus_per_worker),
        ),
        # Without a failure_config a lost worker ends the attempt: `fit` decides what comes next.
        run_config=RunConfig(
            name=RAY_NAME,
            storage_path=storage,
            checkpoint_config=CheckpointConfig(
                num_to_keep=2,
                checkpoint_score_attribute=best.metric,
                checkpoint_score_order=best.order,
            ),
            logging_config=LoggingConfig(log_level="WARNING"),
            worker_runtime_env={"env_vars": dict(environment)},
        ),
    )


def fit(make_trainer: Callable[[], TorchTrainer]) -> ray.train.Result:
    """Train to the end, in up to :data:`MAX_FAILURES` more attempts after the first.

    Ray Train retries every failure alike. This loop tells the two kinds apart: a rank's coded error
    ends the run at once, because the next attempt would meet the same input; anything else counts
    as a loss of workers, and a new attempt continues from the newest checkpoint.

    Raises:
        CodedError: as a rank raised it.
        KeyboardInterrupt: Ctrl-C; Ray Train has stopped the ranks.
        WorkerGroupError: workers were lost once too often.
    """
    failures = 0
    while True:
        try:
            return make_trainer().fit()
        except SystemExit as end:  # Ray Train's own answer to Ctrl-C
            raise KeyboardInterrupt from end
        except WorkerGroupError as error:
            if (refusal := _coded_error(error)) is not None:
                raise refusal from error
            failures += 1
            if failures > MAX_FAILURES:
                raise
            ranks = ", ".join(str(rank) for rank in sorted(error.worker_failures))
            logger.warning(
                "rank %s failed; starting again from the last checkpoint (%d of %d)",
                ranks,
                failures,
                MAX_FAILURES,
            )


def copy_models(result: ray.train.Result, best: Best, layout: RunLayout, stage: Stage) -> Path:
    """Copy the best and the last model out of Ray Train's storage; return the best one's path.

    Args:
        best: as :func:`new_trainer` got it.

    Raises:
        CheckpointError: ``missing_file``, no checkpoint was reported.
    """
    found = result.get_best_checkpoint(best.metric, best.order)
    if found is None or result.checkpoint is None:
        raise CheckpointError("missing_file", "the training run reported no checkpoint")
    _copy_model(found, layout.best(stage))
    _copy_model(result.checkpoint, layout.last(stage))
    return layout.best(stage)


def _copy_model(checkpoint: ray.train.Checkpoint, target: Path) -> None:
    # Copied beside and renamed: a model directory is whole whenever it has its name.
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    with checkpoint.as_directory() as source:
        shutil.copytree(Path(source) / "model", part)
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)


def _coded_error(error: WorkerGroupError) -> CodedError | None:
    """Return the coded error of the first rank that raised one.

    The other ranks mostly fail with a closed connection to it, which explains nothing.
    """
    for failure in error.worker_failures.values():
        if isinstance(failure, CodedError):
            return failure
    return None
