"""Elements that identify a file: read as they are, left out where they are invalid."""

from __future__ import annotations

import pytest

from lmrrg.imaging.dicom.identity import checked_identity, file_identity, identity
from tests.support.dicom_files import NAME, dataset, dicom, encoded, ramp


def test_a_header_is_read_as_text() -> None:
    found = file_identity(dicom(ramp(), StudyInstanceUID="1.2.3", StudyDate="20260131"))
    assert found["PatientName"] == NAME
    assert (found["StudyInstanceUID"], found["StudyDate"]) == ("1.2.3", "20260131")
    assert (found["SOPInstanceUID"], found["Modality"]) == ("2.25.1", "CR")
    assert "AccessionNumber" not in found


def test_a_name_in_another_character_set_becomes_unicode() -> None:
    made = dataset(ramp(), SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Änne")
    assert file_identity(encoded(made))["PatientName"] == "Müller^Änne"


def test_what_is_no_dicom_file_has_no_identity() -> None:
    assert file_identity(b"\x89PNG\r\n\x1a\n" + bytes(200)) == {}


@pytest.mark.parametrize(
    "stated",
    [None, ["PatientID"], {"PatientWeight": "70"}, {"PatientID": 7}, {"StudyDate": "20261399"}],
)
def test_what_another_process_states_is_checked(stated) -> None:
    assert checked_identity({"PatientID": "MRN-1"}) == {"PatientID": "MRN-1"}
    with pytest.raises(ValueError, match="no identity"):
        checked_identity(stated)


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
