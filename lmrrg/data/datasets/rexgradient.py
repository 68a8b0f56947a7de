"""ReXGradient-160K as published on Hugging Face.

The folder holds ``metadata/`` with one JSON file per split, and the images in ``deid_png/``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lmrrg.config.data import DataConfig
from lmrrg.data.source import Dropped, Source
from lmrrg.data.tables import Texts, clean, existing_images, no_image_file, read_json
from lmrrg.studies import Split, Study, StudyError, StudyImage
from lmrrg.views import view_of

_SPLIT_OF_FILE: dict[str, Split] = {
    "train_metadata_view_position.json": "train",
    "valid_metadata_view_position.json": "val",
    "test_metadata_view_position.json": "test",
}


class _Record(NamedTuple):
    """One study of a metadata file, not checked yet."""

    path: Path
    split: Split
    key: str
    content: Any


def read_rexgradient(folder: Path, data: DataConfig) -> Source:
    """Read those of ``metadata/{train,valid,test}_metadata_view_position.json`` that exist.

    A file maps a study's key to PatientID, StudyDate, Indication, Comparison, Findings, Impression,
    and two lists: ImagePath ("../deid_png/...", from the metadata folder) and ImageViewPosition.
    The ``*_metadata.csv`` beside them name no images and are not read. The data set has no labels.

    Args:
        folder: holds ``metadata``.
        data: ``images``: the folder that stands for ``deid_png``; by default ``folder/deid_png``.

    Raises:
        StudyError: no metadata file exists, or a record is not of this form.
    """
    paths = [folder / "metadata" / name for name in _SPLIT_OF_FILE]
    paths = [path for path in paths if path.is_file()]
    if not paths:
        message = f"{folder} has no metadata/train_metadata_view_position.json"
        raise StudyError("source_missing", message)
    records = [record for path in paths for record in _records(path)]
    study_dates: dict[str, str] = {}
    for record in records:
        if isinstance(record.content, dict) and record.content.get("StudyDate"):
            study_dates[record.key] = str(record.content["StudyDate"])
    return Source(
        "rexgradient",
        _rows(records, data.images or folder / "deid_png"),
        total=len(records),
        study_dates=study_dates,
        notes={"splits": "published: " + ", ".join(path.name for path in paths)},
        published_splits=True,
    )


def _records(path: Path) -> list[_Record]:
    table = read_json(path)
    if not isinstance(table, dict):
        message = f"{path.parent}: {path.name} maps no study to its record"
        raise StudyError("source_record", message)
    split = _SPLIT_OF_FILE[path.name]
    return [_Record(path, split, str(key), content) for key, content in table.items()]


def _rows(records: list[_Record], folder: Path) -> Iterator[Study | Dropped]:
    for record in records:
        try:
            patient = str(record.content["PatientID"])
            listed = _listed_images(record.content, folder)
            texts = Texts(*(_text(record.content.get(name.title())) for name in Texts._fields))
        except (KeyError, TypeError, AttributeError) as error:
            message = f"{record.path}: a record has no usable {error}"
            raise StudyError("source_record", message) from error
        images = existing_images(listed)
        if not images:
            yield no_image_file(listed)
            continue
        yield Study(record.key, patient, images, *texts, split=record.split, source="rexgradient")


def _listed_images(content: Any, folder: Path) -> list[StudyImage]:
    names = list(content["ImagePath"])
    views = list(content.get("ImageViewPosition") or [])
    # The list of views may be shorter than that of images, or missing.
    views += [None] * len(names)
    images = []
    for name, view in zip(names, views, strict=False):
        below_folder = str(name).partition("deid_png/")[2]
        images.append(StudyImage(folder / below_folder, view_of(view)))
    return images


def _text(value: object) -> str:
    return clean(value if isinstance(value, str) else "")
