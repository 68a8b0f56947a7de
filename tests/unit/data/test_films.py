"""Which films of a folder are one study."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from lmrrg.data.films import find_films
from lmrrg.imaging.dicom.header import study_uid
from lmrrg.imaging.radiograph import DEFAULT_LIMITS
from lmrrg.studies import StudyError
from tests.support.dicom_files import dataset, dicom, encoded, ramp
from tests.support.trees import picture


def found(folder: Path, per: str = "file") -> dict[str, list[str]]:
    films = find_films(folder, per, DEFAULT_LIMITS)
    return {study: [image.path.name for image in images] for study, images in films.studies.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """DICOM of two studies in any folder, one without UID; pictures in two folders; other files."""
    for name, uid in (("z/1", "1.2.3"), ("a/2.dcm", "1.2.3"), ("a/3", "1.2.4"), ("a/4", None)):
        elements = {} if uid is None else {"StudyInstanceUID": uid}
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(dicom(ramp(), **elements))
    for name in ("p/f.png", "p/l.png", "q/f.jpg"):
        picture(tmp_path / name)
    (tmp_path / "p" / "report.txt").write_text("Clear.")
    (tmp_path / "p" / ".hidden.png").write_bytes(b"")
    (tmp_path / "damaged.png").write_bytes(b"damaged")
    (tmp_path / "DICOMDIR").write_bytes(dicom(ramp()))
    return tmp_path


def test_dicom_is_grouped_by_study_and_each_picture_is_one(folder):
    assert found(folder) == {
        "1.2.4": ["3"],
        "1.2.3": ["2.dcm", "1"],
        "a/4": ["4"],
        "damaged.png": ["damaged.png"],
        "p/f.png": ["f.png"],
        "p/l.png": ["l.png"],
        "q/f.jpg": ["f.jpg"],
    }
    assert find_films(folder, "file", DEFAULT_LIMITS).other_files == 1


def test_the_pictures_of_a_folder_can_be_one_study(folder):
    studies = found(folder, "folder")
    assert studies["p"] == ["f.png", "l.png"]
    assert studies["q"] == ["f.jpg"]
    assert studies["."] == ["damaged.png"]
    assert studies["1.2.3"] == ["2.dcm", "1"]


def test_a_folder_without_films_is_refused(tmp_path):
    (tmp_path / "report.txt").write_text("Clear.")
    for folder, code in ((tmp_path, "no_studies"), (tmp_path / "absent", "source_missing")):
        with pytest.raises(StudyError) as caught:
            find_films(folder, "file", DEFAULT_LIMITS)
        assert caught.value.code == code


def test_the_uid_of_a_deflated_file_is_read_within_the_limits(tmp_path):
    made = dataset(ramp(), StudyInstanceUID="1.2.5")
    made.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = tmp_path / "deflated.dcm"
    path.write_bytes(encoded(made))
    assert study_uid(path, DEFAULT_LIMITS) == "1.2.5"
    path.write_bytes(path.read_bytes()[:-50])
    assert study_uid(path, DEFAULT_LIMITS) in ("1.2.5", "")
    path.write_bytes(bytes(128) + b"DICM" + b"\x02\0\xff")
    assert study_uid(path, DEFAULT_LIMITS) == ""
