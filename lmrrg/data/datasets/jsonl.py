"""A manifest of studies in this project's own form (:mod:`lmrrg.manifest`), for any other data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from lmrrg.config.data import DataConfig
from lmrrg.data.placeholders import without_placeholder
from lmrrg.data.source import Dropped, Source
from lmrrg.data.tables import existing_images, no_image_file
from lmrrg.manifest import read_studies
from lmrrg.studies import Study


def read_jsonl(manifest: Path, data: DataConfig) -> Source:
    """Read and check a manifest.

    Images that do not exist are left out, and studies without any image are dropped.

    Args:
        manifest: the file.
        data: ``images``: the folder that relative image paths start from, by default the
            manifest's.

    Raises:
        StudyError: a line of the manifest is not valid.
    """
    studies = read_studies(manifest)
    rows = _rows(studies, manifest.parent, data.images or manifest.parent)
    return Source("jsonl", rows, total=len(studies))


def _rows(studies: list[Study], base: Path, folder: Path) -> Iterator[Study | Dropped]:
    for study in studies:
        moved = [replace(image, path=_moved(image.path, base, folder)) for image in study.images]
        images = existing_images(moved)
        if not images:
            yield no_image_file(moved)
            continue
        yield replace(
            study,
            images=images,
            findings=without_placeholder(study.findings),
            impression=without_placeholder(study.impression),
            indication=without_placeholder(study.indication),
            comparison=without_placeholder(study.comparison),
        )


def _moved(path: Path, base: Path, folder: Path) -> Path:
    """Return a path below ``base`` as the same path below ``folder``; others stay."""
    return folder / path.relative_to(base) if path.is_relative_to(base) else path
