"""Find the films in a folder, and which of them belong to one study."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from lmrrg.imaging.dicom.header import is_dicom, study_uid
from lmrrg.imaging.radiograph import Limits
from lmrrg.studies import StudyError, StudyImage

StudyPer = Literal["file", "folder"]
"""What makes a study of films that are no DICOM and name none."""

_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")
_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
_HEAD = 256
"""Bytes that show of which kind a file is."""


class FoundFilms(NamedTuple):
    """The images of each study by its id, and the number of files that are no images."""

    studies: dict[str, tuple[StudyImage, ...]]
    other_files: int


def find_films(folder: Path, per: StudyPer, limits: Limits) -> FoundFilms:
    """Return the studies of all films below a folder, in the order of their names.

    DICOM files are grouped by their Study Instance UID, which is the study's id. Others are a study
    each, or one for each folder; the id is the path below ``folder``, and so it is for a DICOM file
    without a UID.

    Raises:
        StudyError: ``source_missing``, no such folder, or ``no_studies``, no image below it.
    """
    if not folder.is_dir():
        raise StudyError("source_missing", f"{folder} is no folder of images")
    found: dict[str, list[StudyImage]] = {}
    others = 0
    for path in _files(folder):
        head = _head(path)
        is_film = is_dicom(head) or head.startswith(_STARTS)
        if not is_film and path.suffix.lower() not in _SUFFIXES:
            others += 1
            continue
        uid = study_uid(path, limits) if is_dicom(head) else ""
        own = path if per == "file" or is_dicom(head) else path.parent
        study = uid or own.relative_to(folder).as_posix()
        found.setdefault(study, []).append(StudyImage(path))
    if not found:
        raise StudyError("no_studies", f"{folder} holds no DICOM, PNG or JPEG file")
    return FoundFilms({study: tuple(images) for study, images in found.items()}, others)


def _files(folder: Path) -> Iterator[Path]:
    # Sorted: the file system lists files in any order, and a run must not depend on it.
    for path in sorted(folder.rglob("*")):
        # A DICOMDIR is the table of contents of a disc.
        if path.is_file() and not path.name.startswith(".") and path.name != "DICOMDIR":
            yield path


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)
