"""Indiana University chest X-rays (Open-i), in the form of two CSV files and a folder of images."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from lmrrg.data.importing import Dropped, Import, complete
from lmrrg.data.tables import clean, image_stem, index_images, read_csv, read_json
from lmrrg.studies import Section, Split, Study, StudyError, StudyImage, View

_REPORTS, _PROJECTIONS, _ANNOTATION = "indiana_reports.csv", "indiana_projections.csv", "r2gen_annotation.json"
_VIEWS: dict[str, View] = {"frontal": "frontal", "lateral": "lateral"}


def import_iu_xray(
    folder: Path, *, section: Section, seed: int, images: Path | None = None, labels: Path | None = None
) -> Import:
    """Read ``indiana_reports.csv``, ``indiana_projections.csv`` and the images, matched by name without suffix.

    Where ``r2gen_annotation.json`` lies beside them its splits are taken, joined by the number of the report
    ("CXR2384_IM-0942" is uid 2384); otherwise patients are split by a seeded hash. Each uid is one patient.

    Args:
        folder: holds the CSV files.
        images: folder of images, searched with its subfolders; ``folder/images`` by default.

    Raises:
        StudyError: a file or a column is missing, or no study is left.
    """
    annotation = folder / _ANNOTATION
    splits = _r2gen_splits(annotation) if annotation.is_file() else {}
    notes = {"splits": f"{_ANNOTATION}, by report number"} if splits else {}
    rows = _rows(folder, index_images(images or folder / "images"), splits)
    return complete(
        "iu-xray", rows, section=section, seed=seed, labels=labels, notes=notes, published_splits=bool(splits)
    )


def _rows(folder: Path, files: dict[str, Path], splits: dict[str, Split]) -> Iterator[Study | Dropped]:
    views: dict[str, list[tuple[str, View]]] = defaultdict(list)
    for row in read_csv(folder / _PROJECTIONS, {"uid", "filename", "projection"}):
        view = _VIEWS.get(row["projection"].strip().lower(), "unknown")
        views[row["uid"]].append((image_stem(row["filename"]), view))
    for row in read_csv(folder / _REPORTS, {"uid", "findings", "impression", "indication", "comparison"}):
        found = [StudyImage(files[stem], view) for stem, view in views[row["uid"]] if stem in files]
        if not found:
            yield Dropped("no image file")
            continue
        found.sort(key=lambda image: image.view == "lateral")
        yield Study(
            id=f"CXR{row['uid']}",
            patient=f"CXR{row['uid']}",
            images=tuple(found),
            findings=clean(row["findings"]),
            impression=clean(row["impression"]),
            indication=clean(row["indication"]),
            comparison=clean(row["comparison"]),
            split=splits.get(row["uid"]),
            source="iu-xray",
        )


def _r2gen_splits(path: Path) -> dict[str, Split]:
    """Split of every uid that the annotation file names."""
    splits: dict[str, Split] = {}
    annotation = read_json(path)
    for split in ("train", "val", "test"):
        for record in annotation.get(split, []):
            match = re.match(r"CXR(\d+)_", str(record.get("id")))
            if not match:
                raise StudyError("source_record", f"{path}: an id in {split} is not of the form CXR<number>_...")
            splits[match.group(1)] = split
    return splits
