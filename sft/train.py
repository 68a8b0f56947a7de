"""Run supervised fine-tuning on Ray Train with DeepSpeed: report cross-entropy plus disease loss.

    python sft/train.py --config configs/demo.yaml sft.epochs=5
    ray job submit --working-dir . -- python sft/train.py --config configs/iu_xray.yaml

Every epoch ends with a validation and a checkpoint. The best checkpoint, by validation NLL or by
the clinical F1 of what it writes (``sft.select_by``), and the last one become model directories,
``<run>/sft/best`` and ``<run>/sft/last``. An interrupted run continues from its last checkpoint,
and lost workers are replaced from it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow.fs
import ray
import ray.train
from ray.train import WorkerGroupError
from ray.train.torch import TorchConfig
from ray.train.v2.api.config import CheckpointConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.v2.torch.torch_trainer import TorchTrainer
from transformers import PreTrainedTokenizerBase

from actors.placement import bundle, connect, require_listener, warn_of_idle_gpus
from lmrrg.config.data import DataConfig
from lmrrg.config.description import config_help
from lmrrg.config.loading import load_config, rebase
from lmrrg.config.resume import binding_settings, changed_keys
from lmrrg.config.sft import SFTConfig
from lmrrg.config.tree import Config
from lmrrg.errors import CodedError, run_command
from lmrrg.files import atomic_writer
from lmrrg.manifest import manifest_hash
from lmrrg.model.checkpoint import CheckpointError, read_checkpoint_config
from lmrrg.model.decoder import build_tokenizer
from lmrrg.model.evidence import require_evidence
from lmrrg.model.pretrained import check_pretrained
from lmrrg.model.prompts import check_prompt_length
from lmrrg.policy.start_checks import check_own_code, check_ppo
from lmrrg.run.layout import RunLayout
from lmrrg.run.lock import run_lock
from lmrrg.run.record import record_run
from lmrrg.run.storage import require_storage, require_store
from lmrrg.run.studies import prepare_studies, priors_of, studies_of
from lmrrg.run.tracking import require_wandb_key
from lmrrg.studies import Study
from lmrrg.vision.files import FeatureFiles, image_hashes
from sft.errors import SFTError
from sft.fingerprint import check_fingerprint, fingerprint, is_same_run
from sft.progress import training_bar
from sft.worker import Job, rank_environment, train_rank

logger = logging.getLogger(__name__)

_RAY_NAME = "ray_train"
_AFTER_INTERRUPT = "the same command continues after the last epoch that was finished"
_MAX_FAILURES = 2
"""How often a run starts again from its last checkpoint after workers or nodes were lost."""


@dataclass(frozen=True, repr=False)
class Plan:
    """What a run trains on, known before anything is encoded or started.

    There is no generated repr: it would print reports.

    Attributes:
        manifest: of the run's studies.
        train: studies with a report, in the manifest's order.
        val: the same of the validation split.
        tokenizer: of the decoder.
        hashes: SHA-256 of every image that the model sees.
        fingerprint: identifies the run.
    """

    manifest: Path
    train: list[Study]
    val: list[Study]
    tokenizer: PreTrainedTokenizerBase
    hashes: dict[Path, str]
    fingerprint: str


def run_sft(config: Config) -> Path:
    """Train or continue the run of ``config``; return its best checkpoint, ``run_dir/sft/best``.

    A run that is already complete is returned as it is.

    Raises:
        SFTError: ``no_studies``; ``no_region_masks`` (the attention is to be supervised, and no
            study has masks); ``resume_mismatch`` (settings, data, images or pretrained weights
            changed since the last checkpoint); ``loss_not_finite``.
        StudyError: the studies cannot be read; ``resume_mismatch``, the run began with others.
        TrackingError: ``run_in_use``, another command works on the run; ``wandb_key``;
            ``not_writable``; ``checkpoint_store``.
        CodedError: ``own_code``, a function that the settings name is not there; any other coded
            error that a rank raised.
    """
    config = config.model_copy(update={"storage_path": Path(config.storage_path).resolve()})
    check_own_code(config)
    check_pretrained(config.model)
    _warn_of_ppo(config)
    require_storage(config)
    require_store(config, "sft")
    with run_lock(config.run_dir):
        return _run_locked(config)


def _run_locked(config: Config) -> Path:
    """Do the work of :func:`run_sft` in a folder that nobody else works in."""
    layout = RunLayout(config.run_dir)
    plan = plan_run(config, prepare_studies(config, again=not config.sft.resume))
    if not config.sft.resume:
        _delete(layout.stage("sft"), _storage(config, f"sft/{_RAY_NAME}"))
        layout.metrics("sft").unlink(missing_ok=True)
    elif is_complete(config, plan):
        return layout.best("sft")
    check_mark(config, plan)
    # What fails at once comes before the encoding of the images, which may take hours.
    require_wandb_key(config.tracking)
    require_listener(config.ray)
    job = _job(config, plan)
    connect(config.ray)
    warn_of_idle_gpus(config.sft.gpus_per_worker)
    # Only now, when everything has loaded: settings that cannot start leave the run's name free.
    _mark(config, plan)
    record_run(config, plan.manifest)
    storage = _storage(config)
    steps = config.sft.epochs * -(-len(plan.train) // config.sft.minibatch)
    with training_bar(config.run_dir, steps):
        result = _fit(lambda: _trainer(job, storage))
    return _copy_models(result, layout)


def plan_run(config: Config, manifest: Path) -> Plan:
    """Return what a run would train on, and what it is known by; nothing of the run is written.

    Raises:
        StudyError: ``manifest_missing`` or ``empty_split``.
        SFTError: ``no_studies`` or ``no_region_masks``.
        DecoderError: as :func:`~lmrrg.model.decoder.build_tokenizer`; ``prompt_too_long``.
    """
    train = _with_reports(studies_of(config, "train"), config.data, "train")
    val = _with_reports(studies_of(config, "val"), config.data, "val")
    _check_masks(train, config.sft)
    reports = [study.report(config.data.section) for study in train]
    tokenizer = build_tokenizer(config.model, reports)
    check_prompt_length(tokenizer, config)
    vocabulary = json.dumps(tokenizer.get_vocab(), sort_keys=True)
    hashes = image_hashes([*train, *val], config.data)
    run = fingerprint(config, manifest, vocabulary, hashes.values())
    return Plan(manifest, train, val, tokenizer, hashes, run)


def check_mark(config: Config, plan: Plan) -> None:
    """Fail fast where the run's folder belongs to another run.

    Raises:
        SFTError: ``resume_mismatch``, with the settings that differ.
    """
    layout = RunLayout(config.run_dir)
    if not layout.sft_fingerprint.is_file():
        return
    changed: list[str] = []
    if layout.sft_settings.is_file():
        saved = json.loads(layout.sft_settings.read_text(encoding="utf-8"))
        changed = changed_keys(saved, binding_settings(config, "sft"))
    found = layout.sft_fingerprint.read_text(encoding="utf-8")
    check_fingerprint(found, plan.fingerprint, changed)


def is_complete(config: Config, plan: Plan) -> bool:
    """Return whether the run has finished its last epoch."""
    layout = RunLayout(config.run_dir)
    if not (layout.best("sft").is_dir() and layout.last("sft").is_dir()):
        return False
    provenance = read_checkpoint_config(layout.last("sft"))["provenance"]
    is_same = is_same_run(provenance["fingerprint"], plan.fingerprint)
    return is_same and provenance["finished"]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 2 after one sentence on bad input or an unusable file."""
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
    return run_command("sft", lambda: _run(args), _AFTER_INTERRUPT)


