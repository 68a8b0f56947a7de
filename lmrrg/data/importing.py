"""What every import of studies shares: the checks, the labels, the splits, and the audit of all three."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from lmrrg.studies import (
    LABELS,
    NEGATIVE,
    POSITIVE,
    UNCERTAIN,
    Section,
    Split,
    Study,
    StudyError,
    atomic_writer,
    check_patient_disjoint,
    write_studies,
)

_SPLITS: tuple[Split, ...] = ("train", "val", "test")
_VALUES = {1.0: POSITIVE, 0.0: NEGATIVE, -1.0: UNCERTAIN}


@dataclass(frozen=True)
class Dropped:
    """A row of a source that makes no study, and why."""

    reason: str


@dataclass
class Import:
    """The studies of one source, and what happened on the way to them."""

    source: str
    section: Section
    studies: list[Study]
    rows: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    def audit(self) -> dict[str, object]:
        """Counts of rows, dropped rows by reason, splits, and labels, ready for JSON."""
        return {
            "source": self.source,
            "section": self.section,
            "rows_read": self.rows,
            "kept": len(self.studies),
            "dropped": dict(sorted(self.dropped.items())),
            "splits": dict(Counter(study.split or "none" for study in self.studies)),
            "images": sum(len(study.images) for study in self.studies),
            "abnormal": sum(study.is_abnormal for study in self.studies),
            "labels": {label: self._values_of(label) for label in LABELS},
            "notes": dict(self.notes),
        }

    def table(self) -> str:
        """The audit as text."""
        dropped = [f"  {count:7d}  {reason}" for reason, count in sorted(self.dropped.items())]
        splits = Counter(study.split or "none" for study in self.studies)
        rows = [f"{self.source}: {self.rows} rows read, {len(self.studies)} studies kept ({self.section})"]
        rows += ["dropped:", *dropped] if dropped else []
        rows.append("splits: " + ", ".join(f"{name} {count}" for name, count in splits.items()))
        rows += [f"{key}: {value}" for key, value in self.notes.items()]
        rows.append(f"{'label':28}{'positive':>10}{'negative':>10}{'uncertain':>11}{'prevalence':>12}")
        for label in LABELS:
            values = self._values_of(label)
            share = values["positive"] / max(1, len(self.studies))
            rows.append(
                f"{label:28}{values['positive']:10d}{values['negative']:10d}{values['uncertain']:11d}{share:12.1%}"
            )
        return "\n".join(rows)

    def _values_of(self, label: str) -> dict[str, int]:
        counts = Counter((study.labels or {}).get(label) for study in self.studies)
        return {"positive": counts[POSITIVE], "negative": counts[NEGATIVE], "uncertain": counts[UNCERTAIN]}


def complete(
    source: str,
    rows: Iterable[Study | Dropped],
    *,
    section: Section,
    seed: int,
    labels: Path | None = None,
    notes: Mapping[str, str] | None = None,
    published_splits: bool = False,
) -> Import:
    """Turn the rows of a source into studies that training can use.

    Dropped and counted: studies without text in ``section`` and studies without a frontal image. A study without a
    split gets one by :func:`split_of_patient` when no study of the source has any; otherwise it is dropped, since its
    place in the source's own split is not known. Labels come from the file ``labels``, else from the study, else from
    the rule-based labeler on the section's text. With ``published_splits`` a study that has a split stays although it
    has lateral views only, and is counted in the notes: results on a published split compare only on all of it.

    Raises:
        StudyError: ``no_studies``, or any error of the manifest or of the labels file.
    """
    dropped: Counter[str] = Counter()
    kept: list[Study] = []
    total = 0
    for row in rows:
        total += 1
        reason = row.reason if isinstance(row, Dropped) else _why_not(row, section, published_splits)
        if reason:
            dropped[reason] += 1
        elif isinstance(row, Study):
            kept.append(row)
    all_notes = dict(notes or {})
    kept = _with_splits(kept, seed, dropped, all_notes)
    if not kept:
        raise StudyError("no_studies", f"none of {total} rows of {source} makes a study: {dict(dropped)}")
    lateral_only = sum(_lateral_only(study) for study in kept)
    if lateral_only:
        all_notes["lateral views only"] = f"{lateral_only} studies, kept since their split is a published one"
    kept = _with_labels(kept, section, labels, all_notes)
    check_patient_disjoint(kept)
    return Import(source, section, kept, total, dropped, all_notes)


def write_import(manifest: Path, imported: Import) -> Path:
    """Write the manifest and, beside it, ``<name>.audit.json``; both atomically. Returns the audit's path."""
    write_studies(manifest, imported.studies)
    path = manifest.with_suffix(".audit.json")
    with atomic_writer(path) as out:
        json.dump(imported.audit(), out, indent=2)
    return path


