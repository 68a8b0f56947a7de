"""The annotation file that R2Gen made the field's habit: ``annotation.json`` with train, val and test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lmrrg.config.data import DataConfig
from lmrrg.data.datasets.mimic_cxr import views_of_images
from lmrrg.data.source import Dropped, Source
from lmrrg.data.tables import clean, read_annotation
from lmrrg.studies import Split, Study, StudyError, StudyImage, View
from lmrrg.views import frontal_first


def read_r2gen(folder: Path, data: DataConfig) -> Source:
    """Read ``folder/annotation.json`` and its images, named relative to ``data.images`` (default ``folder/images``).

    The file has one text per record, the findings. A patient is the record's ``subject_id`` where it has one
    (MIMIC-CXR, where a record is an image, not a study), else its id up to the first underscore (IU). Two images named
    0 and 1 are a frontal and a lateral view, as the IU release orders them; other views are those of MIMIC-CXR-JPG's
    metadata table where it lies in the folder, else unknown.

    Raises:
        StudyError: the file or a field is missing, ``source_record`` for one of another type, or ``source_section``
            when another section than findings is asked.
    """
    if data.section != "findings":
        raise StudyError(
            "source_section", f"an R2Gen annotation holds findings only, not {data.section}"
        )
    path = folder / "annotation.json"
    annotation = read_annotation(path)
    total = sum(map(len, annotation.values()))
    rows = _rows(annotation, path, data.images or folder / "images", views_of_images(folder))
    return Source(
        "r2gen", rows, total=total, notes={"splits": "annotation.json"}, published_splits=True
    )


def _rows(
    annotation: Mapping[Split, list[Any]], path: Path, folder: Path, views: Mapping[str, View]
) -> Iterator[Study | Dropped]:
    for split, records in annotation.items():
        for number, record in enumerate(records):
            try:
                name, patient, report, names = _fields(record)
            except (KeyError, TypeError) as error:
                raise StudyError("source_record", f"{path}: {split}[{number}]: {error}") from error
            images = frontal_first(
                StudyImage(folder / image, view)
                for image, view in zip(names, _views(names, views), strict=True)
                if (folder / image).is_file()
            )
            if not images:
                yield Dropped("no image file")
                continue
            yield Study(
                id=name,
                patient=patient,
                images=images,
                findings=clean(report),
                split=split,
                source="r2gen",
            )


def _fields(record: dict[str, Any]) -> tuple[str, str, str, list[str]]:
    """Id, patient, report and image paths of a record; KeyError or TypeError where one is missing or of another type.

    Ids may be numbers, as MIMIC-CXR's are, and a report may be null, which is one without text.
    """
    name, report, names = record["id"], record["report"], record["image_path"]
    patient = record.get("subject_id", str(name).split("_")[0])
    if not (isinstance(name, str | int) and isinstance(patient, str | int)):
        raise TypeError("id or subject_id is neither text nor a number")
    if not isinstance(report, str | None):
        raise TypeError("report is no text")
    if not isinstance(names, list) or not all(isinstance(image, str) for image in names):
        raise TypeError("image_path is no list of texts")
    return str(name), str(patient), report or "", names


def _views(names: list[str], known: Mapping[str, View]) -> list[View]:
    stems = [Path(name).stem for name in names]
    return (
        ["frontal", "lateral"]
        if stems == ["0", "1"]
        else [known.get(stem, "unknown") for stem in stems]
    )