def _run(args: argparse.Namespace) -> int:
    best = run_sft(load_config(args.config, args.overrides))
    print(f"best checkpoint: {best}")
    return 0


def _warn_of_ppo(config: Config) -> None:
    """Warn of what PPO will refuse: fine-tuning alone can do without it."""
    try:
        check_ppo(config, config.model.decoder.pretrained)
    except CodedError as refusal:
        logger.warning("SFT goes on, but PPO will refuse this: %s", refusal)


def _job(config: Config, plan: Plan) -> Job:
    """Return everything that a rank needs; the images are encoded here."""
    features = partial(
        FeatureFiles, data=config.data, hashes=plan.hashes, encoder=config.model.image_encoder
    )
    train_files = features(plan.train)
    if config.model.uses_evidence:
        require_evidence(train_files.select([0]))
    digest = manifest_hash(plan.manifest)
    return Job(
        config=rebase(config, Path.cwd()),
        train=plan.train,
        val=plan.val,
        train_files=train_files,
        val_files=features(plan.val, beside=[train_files]),
        tokenizer=plan.tokenizer,
        fingerprint=plan.fingerprint,
        provenance={"data_sha256": digest, "seed": config.seed, "stage": "sft"},
        priors=priors_of(config),
    )


def _with_reports(studies: list[Study], data: DataConfig, split: str) -> list[Study]:
    """Return the studies that have the section of the report to learn.

    Raises:
        SFTError: ``no_studies``, none has it.
    """
    kept = [study for study in studies if study.report(data.section).strip()]
    if not kept:
        raise SFTError("no_studies", f"no {split} study has a {data.section} section")
    return kept


