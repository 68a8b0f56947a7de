"""Write the reports of many studies into a file, with the service's own :class:`Reporter`."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Protocol

from lmrrg.config.data import DataConfig
from lmrrg.errors import CodedError
from lmrrg.imaging.batch import RefusedImage, groups, read_squares
from lmrrg.imaging.radiograph import ImageError, Radiograph
from lmrrg.progress import progress_bar
from lmrrg.studies import StudyImage
from serve_app.reporter import UploadedStudy
from serve_app.schemas import ReportResponse

BATCH = 32
"""Studies whose reports are generated, and then written to disk, together."""


@dataclass(frozen=True)
class FilmStudy:
    """The files of one study that shall get a report."""

    id: str
    images: tuple[StudyImage, ...]
    indication: str = ""
    prior: str = ""
    """The report of the patient's previous study."""


class Writer(Protocol):
    """What writes the reports: :class:`serve_app.reporter.Reporter`."""

    def write(self, studies: Sequence[UploadedStudy]) -> list[ReportResponse]:
        """Return the report of each study."""


def part_path(out: Path) -> Path:
    """Return where the records lie until all of them are written."""
    return out.with_name(f"{out.name}.part")


def write_reports(
    studies: Sequence[FilmStudy],
    writer: Writer,
    version: str,
    data: DataConfig,
    image_size: int,
    out: Path,
    *,
    progress: bool = True,
) -> list[RefusedImage]:
    """Write one JSON record per study to ``out``, which appears when all are written.

    Until then they lie in :func:`part_path`, batch by batch: the same call continues behind the
    last whole record there, if the same model wrote it. A file that is refused costs its study
    that image; a study without any other has no record.

    Args:
        studies: with distinct ids.
        writer: writes the reports.
        version: of the model, as its responses name it.
        data: limits on images, polarity and the number of processes that read them.
        image_size: side of the square that the model sees.
        out: the file, JSONL.
        progress: whether to show a bar, with rate and the time that is left.

    Returns:
        The refused files, in the order of the studies.

    Raises:
        CodedError: ``no_reports``, every file is refused.
    """
    part = part_path(out)
    part.parent.mkdir(parents=True, exist_ok=True)
    refused = _refused_before(part, version, {study.id for study in studies})
    todo = [study for study in studies if study.id not in refused]
    bar = progress_bar(
        total=len(studies),
        initial=len(refused),
        desc="reports",
        unit="study",
        disable=not progress,
    )
    with bar, part.open("a", encoding="utf-8") as file:
        read = _read(todo, data, image_size)
        for group in groups(read, BATCH):
            for study, _, unread in group:
                refused[study.id] = unread
            _write_group([one for one in group if one[1]], writer, file)
            bar.update(len(group))
        written = file.tell()
    if not written:
        part.unlink()
        raise CodedError("no_reports", f"none of {len(studies)} studies has an image that is read")
    os.replace(part, out)
    return [image for study in studies for image in refused[study.id]]


_ReadStudy = tuple[FilmStudy, list[Radiograph], list[RefusedImage]]
"""A study, the images that could be read, and the others."""


def _read(studies: Sequence[FilmStudy], data: DataConfig, image_size: int) -> Iterator[_ReadStudy]:
    paths = [Path(image.path) for study in studies for image in study.images]
    # One stream for all studies: its child processes read ahead while reports are generated.
    squares = read_squares(paths, data, image_size)
    for study in studies:
        images: list[Radiograph] = []
        refused: list[RefusedImage] = []
        for named in study.images:
            found = next(squares)
            if isinstance(found, ImageError):
                refused.append(RefusedImage(Path(named.path), found.code))
            else:
                # A manifest's view comes from people or a table; a header's is the next best.
                view = found.view if named.view == "unknown" else named.view
                images.append(replace(found, view=view))
        yield study, images, refused


def _write_group(group: Sequence[_ReadStudy], writer: Writer, file: IO[str]) -> None:
    if not group:
        return
    uploads = [UploadedStudy(images, study.indication, study.prior) for study, images, _ in group]
    for (study, _, refused), response in zip(group, writer.write(uploads), strict=True):
        file.write(json.dumps(_record(study, refused, response), ensure_ascii=False) + "\n")
    file.flush()
    os.fsync(file.fileno())


def _record(
    study: FilmStudy, refused: Sequence[RefusedImage], response: ReportResponse
) -> dict[str, Any]:
    """Return a record that ``lmrrg score`` reads, too: with ``study_id`` and ``report``."""
    written = response.model_dump(mode="json", exclude_none=True)
    files = [str(image.path) for image in study.images]
    return {
        "study_id": study.id,
        "report": written.pop("findings"),
        "files": files,
        "files_refused": [{"file": str(image.path), "code": image.code} for image in refused],
        **written,
    }


def _refused_before(
    part: Path, version: str, ids: Collection[str]
) -> dict[str, list[RefusedImage]]:
    """Return the refused files of each study that has a record already.

    The file is cut behind the last record that is whole, and of this model and these studies.
    """
    if not part.is_file():
        return {}
    found: dict[str, list[RefusedImage]] = {}
    whole = 0
    with part.open("rb") as file:
        for line in file:
            record = _whole_record(line)
            if record is None or record["model"]["version"] != version:
                break
            if record["study_id"] not in ids:
                break
            found[record["study_id"]] = [
                RefusedImage(Path(image["file"]), image["code"])
                for image in record["files_refused"]
            ]
            whole += len(line)
    os.truncate(part, whole)
    return found


def _whole_record(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
        return record if {"study_id", "model", "files_refused"} <= record.keys() else None
    except (ValueError, AttributeError):
        return None
