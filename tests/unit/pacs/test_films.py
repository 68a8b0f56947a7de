"""Complete studies of a folder: films only, by study, after a quiet time."""

from __future__ import annotations

import os
import time
from pathlib import Path

from lmrrg.pacs.films import FilmFolder, study_key
from tests.support.dicom_files import dicom, ramp


def film(folder: Path, study: str, sop: str, **elements: str) -> Path:
    path = folder / f"{study}-{sop}.dcm"
    uids = {"StudyInstanceUID": study, "SeriesInstanceUID": "1.9", "SOPInstanceUID": sop}
    path.write_bytes(dicom(ramp(), **(uids | elements)))
    return path


def test_a_study_is_complete_when_it_has_been_quiet(tmp_path: Path) -> None:
    now = time.time()
    films = FilmFolder(tmp_path, quiet_s=30, clock=lambda: now)
    one = film(tmp_path, "1.1", "1.1.1")
    assert films.complete() == []
    now += 29
    two = film(tmp_path, "1.1", "1.1.2")
    # A copy that keeps the time of its content is still new here.
    os.utime(two, (1, 1))
    other = film(tmp_path, "1.2", "1.2.1")
    assert films.complete() == []
    now += 32
    found = {study.key: study for study in films.complete()}
    assert set(found) == {study_key("1.1", ["1.1.1", "1.1.2"]), study_key("1.2", ["1.2.1"])}
    assert found[study_key("1.1", ["1.1.2", "1.1.1"])].paths == (one, two)
    assert found[study_key("1.2", ["1.2.1"])].headers[0]["StudyInstanceUID"] == "1.2"
    other.unlink()
    assert len(films.complete()) == 1


def test_what_is_no_film_is_passed_over(tmp_path: Path) -> None:
    film(tmp_path, "1.1", "1.1.1", Modality="SR")
    (tmp_path / "notes.txt").write_text("not a film")
    (tmp_path / "damaged.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 300)
    (tmp_path / ".part.dcm").write_bytes(dicom(ramp(), StudyInstanceUID="1.3"))
    film(tmp_path, "", "1.4.1")
    assert FilmFolder(tmp_path, quiet_s=0, clock=lambda: time.time() + 9).complete() == []


def test_a_film_that_lies_there_twice_is_one(tmp_path: Path) -> None:
    film(tmp_path, "1.1", "1.1.1")
    (tmp_path / "sub").mkdir()
    film(tmp_path / "sub", "1.1", "1.1.1")
    [study] = FilmFolder(tmp_path, quiet_s=0, clock=lambda: time.time() + 9).complete()
    assert len(study.paths) == 1
