"""What every import of studies shares: the checks, the splits, the labels, the priors, and the audit of all four."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lmrrg.data.audit import audit_of, audit_table
from lmrrg.data.priors import link_priors, without_lost_priors
from lmrrg.data.source import Dropped, Source, label_value
from lmrrg.data.tables import read_csv
from lmrrg.files import atomic_writer
from lmrrg.manifest import check_patient_disjoint, write_studies
from lmrrg.progress import progress_bar
from lmrrg.studies import LABELS, Section, Split, Study, StudyError


@dataclass
class Import:
    """The studies of one source, and what happened on the way to them."""

    source: str
    section: Section
    studies: list[Study]
    rows: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    duplicates: Mapping[str, int] | None = None
    views: Mapping[str, int] | None = None

    def audit(self) -> dict[str, Any]:
        """Everything that was counted, ready for JSON."""
        return audit_of(
            self.source,
            self.section,
            self.studies,
            rows=self.rows,
            dropped=self.dropped,
            notes=self.notes,
            duplicates=self.duplicates,
            views=self.views,
        )

    def table(self) -> str:
        """The audit as text."""
        return audit_table(self.audit())


def complete(
    source: str,
    rows: Iterable[Study | Dropped],
    *,
    section: Section,
    seed: int,
    labels: Path | None = None,
    notes: Mapping[str, str] | None = None,
) -> Import:
    """:func:`complete_source` for rows about which nothing else is known."""
    return complete_source(
        Source(source, rows, notes=notes or {}), section=section, seed=seed, labels=labels
    )


def complete_source(
    source: Source,
    *,
    section: Section,
    seed: int,
    labels: Path | None = None,
    progress: bool = False,
) -> Import:
    """Turn the rows of a source into studies that training can use.

    Dropped and counted: studies without text in ``section`` and studies without a frontal image. A study without a
    split gets one by :func:`split_of_patient` when no study of the source has any; otherwise it is dropped, since its
    place in the source's own split is not known. Labels come from the file ``labels``, else from the study, else from
    the rule-based labeler on the section's text. Where the source has dates, a study is linked to its patient's
    previous one. With ``published_splits`` a study that has a split stays although it has lateral views only, and is
    counted in the notes: results on a published split compare only on all of it.

    Raises:
        StudyError: ``no_studies``, ``split_leak``, or any error of the manifest or of the labels file.
    """
    dropped: Counter[str] = Counter()
    kept: list[Study] = []
    rows = 0
    for row in progress_bar(
        source.rows, desc=source.name, total=source.total, unit="row", disable=not progress
    ):
        rows += 1
        reason = (
            row.reason
            if isinstance(row, Dropped)
            else _why_not(row, section, source.published_splits)
        )
        if reason:
            dropped[reason] += 1
        elif isinstance(row, Study):
            kept.append(row)
    notes = dict(source.notes)
    kept = _with_splits(kept, seed, source.val_share, dropped, notes)
    if not kept:
        raise StudyError(
            "no_studies", f"none of {rows} rows of {source.name} makes a study: {dict(dropped)}"
        )
    lateral_only = sum(_lateral_only(study) for study in kept)
    if lateral_only:
        notes["lateral views only"] = (
            f"{lateral_only} studies, kept since their split is a published one"
        )
    kept = _with_labels(kept, section, labels, source.id_of, notes, progress)
    kept = link_priors(without_lost_priors(kept), source.taken)
    check_patient_disjoint(kept)
    return Import(source.name, section, kept, rows, dropped, notes)


def audit_path(manifest: Path) -> Path:
    """Where the audit of a manifest lies."""
    return manifest.with_suffix(".audit.json")


def write_import(manifest: Path, imported: Import) -> Path:
    """Write the manifest and, beside it, ``<name>.audit.json``; both atomically. Returns the audit's path."""
    write_studies(manifest, imported.studies)
    path = audit_path(manifest)
    with atomic_writer(path) as out:
        json.dump(imported.audit(), out, indent=2, ensure_ascii=False)
    return path


