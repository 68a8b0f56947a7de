"""The steps that every import shares: checks, splits, labels, priors, and the audit of them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lmrrg.data.audit import audit_of, audit_table
from lmrrg.data.placeholders import is_empty_text, is_placeholder
from lmrrg.data.priors import link_priors, without_lost_priors
from lmrrg.data.source import NO_ID, Dropped, Source, labels_of_row
from lmrrg.data.tables import read_csv
from lmrrg.files import atomic_writer
from lmrrg.imaging.batch import RefusedImage
from lmrrg.manifest import check_patient_disjoint, write_studies
from lmrrg.progress import progress_bar
from lmrrg.studies import LABELS, Section, Split, Study, StudyError

_TRAIN_FRACTION = 0.8
_VAL_FRACTION = 0.1
_SOURCE_LABELS = "the source's own"


@dataclass
class Import:
    """The studies of one source, and what the import counted.

    Attributes:
        source: name of the data set.
        section: the section of the reports that is learned.
        studies: the studies that are kept, with split, labels and prior.
        rows: number of rows that the reader found.
        dropped: number of rows left out, by reason.
        notes: facts about the import, in words.
        examples: the first example of a reason to drop a row, such as the path of a missing file.
            The audit, which may be shared, has none of them.
        duplicates: counts of :func:`~lmrrg.data.audit.find_duplicates`; ``None`` if not asked for.
        views: counts of the view check; ``None`` if not asked for.
        image_check: counts of :func:`~lmrrg.data.image_check.check_images`; ``None`` if not asked
            for.
        refused: the image files that it found cannot be read.
    """

    source: str
    section: Section
    studies: list[Study]
    rows: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    examples: Mapping[str, str] = field(default_factory=dict)
    duplicates: Mapping[str, int] | None = None
    views: Mapping[str, int] | None = None
    image_check: Mapping[str, Any] | None = None
    refused: Sequence[RefusedImage] = ()

    def audit(self) -> dict[str, Any]:
        """Return everything that was counted, ready for JSON."""
        return audit_of(
            self.source,
            self.section,
            self.studies,
            rows=self.rows,
            dropped=self.dropped,
            notes=self.notes,
            duplicates=self.duplicates,
            views=self.views,
            images=self.image_check,
        )

    def table(self) -> str:
        """Return the audit as text, and the first example of each reason to drop a row."""
        lines = [f"{which}: {example}" for which, example in self.examples.items()]
        return "\n".join([audit_table(self.audit()), *lines])


def complete_source(
    source: Source,
    *,
    section: Section,
    seed: int,
    labels: Path | None = None,
    progress: bool = False,
) -> Import:
    """Turn the rows of a source into studies that training can use.

    - **Dropped** and counted are studies without an id or a patient, without text in ``section``,
      and without a frontal image. With ``published_splits``, a study that has a split and only
      lateral images stays and is counted in the notes, since results on a published split are
      comparable only on all of it.
    - **Splits** are those of the source. Where no study has one, they are made by
      :func:`split_of_patient`. Where some have one, a study without is dropped: which split it
      belongs to is not known.
    - **Labels** come from the file ``labels``, else from the study, else from the rule-based
      labeler on the section's text.
    - **Priors** are linked where the source has dates: to the patient's previous study.

    Raises:
        StudyError: ``no_studies``, ``split_leak``, or an error of the manifest or the labels file.
    """
    dropped: Counter[str] = Counter()
    examples: dict[str, str] = {}
    row_count, studies = _read_rows(source, section, dropped, examples, progress)
    # Copied only now: a reader may add notes until its last row is read.
    notes = dict(source.notes)
    studies = _with_splits(studies, seed, source.val_fraction, dropped, notes)
    if not studies:
        reasons = f"none of {row_count} rows of {source.name} makes a study: {dict(dropped)}"
        first = "".join(f"; {which}: {example}" for which, example in examples.items())
        raise StudyError("no_studies", f"{reasons}{first}")
    lateral_only = sum(map(_is_lateral_only, studies))
    if lateral_only:
        why = "kept since their split is a published one"
        notes["lateral views only"] = f"{lateral_only} studies, {why}"
    if labels is not None:
        studies = _with_labels_of_file(studies, labels, source.manifest_id, notes)
    else:
        studies = _with_labels_of_rules(studies, section, notes, progress)
    # A prior that the source names may have been dropped above. Dates come after the source's own
    # links, since they find the closest prior among the studies that were kept.
    studies = link_priors(without_lost_priors(studies), source.study_dates)
    check_patient_disjoint(studies)
    return Import(source.name, section, studies, row_count, dropped, notes, examples)


def audit_path(manifest: Path) -> Path:
    """Return the path of a manifest's audit."""
    return manifest.with_suffix(".audit.json")


def refused_path(manifest: Path) -> Path:
    """Return the path of the list of a manifest's images that cannot be read."""
    return manifest.with_suffix(".refused.csv")


def write_import(manifest: Path, imported: Import) -> Path:
    """Write the manifest and its audit, each atomically, and return the audit's path."""
    write_studies(manifest, imported.studies)
    path = audit_path(manifest)
    with atomic_writer(path) as out:
        json.dump(imported.audit(), out, indent=2, ensure_ascii=False)
    return path


def split_of_patient(patient: str, seed: int) -> Split:
    """Return a patient's split by a hash of seed and id: 80 % train, 10 % val, 10 % test (ours)."""
    fraction = _fraction_of_patient(patient, seed)
    if fraction < _TRAIN_FRACTION:
        return "train"
    return "val" if fraction < _TRAIN_FRACTION + _VAL_FRACTION else "test"


