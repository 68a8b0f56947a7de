"""The studies of a run: what SFT, PPO and evaluation read."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from lmrrg.config.data import DataConfig
from lmrrg.config.tree import Config
from lmrrg.data.importing import Import, write_import
from lmrrg.data.phantom.drawn import dataset as phantom
from lmrrg.data.priors import prior_reports
from lmrrg.data.sources import READERS_VERSION, import_studies
from lmrrg.files import atomic_writer
from lmrrg.manifest import manifest_hash, read_studies, write_studies
from lmrrg.run.layout import RunLayout
from lmrrg.studies import Split, Study, StudyError

logger = logging.getLogger(__name__)

_TABLES: dict[str, tuple[str, ...]] = {
    "iu-xray": (
        "indiana_*.csv",
        "nlmcxr_dicom_metadata.csv*",
        "NLMCXR_reports.tgz",
        "r2gen_annotation.json",
    ),
    "mimic-cxr": ("mimic-cxr-2.0.0-*.csv*", "mimic-cxr-reports.zip"),
    "chexpert-plus": ("df_chexpert_plus_240401.csv*", "chexbert_labels/*.json"),
    "padchest": ("PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv*",),
    "padchest-gr": ("grounded_reports_20240819.json", "master_table.csv*"),
    "rexgradient": ("metadata/*_metadata_view_position.json",),
    "r2gen": ("annotation.json", "mimic-cxr-2.0.0-metadata.csv*"),
}
"""The files with texts, labels and splits in the folder of a source; where the source is a file, it is that file."""


_SETTINGS = ("source", "path", "images", "labels", "section", "ids", "phantom", "check_views")
"""The settings of ``config.data`` that decide what the manifest holds."""


def prepare_studies(config: Config, *, again: bool = False, progress: bool = True) -> Path:
    """Make ``config.run_dir/studies.jsonl`` from ``config.data``, or re-use the one made from the same.

    Beside it lie ``studies.audit.json`` (what was kept and dropped) and ``studies.made_from.json``, which a later call
    compares: hashes of the settings and of the manifest, the readers' revision, size and time of the source's tables.
    Texts in single files (unpacked reports) and images are not compared, and a source that is gone has not changed.

    Args:
        again: a stage starts anew, so the manifest may become another one than the run has worked on.

    Raises:
        StudyError: the source cannot be read; nothing is left half written. ``resume_mismatch``: the run has worked on
            other studies, and nothing of it was changed.
        TrackingError: ``run_record``, the run's ``run.json`` is damaged.
    """
    layout = RunLayout(config.run_dir)
    manifest = layout.studies
    made_from = layout.studies_origin
    made = {
        "settings": _settings_hash(config),
        "readers": READERS_VERSION,
        "tables": _tables(config.data),
    }
    known = _read_record(made_from)
    if manifest.is_file() and _is_current(manifest, known, made):
        return manifest
    manifest.parent.mkdir(parents=True, exist_ok=True)
    learnt = None if again else _learnt(config)
    if known.get("manifest", "") != learnt:
        made_from.unlink(
            missing_ok=True
        )  # phantoms are drawn over the old ones: those of a failed import are no use
    elif known.get("settings") != made["settings"]:  # told before the first phantom is drawn
        raise _other_studies(config, "the settings of the data, or the seed, are other ones")
    imported = import_checked(config.data, manifest.parent, config.seed, progress=progress)
    if learnt is not None and _hash_of(imported, manifest) != learnt:
        raise _other_studies(config, "the source, or how it is read, changed")
    write_import(manifest, imported)
    with atomic_writer(made_from) as out:
        json.dump(made | {"manifest": manifest_hash(manifest)}, out)
    return manifest


def import_checked(data: DataConfig, folder: Path, seed: int, *, progress: bool = True) -> Import:
    """Read the source that ``data`` names, with the view check where ``data.check_views`` asks for it.

    Args:
        folder: phantoms are drawn into ``folder/phantoms``.

    Raises:
        StudyError: the source cannot be read or has no usable study.
        ImageError: the view check met an image that cannot be read.
    """
    imported = import_studies(data, folder, seed, progress=progress)
    if data.check_views:
        # Loads torch, which the import of a data set can do without.
        from lmrrg.vision.view_classifier import checked_views

        imported.studies, imported.views = checked_views(imported.studies, data, progress=progress)
    return imported


def studies_of(config: Config, split: Split) -> list[Study]:
    """The studies of one split of the run's manifest, in its order, cut to ``train_limit`` or ``eval_limit``.

    Raises:
        StudyError: ``manifest_missing`` (call :func:`prepare_studies` first) or ``empty_split``.
    """
    studies = read_studies(RunLayout(config.run_dir).studies, split)
    if not studies:
        raise StudyError("empty_split", f"the run's manifest has no studies in the split {split}")
    return studies[: config.data.train_limit if split == "train" else config.data.eval_limit]


def priors_of(config: Config) -> dict[str, str]:
    """The prior reports that belong into the prompts of the run's studies, by study id; none without ``use_prior``.

    The whole manifest is read: a limit on the studies of a split must not take a prior away.

    Raises:
        StudyError: ``manifest_missing``.
    """
    if not config.model.use_prior:
        return {}
    return prior_reports(read_studies(RunLayout(config.run_dir).studies), config.data.section)


def _settings_hash(config: Config) -> str:
    settings = {name: config.data.model_dump(mode="json")[name] for name in _SETTINGS}
    version = [phantom.VERSION]
    if config.data.phantom.generator == "ct":
        from lmrrg.data.phantom.ct import dataset as phantom_ct

        version = [phantom_ct.VERSION, phantom_ct.REVISION]
    text = json.dumps([settings, config.seed, version], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _tables(data: DataConfig) -> dict[str, list[int]]:
    """Size and time of every table that the studies come from; nothing where the source has none, or is gone."""
    if data.path is None:
        return {}
    folder = data.path.parent if data.path.is_file() else data.path
    named = [path for pattern in _TABLES.get(data.source, ()) for path in folder.glob(pattern)]
    tables = [path for path in (data.path, *named) if path.is_file()]
    if tables and data.labels is not None and data.labels.is_file():
        tables.append(data.labels)
    return {str(path): [path.stat().st_size, path.stat().st_mtime_ns] for path in tables}


def _learnt(config: Config) -> str | None:
    from lmrrg.run.record import (
        data_of_run,
    )  # brings wandb, which an import of studies can do without

    return data_of_run(config.run_dir)


def _other_studies(config: Config, why: str) -> StudyError:
    advice = "take those of before, another name, or sft.resume=false (PPO: ppo.resume=false) to start again"
    return StudyError(
        "resume_mismatch", f"{config.run_dir} has worked on other studies: {why}; {advice}"
    )


def _hash_of(imported: Import, manifest: Path) -> str:
    """The hash that ``manifest`` would have; it is left as it is."""
    draft = manifest.with_name(
        ".studies.draft.jsonl"
    )  # in the same folder, to which its paths are relative
    try:
        write_studies(draft, imported.studies)
        return manifest_hash(draft)
    finally:
        draft.unlink(missing_ok=True)


def _read_record(made_from: Path) -> dict[str, Any]:
    """What the manifest was made from; nothing where that is not known."""
    try:
        known = json.loads(made_from.read_text(encoding="utf-8")) if made_from.is_file() else {}
    except ValueError:
        return {}
    return known if isinstance(known, dict) else {}


def _is_current(manifest: Path, known: dict[str, Any], made: dict[str, Any]) -> bool:
    if known.get("settings") != made["settings"] or known.get("manifest") != manifest_hash(
        manifest
    ):
        return False
    for name, what in (("tables", "the source's tables"), ("readers", "how the source is read")):
        # a record of an earlier version has neither and stays good; nor does a source that is gone make it bad
        if made[name] and known.get(name, made[name]) != made[name]:
            logger.warning("%s is made anew: %s changed", manifest, what)
            return False
    return all(image.path.is_file() for study in read_studies(manifest) for image in study.images)
