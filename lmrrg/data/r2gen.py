"""The annotation file that R2Gen made the field's habit: ``annotation.json`` with train, val and test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmrrg.data.importing import Dropped, Import, complete
from lmrrg.data.tables import clean, read_json
from lmrrg.studies import Section, Split, Study, StudyError, StudyImage, View

_SPLITS: tuple[Split, ...] = ("train", "val", "test")


def import_r2gen(
    folder: Path, *, section: Section, seed: int, images: Path | None = None, labels: Path | None = None
) -> Import:
    """Read ``folder/annotation.json`` and its images, named relative to ``images`` (default ``folder/images``).

    The file has one text per study, the findings. A patient is the record's ``subject_id`` where it has one
    (MIMIC-CXR), else its id up to the first underscore (IU). Two images named 0 and 1 are a frontal and a lateral
    view, as the IU release orders them; any other view is unknown.

    Raises:
        StudyError: the file or a field is missing, or no study is left.
    """
    if section != "findings":
        raise StudyError("source_section", f"an R2Gen annotation holds findings only, not {section}")
    path = folder / "annotation.json"
    annotation = read_json(path)
    if not isinstance(annotation, dict) or not any(split in annotation for split in _SPLITS):
        raise StudyError("source_record", f"{path} has none of train, val and test")
    rows = _rows(annotation, path, images or folder / "images")
    notes = {"splits": "annotation.json"}
    return complete("r2gen", rows, section=section, seed=seed, labels=labels, notes=notes, published_splits=True)


def _rows(annotation: dict[str, Any], path: Path, folder: Path) -> Iterator[Study | Dropped]:
    for split in _SPLITS:
        for number, record in enumerate(annotation.get(split, [])):
            try:
                name, report, names = str(record["id"]), record["report"], list(record["image_path"])
            except (KeyError, TypeError) as error:
                raise StudyError("source_record", f"{path}: {split}[{number}]: {error}") from error
            images = tuple(
                StudyImage(folder / image, view)
                for image, view in zip(names, _views(names), strict=True)
                if (folder / image).is_file()
            )
            if not images:
                yield Dropped("no image file")
                continue
            patient = str(record.get("subject_id", name.split("_")[0]))
            yield Study(id=name, patient=patient, images=images, findings=clean(report), split=split, source="r2gen")


def _views(names: list[str]) -> list[View]:
    return ["frontal", "lateral"] if [Path(name).stem for name in names] == ["0", "1"] else ["unknown"] * len(names)
