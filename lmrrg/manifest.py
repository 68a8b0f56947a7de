"""The JSONL manifest of studies: written atomically, validated when it is read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from lmrrg.files import atomic_writer
from lmrrg.studies import LABELS, Label, Split, Study, StudyError, StudyImage, View


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "must not be blank")
    return text


def _whole_number(value: object) -> object:
    """Return 1 for 1.0: tables with an empty cell make whole numbers floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class _Checked(BaseModel):
    # Strict: the bool true is no label 1, and the number 7 is no patient "7".
    model_config = ConfigDict(extra="forbid", strict=True)


class _Image(_Checked):
    path: Annotated[str, Field(min_length=1)]
    view: View = "unknown"


_LabelValue = Annotated[int, BeforeValidator(_whole_number), Field(ge=-1, le=1)]


class _Record(_Checked):
    """One line of a manifest: the fields of :class:`~lmrrg.studies.Study`, in JSON."""

    id: Annotated[str, AfterValidator(_not_blank)]
    patient: str
    images: Annotated[list[_Image], Field(min_length=1)]
    findings: str = ""
    impression: str = ""
    indication: str = ""
    comparison: str = ""
    labels: dict[Label, _LabelValue] | None = None
    split: Split | None = None
    source: str = ""
    prior: str | None = None
    truth: dict[str, Any] = Field(default_factory=dict)


_NAMES = frozenset((*_Record.model_fields, *_Image.model_fields, *LABELS, "[key]"))
"""What a message may call a field."""


def write_studies(path: Path, studies: Iterable[Study]) -> int:
    """Write a JSONL manifest atomically and return the number of records.

    Image paths inside the manifest's folder are stored relative to it, so that both can be moved
    together.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(os.path.abspath(path.parent))
    count = 0
    with atomic_writer(path) as out:
        for study in studies:
            out.write(json.dumps(_to_record(study, folder), ensure_ascii=False) + "\n")
            count += 1
    return count


def read_studies(path: Path, split: Split | None = None) -> list[Study]:
    """Read a JSONL manifest, or one split of it.

    Raises:
        StudyError: ``manifest_missing``, ``manifest_line`` (not JSON in UTF-8, unknown or missing
            field, bad value), ``duplicate_id``, ``split_leak`` (one patient in two splits) or
            ``bad_prior``.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder, no manifest" if path.is_dir() else "does not exist"
        raise StudyError("manifest_missing", f"{path} {what}; make one with `lmrrg data --help`")
    studies = []
    # Opened as bytes: text that is not UTF-8 is then an error of its line, not of the file.
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                studies.append(_from_line(line, path, number))
    check_patient_disjoint(studies)
    check_priors(studies)
    return [study for study in studies if split is None or study.split == split]


def check_patient_disjoint(studies: Iterable[Study]) -> None:
    """Refuse studies of which an id occurs twice, or a patient occurs in two splits.

    Raises:
        StudyError: ``duplicate_id`` or ``split_leak``.
    """
    ids: set[str] = set()
    split_of: dict[str, Split] = {}
    for study in studies:
        if study.id in ids:
            raise StudyError("duplicate_id", f"study {study.id} occurs twice")
        ids.add(study.id)
        if study.split is None:
            continue
        first = split_of.setdefault(study.patient, study.split)
        if first != study.split:
            raise StudyError(
                "split_leak", f"patient of study {study.id} is in both {first} and {study.split}"
            )


def check_priors(studies: Iterable[Study]) -> None:
    """Refuse a prior that is not another study of the same patient among ``studies``.

    Raises:
        StudyError: ``bad_prior``.
    """
    studies = list(studies)
    patient_of = {study.id: study.patient for study in studies}
    for study in studies:
        if study.prior is None:
            continue
        if study.prior == study.id or patient_of.get(study.prior) != study.patient:
            raise StudyError(
                "bad_prior", f"the prior of study {study.id} is no other study of its patient here"
            )


def manifest_hash(path: Path) -> str:
    """Return the SHA-256 of a manifest's bytes: the data hash that every run records."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _to_record(study: Study, folder: Path) -> dict[str, object]:
    record = asdict(study)
    record["images"] = [
        {"path": _relative(image.path, folder), "view": image.view} for image in study.images
    ]
    if not record["truth"]:
        del record["truth"]
    # Empty labels stay: they mean that the report mentions no class, not that nobody labelled it.
    return {key: value for key, value in record.items() if value not in ("", None)}


def _relative(path: Path, folder: Path) -> str:
    # abspath, not resolve: the name that a link points to may be an identifier of a patient.
    path = Path(os.path.abspath(path))
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def _from_line(line: bytes, manifest: Path, number: int) -> Study:
    try:
        record = _Record.model_validate_json(line)
    except ValidationError as error:
        # "from None": the text of pydantic's error quotes the report.
        raise StudyError("manifest_line", f"{manifest}:{number}: {_explain(error)}") from None
    fields = dict(record)
    folder = manifest.parent
    fields["images"] = tuple(StudyImage(folder / image.path, image.view) for image in record.images)
    return Study(**fields)


def _explain(error: ValidationError) -> str:
    """Return fields and reasons, without the values, which may be report text."""
    problems = []
    for problem in error.errors(include_input=False, include_url=False):
        field = ".".join(map(_shown, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            record = _Image if problem["loc"][0] == "images" else _Record
            problems.append(f"{field}; known are {', '.join(record.model_fields)}")
        else:
            problems.append(f"{field}: {problem['msg']}" if field else problem["msg"])
    return "; ".join(problems)


def _shown(part: str | int) -> str:
    """Return a part of a field's place as a message shows it.

    A name that is none of ours is not quoted: in a damaged line it may be report text.

    >>> _shown("Edema"), _shown(0), _shown("Jane Roe")
    ('Edema', '0', 'an unknown field')
    """
    return str(part) if isinstance(part, int) or part in _NAMES else "an unknown field"
