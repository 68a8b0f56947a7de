"""A manifest of studies in this project's own form (see ``lmrrg.studies``): the door for any other data set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from lmrrg.config.data import DataConfig
from lmrrg.data.source import Dropped, Source
from lmrrg.manifest import read_studies
from lmrrg.studies import Study, StudyImage
from lmrrg.views import frontal_first


def read_jsonl(manifest: Path, data: DataConfig) -> Source:
    """Read and check a manifest; images that are not there are left out, and studies without any are dropped.

    Relative image paths start from ``data.images``, by default from the manifest's folder.

    Raises:
        StudyError: a line of the manifest is not valid.
    """
    studies = read_studies(manifest)
    return Source(
        "jsonl", _rows(studies, manifest.parent, data.images or manifest.parent), total=len(studies)
    )


def _rows(studies: list[Study], base: Path, folder: Path) -> Iterator[Study | Dropped]:
    for study in studies:
        moved = (StudyImage(_moved(image.path, base, folder), image.view) for image in study.images)
        found = frontal_first(image for image in moved if image.path.is_file())
        yield replace(study, images=found) if found else Dropped("no image file")


def _moved(path: Path, base: Path, folder: Path) -> Path:
    return folder / path.relative_to(base) if path.is_relative_to(base) else path
