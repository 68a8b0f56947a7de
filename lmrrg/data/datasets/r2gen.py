"""The annotation file that R2Gen introduced: ``annotation.json`` with train, val and test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lmrrg.config.data import DataConfig
from lmrrg.data.datasets.mimic_cxr import views_of_images
from lmrrg.data.source import Dropped, Source
from lmrrg.data.tables import clean, existing_images, read_annotation
from lmrrg.studies import Split, Study, StudyError, StudyImage, View


def read_r2gen(folder: Path, data: DataConfig) -> Source:
    """Read ``folder/annotation.json`` and the images that it names.

    The file has one text per record, the findings. A patient is the record's ``subject_id`` where
    it has one (MIMIC-CXR, where a record is an image, not a study), else its id up to the first
    underscore (IU). Two images named 0 and 1 are a frontal and a lateral view, as the IU release
    orders them; other views are those of MIMIC-CXR-JPG's metadata table where it lies in the
    folder, else unknown.

    Args:
        folder: holds the annotation.
        data: ``images``: the folder that image paths start from; by default ``folder/images``.

    Raises:
        StudyError: the file or a field is missing, ``source_record`` for a field of another type,
            or ``source_section`` if another section than findings is wanted.
    """
    if data.section != "findings":
        message = f"an R2Gen annotation holds findings only, not {data.section}"
        raise StudyError("source_section", message)
    path = folder / "annotation.json"
    annotation = read_annotation(path)
    return Source(
        "r2gen",
        _rows(annotation, path, data.images or folder / "images", views_of_images(folder)),
        total=sum(map(len, annotation.values())),
        notes={"splits": "annotation.json"},
        published_splits=True,
    )


def _rows(
    annotation: Mapping[Split, list[Any]], path: Path, folder: Path, views: Mapping[str, View]
) -> Iterator[Study | Dropped]:
    for split, records in annotation.items():
        for number, record in enumerate(records):
            try:
                study = _study(record, split, folder, views)
            except (KeyError, TypeError) as error:
                raise StudyError("source_record", f"{path}: {split}[{number}]: {error}") from error
            if study.images:
                yield study
            else:
                first = next(iter(record["image_path"]), "")
                yield Dropped("no image file", str(folder / first))


def _study(record: dict[str, Any], split: Split, folder: Path, views: Mapping[str, View]) -> Study:
    """Return a record's study with those images that exist.

    Ids may be numbers, as MIMIC-CXR's are, and a report may be null, which is one without text.

    Raises:
        KeyError: a field is missing.
        TypeError: a field, or the record, is of another type.
    """
    name = record["id"]
    report = record["report"]
    image_paths = record["image_path"]
    patient = record.get("subject_id", str(name).split("_")[0])
    if not (isinstance(name, str | int) and isinstance(patient, str | int)):
        raise TypeError("id or subject_id is neither text nor a number")
    if not isinstance(report, str | None):
        raise TypeError("report is no text")
    if not isinstance(image_paths, list) or not all(isinstance(item, str) for item in image_paths):
        raise TypeError("image_path is no list of texts")
    listed = zip(image_paths, _views(image_paths, views), strict=True)
    return Study(
        id=str(name),
        patient=str(patient),
        images=existing_images(StudyImage(folder / image, view) for image, view in listed),
        findings=clean(report),
        split=split,
        source="r2gen",
    )


def _views(image_paths: list[str], known: Mapping[str, View]) -> list[View]:
    stems = [Path(path).stem for path in image_paths]
    if stems == ["0", "1"]:
        return ["frontal", "lateral"]
    return [known.get(stem, "unknown") for stem in stems]
