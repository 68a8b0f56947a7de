"""The JSONL manifest of studies: written atomically, checked when read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import cast, get_args

from lmrrg.files import atomic_writer
from lmrrg.studies import (
    LABELS,
    NEGATIVE,
    POSITIVE,
    UNCERTAIN,
    Split,
    Study,
    StudyError,
    StudyImage,
    View,
)

_TYPES: Mapping[str, type] = {
    **dict.fromkeys(
        ("id", "patient", "findings", "impression", "indication", "comparison", "source", "prior"),
        str,
    ),
    **dict.fromkeys(("labels", "truth"), dict),
}


_MAY_BE_NULL = ("prior", "labels")


def write_studies(path: Path, studies: Iterable[Study]) -> int:
    """Write a JSONL manifest atomically; image paths inside its folder are stored relative to it.

    Returns the number of records.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with atomic_writer(path) as out:
        for study in studies:
            out.write(
                json.dumps(
                    _to_record(study, Path(os.path.abspath(path.parent))), ensure_ascii=False
                )
                + "\n"
            )
            count += 1
    return count


def read_studies(path: Path, split: Split | None = None) -> list[Study]:
    """Read a JSONL manifest, optionally one split of it.

    Raises:
        StudyError: ``manifest_missing``, ``manifest_line`` (not JSON in UTF-8, unknown or missing field, bad value),
            ``duplicate_id``, ``split_leak`` (one patient in two splits) or ``bad_prior``.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder, no manifest" if path.is_dir() else "does not exist"
        raise StudyError("manifest_missing", f"{path} {what}; make one with `lmrrg data --help`")
    studies = []
    with path.open("rb") as lines:  # decoded one by one, so that an error names its line
        for number, line in enumerate(lines, start=1):
            if line.strip():
                studies.append(_from_line(line, path, number))
    check_patient_disjoint(studies)
    check_priors(studies)
    return [s for s in studies if split is None or s.split == split]


def check_patient_disjoint(studies: Iterable[Study]) -> None:
    """Raise :class:`StudyError` when an id occurs twice or a patient occurs in two splits."""
    ids: set[str] = set()
    split_of: dict[str, Split] = {}
    for study in studies:
        if study.id in ids:
            raise StudyError("duplicate_id", f"study {study.id} occurs twice")
        ids.add(study.id)
        if (
            study.split is not None
            and split_of.setdefault(study.patient, study.split) != study.split
        ):
            raise StudyError(
                "split_leak",
                f"patient of study {study.id} is in both {split_of[study.patient]} and {study.split}",
            )


def check_priors(studies: Iterable[Study]) -> None:
    """Raise :class:`StudyError` ``bad_prior`` when a prior is no other study of the same patient among ``studies``."""
    studies = list(studies)
    patient_of = {study.id: study.patient for study in studies}
    for study in studies:
        if study.prior is not None and (
            study.prior == study.id or patient_of.get(study.prior) != study.patient
        ):
            raise StudyError(
                "bad_prior", f"the prior of study {study.id} is no other study of its patient here"
            )


def manifest_hash(path: Path) -> str:
    """SHA-256 of a manifest's bytes: the data hash that every run records."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _to_record(study: Study, folder: Path) -> dict[str, object]:
    record = asdict(study)
    record["images"] = [
        {"path": _relative(image.path, folder), "view": image.view} for image in study.images
    ]
    if not record["truth"]:
        del record["truth"]
    return {
        key: value for key, value in record.items() if value not in ("", None)
    }  # labels {}: nothing is mentioned


def _relative(path: Path, folder: Path) -> str:
    path = Path(os.path.abspath(path))  # not resolved: what a link hides may be an identifier
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def _from_line(line: bytes, manifest: Path, number: int) -> Study:
    try:
        record = json.loads(line.decode("utf-8"))
        images = tuple(
            StudyImage(manifest.parent / image["path"], _view(image.get("view", "unknown")))
            for image in record.pop("images")
        )
        study = Study(images=images, **record)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StudyError("manifest_line", f"{manifest}:{number}: {error}") from error
    _check_types(study, f"{manifest}:{number}")
    _check(study, f"{manifest}:{number}")
    return study


def _view(value: str) -> View:
    if value not in get_args(View):
        raise ValueError(f"view {value!r} is not one of {', '.join(get_args(View))}")
    return cast(View, value)


def _check_types(study: Study, where: str) -> None:
    """A dataclass takes any value, and a wrong one would fail far from its line."""
    for name, kind in _TYPES.items():
        value = getattr(study, name)
        if not isinstance(value, kind) and not (value is None and name in _MAY_BE_NULL):
            raise StudyError(
                "manifest_line", f"{where}: {name} is no {'text' if kind is str else 'mapping'}"
            )


def _check(study: Study, where: str) -> None:
    if not study.id.strip():
        raise StudyError("manifest_line", f"{where}: the id is empty")
    if not study.images:
        raise StudyError("manifest_line", f"{where}: study {study.id} has no images")
    if study.split is not None and study.split not in get_args(Split):
        raise StudyError(
            "manifest_line",
            f"{where}: split {study.split!r} is not one of {', '.join(get_args(Split))}",
        )
    for label, value in (study.labels or {}).items():
        if (
            label not in LABELS
            or isinstance(value, bool)
            or value not in (POSITIVE, NEGATIVE, UNCERTAIN)
        ):
            raise StudyError(
                "manifest_line",
                f"{where}: {label!r}: {value!r} is no CheXbert class with 1, 0 or -1",
            )