def split_of_patient(patient: str, seed: int) -> Split:
    """The split of a patient by a hash of seed and id: 80 % train, 10 % val, 10 % test (ours)."""
    place = _place(patient, seed)
    return "train" if place < 0.8 else "val" if place < 0.9 else "test"


def read_labels(path: Path) -> dict[str, dict[str, int]]:
    """Read labels in CheXbert's output form: a ``study_id`` column and the 14 classes with 1, 0, -1 or blank.

    Raises:
        StudyError: ``labels_missing_file``, ``labels_columns``, ``labels_value``, ``labels_duplicate``, or
            ``source_csv`` (a row that does not fit the header, or a file that is no text).
    """
    if not path.is_file():
        raise StudyError("labels_missing_file", f"{path} does not exist")
    table: dict[str, dict[str, int]] = {}
    try:
        for number, row in enumerate(read_csv(path, {"study_id", *LABELS}), start=2):
            if row["study_id"] in table:
                raise StudyError("labels_duplicate", f"{path}:{number}: the study occurs twice")
            table[row["study_id"]] = {
                label: label_value(row[label], f"{path}:{number}: {label}")
                for label in LABELS
                if row[label].strip()
            }
    except StudyError as error:
        if error.code == "source_columns":
            raise StudyError("labels_columns", error.args[1]) from error
        raise
    return table


def _place(patient: str, seed: int) -> float:
    """A number in [0, 1) that a patient keeps."""
    digest = hashlib.sha256(f"{seed}/{patient}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _lateral_only(study: Study) -> bool:
    return all(image.view == "lateral" for image in study.images)


def _why_not(study: Study, section: Section, published_splits: bool) -> str:
    if not study.report(section).strip():
        return f"no text in the section {section}"
    if _lateral_only(study) and not (published_splits and study.split):
        return "no frontal image"
    return ""


def _with_splits(
    kept: list[Study], seed: int, val_share: float, dropped: Counter[str], notes: dict[str, str]
) -> list[Study]:
    if not any(study.split for study in kept):
        notes["splits made"] = f"80/10/10 by a hash of patient and seed {seed}"
        return [replace(study, split=split_of_patient(study.patient, seed)) for study in kept]
    outside = sum(study.split is None for study in kept)
    if outside:
        dropped["in no split of the source"] += outside
    if not val_share:
        return [study for study in kept if study.split]
    notes["val made"] = (
        f"{val_share:.0%} of the training patients by a hash of patient and seed {seed}"
    )
    return [
        replace(study, split="val")
        if study.split == "train" and _place(study.patient, seed) < val_share
        else study
        for study in kept
        if study.split
    ]


def _with_labels(
    kept: list[Study],
    section: Section,
    labels: Path | None,
    id_of: Callable[[str], str],
    notes: dict[str, str],
    progress: bool,
) -> list[Study]:
    if labels is not None:
        given = read_labels(labels)
        table = {id_of(study): values for study, values in given.items()} | given
        absent = sum(study.id not in table for study in kept)
        if absent:
            raise StudyError(
                "labels_missing", f"{labels} has no row for {absent} of {len(kept)} studies"
            )
        notes["labels"] = labels.name
        return [replace(study, labels=table[study.id]) for study in kept]
    without = sum(study.labels is None for study in kept)
    if not without:
        notes.setdefault("labels", "the source's own")
        return kept
    from lmrrg.metrics.embedded.labeler import label_report

    own = notes.get("labels", "the source's own") + ", and " if without < len(kept) else ""
    notes["labels"] = f"{own}the rule-based labeler for {without} of {len(kept)} studies"
    return [
        study
        if study.labels is not None
        else replace(study, labels=label_report(study.report(section)))
        for study in progress_bar(kept, desc="labels", unit="study", disable=not progress)
    ]
