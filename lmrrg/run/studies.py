"""The studies of a run: what SFT, PPO and evaluation read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from lmrrg.config.data import DataConfig
from lmrrg.config.tree import Config
from lmrrg.data.image_check import check_images, image_files
from lmrrg.data.importing import Import, write_import
from lmrrg.data.priors import prior_reports
from lmrrg.data.sources import import_studies
from lmrrg.imaging.batch import refusal
from lmrrg.manifest import manifest_hash, read_studies, write_studies
from lmrrg.run.layout import RunLayout
from lmrrg.run.origin import StudiesOrigin
from lmrrg.run.record import data_of_run
from lmrrg.studies import Split, Study, StudyError


class FoundStudies(NamedTuple):
    """The studies of a source, and the number of rows left out by reason."""

    studies: list[Study]
    dropped: Mapping[str, int]


def prepare_studies(config: Config, *, again: bool = False, progress: bool = True) -> Path:
    """Make the run's manifest from ``config.data``, or re-use the one made from the same.

    Beside the manifest lie its audit (what was kept and dropped) and its origin, which a later call
    compares with what the manifest would be made from then.

    Args:
        again: a stage starts anew, so the manifest may differ from the one that earlier stages of
            the run have worked on.

    Raises:
        StudyError: the source cannot be read; nothing is left half written. ``resume_mismatch``:
            the run has worked on other studies; they are as they were.
        TrackingError: ``run_record``, the run's ``run.json`` is damaged.
    """
    layout = RunLayout(config.run_dir)
    origin = StudiesOrigin.of(config)
    saved = StudiesOrigin.load(layout.studies_origin)
    if saved.is_of(layout.studies, origin):
        return layout.studies
    layout.root.mkdir(parents=True, exist_ok=True)
    # The manifest that a stage of the run has worked on; None before the first.
    bound_to = None if again else data_of_run(config.run_dir)
    if bound_to is None or saved.manifest != bound_to:
        # Phantoms are drawn over the old ones: if the import fails, the old manifest must not pass
        # for current.
        layout.studies_origin.unlink(missing_ok=True)
    else:
        # Before the first phantom is drawn over one that the run needs.
        _refuse_other_settings(config, saved, origin)
    imported = import_checked(config.data, layout.root, config.seed, progress=progress)
    if bound_to is not None:
        _refuse_other_studies(config, imported, bound_to)
    write_import(layout.studies, imported)
    origin.save(layout.studies_origin, layout.studies)
    return layout.studies


def check_studies(
    config: Config, *, again: bool = False, progress: bool = True
) -> FoundStudies | None:
    """Check what :func:`prepare_studies` would do, and write no manifest.

    Returns:
        What was found, or None where phantoms are still to be drawn.

    Raises:
        StudyError, TrackingError: as :func:`prepare_studies`.
    """
    layout = RunLayout(config.run_dir)
    origin = StudiesOrigin.of(config)
    saved = StudiesOrigin.load(layout.studies_origin)
    if saved.is_of(layout.studies, origin):
        audit = json.loads(layout.studies_audit.read_text(encoding="utf-8"))
        return FoundStudies(read_studies(layout.studies), audit["dropped"])
    bound_to = None if again else data_of_run(config.run_dir)
    if bound_to is not None and saved.manifest == bound_to:
        _refuse_other_settings(config, saved, origin)
    if config.data.source == "phantom":
        return None
    imported = import_checked(config.data, layout.root, config.seed, progress=progress)
    if bound_to is not None:
        _refuse_other_studies(config, imported, bound_to)
    return FoundStudies(imported.studies, imported.dropped)


def import_checked(
    data: DataConfig,
    folder: Path,
    seed: int,
    *,
    stop_at_refused: bool = True,
    progress: bool = True,
) -> Import:
    """Read the source that ``data`` names, and check its images and views where ``data`` says so.

    Args:
        folder: phantoms are drawn into ``folder/phantoms``.
        stop_at_refused: whether images that the check found unreadable end the import, unless they
            are left out.

    Raises:
        StudyError: the source cannot be read or has no usable study.
        ImageError: ``refused_images``, images that cannot be read.
    """
    imported = import_studies(data, folder, seed, progress=progress)
    if data.check_images or data.skip_refused_images:
        imported = check_images(imported, data, progress=progress)
        if imported.refused and stop_at_refused and not data.skip_refused_images:
            raise refusal(imported.refused, len(image_files(imported.studies)))
    if data.check_views:
        # Imported here because it loads torch, which the import of a data set can do without.
        from lmrrg.vision.view_classifier import checked_views

        imported.studies, imported.views = checked_views(imported.studies, data, progress=progress)
    return imported


def studies_of(config: Config, split: Split) -> list[Study]:
    """Return the studies of one split of the run's manifest, in its order.

    They are cut to ``data.train_limit`` or ``data.eval_limit``.

    Raises:
        StudyError: ``manifest_missing`` (call :func:`prepare_studies` first) or ``empty_split``.
    """
    studies = read_studies(RunLayout(config.run_dir).studies, split)
    require_split(studies, split)
    return studies[: config.data.train_limit if split == "train" else config.data.eval_limit]


def require_split(studies: Iterable[Study], split: Split) -> None:
    """Refuse studies of which none belongs to a split.

    Raises:
        StudyError: ``empty_split``.
    """
    if not any(study.split == split for study in studies):
        raise StudyError(
            "empty_split",
            f"the run's manifest has no studies in the split {split}",
        )


def priors_of(config: Config) -> dict[str, str]:
    """Return the prior reports for the prompts of the run's studies, by study id.

    Without ``model.use_prior`` there are none.

    Raises:
        StudyError: ``manifest_missing``.
    """
    if not config.model.use_prior:
        return {}
    # The whole manifest, not studies_of: a limit on the studies must not take a prior away.
    return prior_reports(read_studies(RunLayout(config.run_dir).studies), config.data.section)


def _refuse_other_settings(config: Config, saved: StudiesOrigin, origin: StudiesOrigin) -> None:
    """Refuse settings that would give other studies: StudyError ``resume_mismatch``."""
    if saved.settings == origin.settings:
        return
    keys = saved.changed_settings(origin)
    raise _other_studies(
        config,
        f"other values of {', '.join(keys)}"
        if keys
        else "the settings of the data, or the seed, are other ones",
    )


def _refuse_other_studies(config: Config, imported: Import, bound_to: str) -> None:
    """Refuse an import that gives another manifest: StudyError ``resume_mismatch``."""
    if _hash_of(imported, RunLayout(config.run_dir)) != bound_to:
        raise _other_studies(config, "the source, or how it is read, changed")


def _other_studies(config: Config, why: str) -> StudyError:
    return StudyError(
        "resume_mismatch",
        f"{config.run_dir} has worked on other studies: {why}; take those of before, another name, "
        "or sft.resume=false (PPO: ppo.resume=false) to start again",
    )


def _hash_of(imported: Import, layout: RunLayout) -> str:
    """Return the hash that the manifest would have, without writing it."""
    # In the run folder, because a manifest's paths are relative to its folder.
    draft = layout.root / ".studies.draft.jsonl"
    try:
        write_studies(draft, imported.studies)
        return manifest_hash(draft)
    finally:
        draft.unlink(missing_ok=True)