def _check_masks(train: list[Study], sft: SFTConfig) -> None:
    if sft.attention_weight and not any("masks" in study.truth for study in train):
        raise SFTError(
            "no_region_masks",
            "sft.attention_weight needs region masks, which only CT phantoms have",
        )


def _storage(config: Config, part: str = "sft") -> str:
    """Return where Ray Train keeps its checkpoints.

    That is the run's folder, or below ``ray.checkpoint_storage`` (s3://...) where it is set.
    """
    return config.checkpoint_uri(part) or str(config.run_dir / part)


def _delete(folder: Path, storage: str) -> None:
    """Delete a run's checkpoints in ``storage``, then its models in ``folder``."""
    # In this order: where the store fails, the models in the run's folder are still there.
    filesystem, path = pyarrow.fs.FileSystem.from_uri(storage)
    if filesystem.get_file_info(path).type == pyarrow.fs.FileType.Directory:
        filesystem.delete_dir(path)
    shutil.rmtree(folder, ignore_errors=True)


def _mark(config: Config, plan: Plan) -> None:
    """Write the run's fingerprint, and the settings behind it, into its folder."""
    layout = RunLayout(config.run_dir)
    layout.stage("sft").mkdir(parents=True, exist_ok=True)
    with atomic_writer(layout.sft_settings) as out:
        json.dump(binding_settings(config, "sft"), out, indent=1)
    with atomic_writer(layout.sft_fingerprint) as out:
        out.write(plan.fingerprint)


def _trainer(job: Job, storage: str) -> TorchTrainer:
    """Return a trainer of one attempt; it continues from the newest checkpoint in ``storage``."""
    sft = job.config.sft
    # The controller takes a rank's report at its next poll, and the rank waits for that. Ray's
    # default of 2 s would be most of a small model's epoch.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    return TorchTrainer(
        train_rank,
        # By reference: Ray Train shows these settings in its state, where reports must not appear.
        train_loop_config={"job": ray.put(job)},
        torch_config=TorchConfig(backend="nccl" if sft.gpus_per_worker else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=sft.workers,
            use_gpu=sft.gpus_per_worker > 0,
            resources_per_worker=bundle(sft.cpus_per_worker, sft.gpus_per_worker),
        ),
        # Without a failure_config a lost worker ends the attempt: `_fit` decides what comes next.
        run_config=RunConfig(
            name=_RAY_NAME,
            storage_path=storage,
            checkpoint_config=CheckpointConfig(
                num_to_keep=2, checkpoint_score_attribute="criterion", checkpoint_score_order="min"
            ),
            logging_config=LoggingConfig(log_level="WARNING"),
            worker_runtime_env={"env_vars": rank_environment(job.config)},
        ),
    )


def _fit(new_trainer: Callable[[], TorchTrainer]) -> ray.train.Result:
    """Train to the end, in up to ``_MAX_FAILURES`` more attempts after the first.

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
            return new_trainer().fit()
        except SystemExit as end:  # Ray Train's own answer to Ctrl-C
            raise KeyboardInterrupt from end
        except WorkerGroupError as error:
            if (refusal := _coded_error(error)) is not None:
                raise refusal from error
            failures += 1
            if failures > _MAX_FAILURES:
                raise
            ranks = ", ".join(str(rank) for rank in sorted(error.worker_failures))
            logger.warning(
                "rank %s failed; starting again from the last checkpoint (%d of %d)",
                ranks,
                failures,
                _MAX_FAILURES,
            )


def _coded_error(error: WorkerGroupError) -> CodedError | None:
    """Return the coded error of the first rank that raised one.

    The other ranks mostly fail with a closed connection to it, which explains nothing.
    """
    for failure in error.worker_failures.values():
        if isinstance(failure, CodedError):
            return failure
    return None


def _copy_models(result: ray.train.Result, layout: RunLayout) -> Path:
    """Copy the best and the last model out of Ray Train's storage; return the best one's path."""
    best = result.get_best_checkpoint("criterion", "min")
    if best is None or result.checkpoint is None:
        raise CheckpointError("missing_file", "the training run reported no checkpoint")
    _copy_model(best, layout.best("sft"))
    _copy_model(result.checkpoint, layout.last("sft"))
    return layout.best("sft")


def _copy_model(checkpoint: ray.train.Checkpoint, target: Path) -> None:
    # Copied beside and renamed: a model directory is whole whenever it has its name.
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    with checkpoint.as_directory() as source:
        shutil.copytree(Path(source) / "model", part)
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)


if __name__ == "__main__":
    sys.exit(main())
