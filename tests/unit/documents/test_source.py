"""Whom a draft is about: read from the headers, and only if all films agree."""

from __future__ import annotations

import pytest

from lmrrg.documents.draft import DocumentError
from lmrrg.documents.source import read_source, source_study
from tests.support.dicom_files import dicom, ramp
from tests.support.drafts import FILM


def test_files_become_a_study(tmp_path) -> None:
    paths = []
    for number in (1, 2):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(
            dicom(ramp(), StudyInstanceUID="1.2.3", SOPInstanceUID=f"1.2.{number}", StudyDate="")
        )
        paths.append(path)
    source = read_source(paths)
    assert source.uid == "1.2.3"
    assert source.value("PatientID") == "MRN-12345"
    assert source.value("StudyDate") == ""
    assert [image.sop_instance_uid for image in source.images] == ["1.2.1", "1.2.2"]


@pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID"])
def test_films_of_two_patients_or_studies_are_refused_without_quoting_them(keyword) -> None:
    with pytest.raises(DocumentError, match=keyword) as caught:
        source_study([FILM, FILM | {keyword: "9.9.9"}])
    assert caught.value.code == "mixed_study"
    assert FILM[keyword] not in str(caught.value)
    assert "9.9.9" not in str(caught.value)


def test_a_picture_among_films_has_no_reference_and_a_gap_is_filled() -> None:
    source = source_study([{}, {"PatientID": "A"}, {"StudyInstanceUID": "1.2.3"}])
    assert (source.uid, source.value("PatientID"), len(source.images)) == ("1.2.3", "A", 2)
    with pytest.raises(DocumentError, match="no_study_uid"):
        assert source_study([{}]).uid


def test_what_is_no_dicom_file_is_refused(tmp_path) -> None:
    path = tmp_path / "jane-doe.dcm"
    path.write_bytes(bytes(200))
    source = read_source([path])
    with pytest.raises(DocumentError, match="no_study_uid"):
        assert source.uid