def split_of_patient(patient: str, seed: int) -> Split:
    """The split of a patient by a hash of seed and id: 80 % train, 10 % val, 10 % test (ours)."""
    digest = hashlib.sha256(f"{seed}/{patient}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    return "train" if place < 0.8 else "val" if place < 0.9 else "test"


def read_labels(path: Path) -> dict[str, dict[str, int]]:
    """Read labels in CheXbert's output form: a ``study_id`` column and the 14 classes with 1, 0, -1 or blank.

    Raises:
        StudyError: ``labels_missing_file``, ``labels_columns``, ``labels_value`` or ``labels_duplicate``.
    """
    if not path.is_file():
        raise StudyError("labels_missing_file", f"{path} does not exist")
    table: dict[str, dict[str, int]] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        missing = sorted({"study_id", *LABELS} - set(reader.fieldnames or ()))
        if missing:
            raise StudyError("labels_columns", f"{path} lacks the columns {', '.join(missing)}")
        for number, row in enumerate(reader, start=2):
            if row["study_id"] in table:
                raise StudyError("labels_duplicate", f"{path}:{number}: the study occurs twice")
            table[row["study_id"]] = {
                label: _label_value(row[label], f"{path}:{number}: {label}")
                for label in LABELS
                if (row[label] or "").strip()
            }
    return table


def _label_value(text: str, where: str) -> int:
    try:
        return _VALUES[float(text)]
    except (ValueError, KeyError):
        raise StudyError("labels_value", f"{where}: {text!r} is not 1, 0, -1 or blank") from None


def _lateral_only(study: Study) -> bool:
    return all(image.view == "lateral" for image in study.images)


def _why_not(study: Study, section: Section, published_splits: bool) -> str:
    if not study.report(section).strip():
        return f"no text in the section {section}"
    if _lateral_only(study) and not (published_splits and study.split):
        return "no frontal image"
    return ""


def _with_splits(kept: list[Study], seed: int, dropped: Counter[str], notes: dict[str, str]) -> list[Study]:
    if any(study.split for study in kept):
        outside = [study for study in kept if not study.split]
        if outside:
            dropped["in no split of the source"] += len(outside)
        return [study for study in kept if study.split]
    notes["splits made"] = f"80/10/10 by a hash of patient and seed {seed}"
    return [replace(study, split=split_of_patient(study.patient, seed)) for study in kept]


def _with_labels(kept: list[Study], section: Section, labels: Path | None, notes: dict[str, str]) -> list[Study]:
    if labels is not None:
        table = read_labels(labels)
        absent = sum(study.id not in table for study in kept)
        if absent:
            raise StudyError("labels_missing", f"{labels} has no row for {absent} of {len(kept)} studies")
        notes["labels"] = labels.name
        return [replace(study, labels=table[study.id]) for study in kept]
    if all(study.labels is not None for study in kept):
        notes["labels"] = "the source's own"
        return kept
    from lmrrg.metrics.labeler import label_report

    notes["labels"] = "rule-based labeler where the source has none"
    return [
        study if study.labels is not None else replace(study, labels=label_report(study.report(section)))
        for study in kept
    ]
