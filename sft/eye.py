"""Fine-tune the image encoder on the 14 classes before SFT, on Ray Train: the eye stage (**ours**).

    python sft/eye.py --config configs/iu_xray.yaml
    python sft/train.py --config configs/iu_xray.yaml \\
        model.image_encoder.weights=runs/iu_xray/eye/best

It starts from the packaged ImageNet weights of ``model.image_encoder.name``, whatever ``weights``
says. Every epoch ends with a validation, a calibration and a checkpoint. The best eye by average
precision on the validation studies and the last one become eye directories, ``<run>/eye/best`` and
``<run>/eye/last``. An interrupted run continues from its last checkpoint.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from ray.train.v2.torch.torch_trainer import TorchTrainer

from actors.deepspeed_setup import deepspeed_environment
from actors.placement import connect, require_listener, warn_of_idle_gpus
from lmrrg.config.description import config_help
from lmrrg.config.loading import load_config, rebase
from lmrrg.config.model import ImageEncoderConfig
from lmrrg.config.tree import Config
from lmrrg.errors import run_command
from lmrrg.manifest import manifest_hash
from lmrrg.model.classifier import label_targets
from lmrrg.own_code import is_own
from lmrrg.run.layout import RunLayout
from lmrrg.run.lock import run_lock
from lmrrg.run.record import record_run
from lmrrg.run.storage import require_storage, require_store
from lmrrg.run.studies import prepare_studies, studies_of
from lmrrg.run.tracking import require_wandb_key
from lmrrg.studies import Split, Study
from lmrrg.vision.encoder import encoder_info
from lmrrg.vision.eye import read_eye_settings
from lmrrg.vision.files import image_hashes
from lmrrg.vision.huggingface import HUGGINGFACE
from lmrrg.vision.squares import Squares
from sft.errors import SFTError
from sft.eye_worker import EyeJob, train_eye_rank
from sft.fingerprint import check_mark, eye_fingerprint, is_same_run, write_mark
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

_AFTER_INTERRUPT = "the same command continues after the last epoch that was finished"
_BEST = Best("val/average_precision", "max")


@dataclass(frozen=True, repr=False)
class EyePlan:
    """What the stage trains on, known before anything is decoded or started.

    There is no generated repr: it would print reports.

    Attributes:
        manifest: of the run's studies.
        train: labelled studies, in the manifest's order.
        val: the same of the validation split.
        hashes: SHA-256 of every image.
        fingerprint: identifies the run.
    """

    manifest: Path
    train: list[Study]
    val: list[Study]
    hashes: dict[Path, str]
    fingerprint: str


def run_eye(config: Config) -> Path:
    """Train or continue the eye of ``config``; return its best directory, ``run_dir/eye/best``.

    An eye that is already complete is returned as it is.

    Raises:
        SFTError: ``no_eye_stage`` (the settings have none, or an encoder of somebody's own);
            ``no_labels``; ``resume_mismatch``; ``loss_not_finite``.
        StudyError: the studies cannot be read; ``resume_mismatch``, the run began with others.
        FeatureError: ``no_positives``; ``image_size``; ``cache_too_small``.
        ImageError: ``refused_images``.
        TrackingError: ``run_in_use``; ``wandb_key``; ``not_writable``; ``checkpoint_store``.
    """
    config = config.model_copy(update={"storage_path": Path(config.storage_path).resolve()})
    check_eye_settings(config)
    require_storage(config)
    require_store(config, "eye")
    with run_lock(config.run_dir):
        return _run_locked(config)


def check_eye_settings(config: Config) -> None:
    """Fail fast where the settings have no eye stage that can run.

    Raises:
        SFTError: ``no_eye_stage``.
        FeatureError: ``image_size``, the encoder cannot take such squares.
    """
    if not config.eye.epochs:
        raise SFTError("no_eye_stage", "eye.epochs is 0: set how often to pass over the studies")
    name = config.model.image_encoder.name
    if is_own(name) or name == HUGGINGFACE:
        raise SFTError("no_eye_stage", f"the eye stage trains packaged encoders, not {name}")
    encoder_info(config.data.image_size, ImageEncoderConfig(name=name))


def _run_locked(config: Config) -> Path:
    """Do the work of :func:`run_eye` in a folder that nobody else works in."""
    layout = RunLayout(config.run_dir)
    plan = plan_eye(config, prepare_studies(config, again=not config.eye.resume))
    if not config.eye.resume:
        delete_checkpoints(layout.stage("eye"), storage_of(config, f"eye/{RAY_NAME}"))
        layout.metrics("eye").unlink(missing_ok=True)
    elif is_complete(config, plan):
        return layout.best("eye")
    check_mark(config, "eye", plan.fingerprint)
    # What fails at once comes before the decoding of the images, which may take hours.
    require_wandb_key(config.tracking)
    require_listener(config.ray)
    job = _job(config, plan)
    connect(config.ray)
    warn_of_idle_gpus(config.eye.gpus_per_worker)
    # Only now, when everything has loaded: settings that cannot start leave the run's name free.
    write_mark(config, "eye", plan.fingerprint)
    record_run(config, plan.manifest)
    storage = storage_of(config, "eye")
    steps = config.eye.epochs * -(-len(plan.train) // config.eye.minibatch)
    with training_bar(config.run_dir, steps, stage="eye", loss="loss"):
        result = fit(lambda: _trainer(job, storage))
    return copy_models(result, _BEST, layout, "eye")


def plan_eye(config: Config, manifest: Path) -> EyePlan:
    """Return what the stage would train on, and what it is known by; nothing is written.

    Raises:
        StudyError: ``manifest_missing`` or ``empty_split``.
        SFTError: ``no_labels``.
    """
    train = _labelled(config, "train")
    val = _labelled(config, "val")
    hashes = image_hashes([*train, *val], config.data)
    return EyePlan(manifest, train, val, hashes, eye_fingerprint(config, manifest, hashes.values()))


def is_complete(config: Config, plan: EyePlan) -> bool:
    """Return whether the stage has finished its last epoch."""
    layout = RunLayout(config.run_dir)
    if not (layout.best("eye").is_dir() and layout.last("eye").is_dir()):
        return False
    provenance = read_eye_settings(layout.last("eye"))["provenance"]
    is_same = is_same_run(provenance["fingerprint"], plan.fingerprint)
    return is_same and provenance["epoch"] == config.eye.epochs


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 2 after one sentence on bad input or an unusable file."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=config_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, help="YAML file with settings")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings that win over the file's"
    )
    args = parser.parse_intermixed_args(argv)
    return run_command("eye", lambda: _run(args), _AFTER_INTERRUPT)


def _run(args: argparse.Namespace) -> int:
    best = run_eye(load_config(args.config, args.overrides))
    print(f"best eye: {best}")
    return 0


def _job(config: Config, plan: EyePlan) -> EyeJob:
    """Return everything that a rank needs; the images are decoded here."""
    digest = manifest_hash(plan.manifest)
    return EyeJob(
        config=rebase(config, Path.cwd()),
        squares=Squares([*plan.train, *plan.val], config.data, plan.hashes),
        train_labels=label_targets(plan.train),
        val_labels=label_targets(plan.val),
        val_patients=[study.patient for study in plan.val],
        fingerprint=plan.fingerprint,
        provenance={
            "data_sha256": digest,
            "seed": config.seed,
            "stage": "eye",
            "image_size": config.data.image_size,
            "settings": config.eye.model_dump(mode="json"),
        },
    )


def _labelled(config: Config, split: Split) -> list[Study]:
    """Return the studies of a split that have labels.

    Raises:
        SFTError: ``no_labels``, none has.
    """
    kept = [study for study in studies_of(config, split) if study.labels is not None]
    if not kept:
        raise SFTError("no_labels", f"no {split} study has labels: see data.labels")
    return kept


def _trainer(job: EyeJob, storage: str) -> TorchTrainer:
    return new_trainer(
        train_eye_rank,
        job,
        storage,
        ranks=job.config.eye,
        best=_BEST,
        environment=deepspeed_environment(job.config.threads, job.config.eye.gpus_per_worker),
    )


if __name__ == "__main__":
    sys.exit(main())
