"""Elements that identify a file: read as they are, left out where they are invalid."""

from __future__ import annotations

import pytest

from lmrrg.imaging.dicom.identity import identity, read_identity
from tests.support.dicom_files import NAME, dataset, dicom, ramp


def test_a_header_is_read_as_text(tmp_path) -> None:
    path = tmp_path / "film"
    path.write_bytes(dicom(ramp(), StudyInstanceUID="1.2.3", StudyDate="20260131"))
    found = read_identity(path)
    assert found["PatientName"] == NAME
    assert (found["StudyInstanceUID"], found["StudyDate"]) == ("1.2.3", "20260131")
    assert (found["SOPInstanceUID"], found["Modality"]) == ("2.25.1", "CR")
    assert "AccessionNumber" not in found


def test_a_name_in_another_character_set_becomes_unicode(tmp_path) -> None:
    made = dataset(ramp(), SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Änne")
    path = tmp_path / "film"
    made.save_as(path, enforce_file_format=True)
    assert read_identity(path)["PatientName"] == "Müller^Änne"


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("StudyDate", "20261399"),
        ("StudyDate", "2026"),
        ("PatientBirthDate", "1960-02-29"),
        ("StudyTime", "256199"),
        ("StudyInstanceUID", "1.2.x"),
        ("StudyInstanceUID", "1.02.3"),
        ("StudyInstanceUID", "1." + "2" * 64),
        ("PatientSex", "female"),
        ("AccessionNumber", "A" * 17),
        ("PatientID", "A\x1b[31m"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_an_invalid_value_is_left_out(keyword, value) -> None:
    header = dataset(ramp(), **{keyword: value})
    assert keyword not in identity(header)
    assert identity(header)["Modality"] == "CR"
