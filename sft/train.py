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
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ray.train.v2.torch.torch_trainer import TorchTrainer
from transformers import PreTrainedTokenizerBase

from actors.placement import connect, require_listener, warn_of_idle_gpus
from lmrrg.config.data import DataConfig
from lmrrg.config.description import config_help
from lmrrg.config.loading import load_config, rebase
from lmrrg.config.sft import SFTConfig
from lmrrg.config.tree import Config
from lmrrg.errors import CodedError, run_command
from lmrrg.manifest import manifest_hash
from lmrrg.model.checkpoint import read_checkpoint_config
from lmrrg.model.decoder import build_tokenizer
from lmrrg.model.evidence import check_class_head
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
from sft.fingerprint import check_mark, fingerprint, is_same_run, write_mark
from sft.progress import training_bar
from sft.ray_train import (
    RAY_NAME,
    Best,
    copy_models,
    delete_checkpoints,
    fit,
    new_trainer,
    storage_of,
)
from sft.worker import Job, rank_environment, train_rank

logger = logging.getLogger(__name__)

_AFTER_INTERRUPT = "the same command continues after the last epoch that was finished"
_BEST = Best("criterion", "min")


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
        EvidenceError: ``no_evidence``, the image encoder has no class head.
        CodedError: ``own_code``, a function that the settings name is not there; any other coded
            error that a rank raised.
    """
    config = config.model_copy(update={"storage_path": Path(config.storage_path).resolve()})
    check_own_code(config)
    check_pretrained(config.model)
    check_class_head(config.model, config.data.image_size)
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
        delete_checkpoints(layout.stage("sft"), storage_of(config, f"sft/{RAY_NAME}"))
        layout.metrics("sft").unlink(missing_ok=True)
    elif is_complete(config, plan):
        return layout.best("sft")
    check_mark(config, "sft", plan.fingerprint)
    # What fails at once comes before the encoding of the images, which may take hours.
    require_wandb_key(config.tracking)
    require_listener(config.ray)
    job = _job(config, plan)
    connect(config.ray)
    warn_of_idle_gpus(config.sft.gpus_per_worker)
    # Only now, when everything has loaded: settings that cannot start leave the run's name free.
    write_mark(config, "sft", plan.fingerprint)
    record_run(config, plan.manifest)
    storage = storage_of(config, "sft")
    steps = config.sft.epochs * -(-len(plan.train) // config.sft.minibatch)
    with training_bar(config.run_dir, steps):
        result = fit(lambda: _trainer(job, storage))
    return copy_models(result, _BEST, layout, "sft")


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
    digest = manifest_hash(plan.manifest)
    return Job(
        config=rebase(config, Path.cwd()),
        train=plan.train,
        val=plan.val,
        train_files=train_files,
        val_files=features(plan.val, beside=[train_files]),
        tokenizer=plan.tokenizer,
        fingerprint=plan.fingerprint,
        provenance={
            "data_sha256": digest,
            "seed": config.seed,
            "section": config.data.section,
            "stage": "sft",
        },
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


def _trainer(job: Job, storage: str) -> TorchTrainer:
    return new_trainer(
        train_rank,
        job,
        storage,
        ranks=job.config.sft,
        best=_BEST,
        environment=rank_environment(job.config),
    )


if __name__ == "__main__":
    sys.exit(main())
