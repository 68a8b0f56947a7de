"""A manifest of studies in this project's own form (see ``lmrrg.studies``): the door for any other data set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from lmrrg.data.importing import Dropped, Import, complete
from lmrrg.studies import Section, Study, StudyImage, read_studies


def import_jsonl(
    manifest: Path, *, section: Section, seed: int, images: Path | None = None, labels: Path | None = None
) -> Import:
    """Read and check a manifest; images that are not there are left out, and studies without any are dropped.

    Args:
        images: folder that relative image paths start from; the manifest's own by default.

    Raises:
        StudyError: a line of the manifest is not valid, or no study is left.
    """
    rows = _rows(read_studies(manifest), manifest.parent, images or manifest.parent)
    return complete("jsonl", rows, section=section, seed=seed, labels=labels)


def _rows(studies: list[Study], base: Path, folder: Path) -> Iterator[Study | Dropped]:
    for study in studies:
        moved = (StudyImage(_moved(image.path, base, folder), image.view) for image in study.images)
        found = sorted((image for image in moved if image.path.is_file()), key=lambda image: image.view == "lateral")
        yield replace(study, images=tuple(found)) if found else Dropped("no image file")


def _moved(path: Path, base: Path, folder: Path) -> Path:
    return folder / path.relative_to(base) if path.is_relative_to(base) else path
