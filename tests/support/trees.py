"""Small trees of files in the form of a data set, for the tests of the readers."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lmrrg.config.data import DataConfig
from lmrrg.data.importing import Import
from lmrrg.data.sources import import_studies
from lmrrg.studies import LABELS
from tests.support.paths import REAL_DATA

CLEAR = "The lungs are clear. There is no pleural effusion."
LARGE = "The heart is enlarged."


def picture(path: Path, seed: int = 0) -> Path:
    """Write a small grey image; the same seed gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (70, 70)).astype(np.uint8)).save(
        path
    )
    return path


def table(path: Path, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> Path:
    """Write a CSV file, gzipped where its name ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    csv.writer(text).writerows([list(columns), *(list(row) for row in rows)])
    content = text.getvalue().encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def annotate(folder: Path, **splits: list[str]) -> None:
    """Write R2Gen's annotation of an IU tree: its splits."""
    records = {split: [{"id": name} for name in names] for split, names in splits.items()}
    (folder / "r2gen_annotation.json").write_text(json.dumps(records), encoding="utf-8")


def labels_csv(path: Path, rows: dict[str, dict[str, str]]) -> Path:
    """Write a file of labels; a class that a row leaves out is blank."""
    lines = [[name, *(row.get(label, "") for label in LABELS)] for name, row in rows.items()]
    table(path, ["study_id", *LABELS], lines)
    return path


def import_from(kind: str, path: Path, **settings: Any) -> Import:
    """Import what ``lmrrg data KIND --source PATH`` does, with seed 7 and no progress bar."""
    return import_studies(
        DataConfig(source=kind, path=path, **settings), path.parent, 7, progress=False
    )


def real_iu(repo_root: Path) -> Path:
    """Return the folder of the real IU X-ray data; without it, the test is skipped."""
    folder = REAL_DATA / "iu_xray"
    if not folder.is_dir():
        pytest.skip(f"no real IU X-ray at {folder}; set LMRRG_TEST_DATA")
    return folder
