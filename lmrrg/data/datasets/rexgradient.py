"""ReXGradient-160K as Hugging Face publishes it: ``metadata/`` with one JSON file per split, and ``deid_png/``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmrrg.config.data import DataConfig
from lmrrg.data.source import Dropped, Source
from lmrrg.data.tables import Texts, clean, read_json
from lmrrg.studies import Split, Study, StudyError, StudyImage
from lmrrg.views import frontal_first, view_of

_FILES: dict[str, Split] = {"train": "train", "valid": "val", "test": "test"}
_NOTHING = frozenset({"none", "nan", "null"})


def read_rexgradient(folder: Path, data: DataConfig) -> Source:
    """Read ``metadata/{train,valid,test}_metadata_view_position.json``; those that are there, at least one.

    A file maps a study's key to PatientID, StudyDate, Indication, Comparison, Findings, Impression, and two lists:
    ImagePath ("../deid_png/...", from the metadata folder) and ImageViewPosition. The ``*_metadata.csv`` beside them
    name no images and are not read. The data set has no labels.

    Args:
        data: ``images``: the folder that stands for ``deid_png``, ``folder/deid_png`` by default.

    Raises:
        StudyError: no metadata file, or a record that is not of this form.
    """
    found = [
        (folder / "metadata" / f"{name}_metadata_view_position.json", split)
        for name, split in _FILES.items()
    ]
    tables = [(path, split, read_json(path)) for path, split in found if path.is_file()]
    if not tables:
        raise StudyError(
            "source_missing", f"{folder} has no metadata/train_metadata_view_position.json"
        )
    if wrong := [path.name for path, _, table in tables if not isinstance(table, dict)]:
        raise StudyError(
            "source_record", f"{folder}/metadata: {', '.join(wrong)} maps no study to its record"
        )
    records = [
        (path, split, str(key), record)
        for path, split, table in tables
        for key, record in table.items()
    ]
    taken = {
        key: str(r["StudyDate"])
        for _, _, key, r in records
        if isinstance(r, dict) and r.get("StudyDate")
    }
    notes = {"splits": "published: " + ", ".join(path.name for path, *_ in tables)}
    rows = _rows(records, data.images or folder / "deid_png")
    return Source(
        "rexgradient", rows, total=len(records), taken=taken, notes=notes, published_splits=True
    )


def _rows(records: list[tuple[Path, Split, str, Any]], images: Path) -> Iterator[Study | Dropped]:
    for path, split, key, record in records:
        try:
            patient, names = str(record["PatientID"]), list(record["ImagePath"])
            views = [*(record.get("ImageViewPosition") or []), *[None] * len(names)]
            texts = Texts(*(_text(record.get(name.capitalize())) for name in Texts._fields))
        except (KeyError, TypeError, AttributeError) as error:
            raise StudyError("source_record", f"{path}: a record has no usable {error}") from error
        found = frontal_first(
            StudyImage(file, view_of(view))
            for name, view in zip(names, views, strict=False)
            if (file := images / str(name).partition("deid_png/")[2]).is_file()
        )
        if not found:
            yield Dropped("no image file")
            continue
        yield Study(key, patient, found, *texts, split=split, source="rexgradient")


def _text(value: object) -> str:
    text = clean(value if isinstance(value, str) else "")
    return "" if text.lower() in _NOTHING else text