def read_labels(path: Path) -> dict[str, dict[str, int]]:
    """Read labels in CheXbert's output form, by study id.

    The file is a CSV with a column ``study_id`` and the 14 classes, each 1, 0, -1 or blank.

    Raises:
        StudyError: ``labels_missing_file``, ``labels_columns``, ``labels_value``,
            ``labels_duplicate``, or ``source_csv`` (a row that does not fit the header, or a file
            that is no text).
    """
    if not path.is_file():
        raise StudyError("labels_missing_file", f"{path} does not exist")
    table: dict[str, dict[str, int]] = {}
    try:
        # The header is line 1.
        for number, row in enumerate(read_csv(path, {"study_id", *LABELS}), start=2):
            if row["study_id"] in table:
                raise StudyError("labels_duplicate", f"{path}:{number}: the study occurs twice")
            table[row["study_id"]] = labels_of_row(row, f"{path}:{number}")
    except StudyError as error:
        if error.code == "source_columns":
            raise StudyError("labels_columns", error.args[1]) from error
        raise
    return table


def _read_rows(
    source: Source,
    section: Section,
    dropped: Counter[str],
    examples: dict[str, str],
    progress: bool,
) -> tuple[int, list[Study]]:
    """Return the number of rows and the usable studies.

    The others are counted in ``dropped``; the first example of each reason goes into ``examples``.
    """
    studies: list[Study] = []
    row_count = 0
    rows = progress_bar(
        source.rows, desc=source.name, total=source.total, unit="row", disable=not progress
    )
    for row in rows:
        row_count += 1
        if isinstance(row, Dropped):
            dropped[row.reason] += 1
            if row.example:
                examples.setdefault(f"first with {row.reason}", row.example)
        elif reason := _reason_to_drop(row, section, source.published_splits):
            dropped[reason] += 1
        else:
            studies.append(row)
    return row_count, studies


def _reason_to_drop(study: Study, section: Section, published_splits: bool) -> str:
    # "None" as a patient would be one patient for all, in one split.
    if is_placeholder(study.id) or is_placeholder(study.patient):
        return NO_ID
    if is_empty_text(study.report(section)):
        return f"no text in the section {section}"
    is_of_published_split = published_splits and study.split is not None
    if _is_lateral_only(study) and not is_of_published_split:
        return "no frontal image"
    return ""


def _is_lateral_only(study: Study) -> bool:
    return all(image.view == "lateral" for image in study.images)


def _with_splits(
    studies: list[Study],
    seed: int,
    val_fraction: float,
    dropped: Counter[str],
    notes: dict[str, str],
) -> list[Study]:
    if not any(study.split for study in studies):
        notes["splits made"] = f"80/10/10 by a hash of patient and seed {seed}"
        return [replace(study, split=split_of_patient(study.patient, seed)) for study in studies]
    inside = [study for study in studies if study.split]
    if len(inside) < len(studies):
        dropped["in no split of the source"] += len(studies) - len(inside)
    if not val_fraction:
        return inside
    which = f"{val_fraction:.0%} of the training patients"
    notes["val made"] = f"{which} by a hash of patient and seed {seed}"
    return [_moved_to_val(study, seed, val_fraction) for study in inside]


def _moved_to_val(study: Study, seed: int, val_fraction: float) -> Study:
    """Move a training study to val if its patient is among ``val_fraction`` of all."""
    if study.split == "train" and _fraction_of_patient(study.patient, seed) < val_fraction:
        return replace(study, split="val")
    return study


def _fraction_of_patient(patient: str, seed: int) -> float:
    """Return a number in [0, 1), uniform over patients and always the same for one of them.

    A hash instead of a random draw, so that a patient stays in its split when others are added.
    """
    digest = hashlib.sha256(f"{seed}/{patient}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _with_labels_of_file(
    studies: list[Study], path: Path, manifest_id: Callable[[str], str], notes: dict[str, str]
) -> list[Study]:
    by_id = read_labels(path)
    # The file's ids may be those of the source or, taken as they are, those of the manifest.
    labels = {manifest_id(study): values for study, values in by_id.items()} | by_id
    absent = sum(study.id not in labels for study in studies)
    if absent:
        message = f"{path} has no row for {absent} of {len(studies)} studies"
        raise StudyError("labels_missing", message)
    notes["labels"] = path.name
    return [replace(study, labels=labels[study.id]) for study in studies]


def _with_labels_of_rules(
    studies: list[Study], section: Section, notes: dict[str, str], progress: bool
) -> list[Study]:
    """Return the studies with labels: their own, or those that the rule-based labeler finds."""
    count = sum(study.labels is None for study in studies)
    if not count:
        notes.setdefault("labels", _SOURCE_LABELS)
        return studies
    # Imported here: the lexicon takes a moment to compile, and most sources bring their labels.
    from lmrrg.metrics.embedded.labeler import label_report

    own = ""
    if count < len(studies):
        own = f"{notes.get('labels', _SOURCE_LABELS)}, and "
    notes["labels"] = f"{own}the rule-based labeler for {count} of {len(studies)} studies"
    labelled = []
    for study in progress_bar(studies, desc="labels", unit="study", disable=not progress):
        if study.labels is None:
            study = replace(study, labels=label_report(study.report(section)))
        labelled.append(study)
    return labelled
