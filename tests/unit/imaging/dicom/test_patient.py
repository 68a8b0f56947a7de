"""What a header says of the patient, and what the reader makes of it."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from lmrrg.imaging.dicom.patient import is_child, shows_another_part
from lmrrg.imaging.radiograph import ImageError, Limits
from lmrrg.imaging.reading import read_image
from tests.support.dicom_files import dicom, ramp


def header(**elements: object) -> Dataset:
    made = Dataset()
    for name, value in elements.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    "part",
    ["ABDOMEN", "HAND", "l hand", "KNEE_RT", "PELVIS", "SKULL", "ABDOMEN AP", "C-SPINE CERVICAL"],
)
def test_another_part_of_the_body_is_refused(part):
    with pytest.raises(ImageError, match="wrong_body_part"):
        read_image(dicom(ramp(), BodyPartExamined=part))
    read_image(dicom(ramp(), BodyPartExamined=part), Limits(body_part="any"))


@pytest.mark.parametrize("part", ["CHEST", "THORAX", "chest/abdomen", "RIBS", "", "XYZ", "1", "PA"])
def test_a_chest_and_words_that_name_no_part_are_read(part):
    read_image(dicom(ramp(), BodyPartExamined=part))


def test_a_coded_region_counts_where_no_body_part_is_stated():
    knee = header(CodeValue="72696002", CodingSchemeDesignator="SCT", CodeMeaning="Knee")
    assert shows_another_part(header(AnatomicRegionSequence=[knee]))
    assert not shows_another_part(header(BodyPartExamined="CHEST", AnatomicRegionSequence=[knee]))


@pytest.mark.parametrize(
    ("elements", "child"),
    [
        ({"PatientAge": "002M"}, True),
        ({"PatientAge": "010D"}, True),
        ({"PatientAge": "030W"}, True),
        ({"PatientAge": "017Y"}, True),
        ({"PatientAge": "018Y"}, False),
        ({"PatientAge": "300M"}, False),
        ({"PatientAge": "old"}, False),
        ({"PatientBirthDate": "20200105", "StudyDate": "20260101"}, True),
        ({"PatientBirthDate": "2020.01.05", "StudyDate": "20260101"}, True),
        ({"PatientBirthDate": "19700101", "StudyDate": "20260101"}, False),
        ({"PatientBirthDate": "20270101", "StudyDate": "20260101"}, False),
        ({"PatientBirthDate": "20201399", "StudyDate": "20260101"}, False),
        ({}, False),
    ],
)
def test_who_is_a_child(elements, child):
    assert is_child(header(**elements)) is child


def test_a_film_of_a_child_is_flagged():
    assert "population" in read_image(dicom(ramp(), PatientAge="002M")).warnings
    assert "population" not in read_image(dicom(ramp(), PatientAge="040Y")).warnings


def test_identifiers_leave_the_reader_as_digests_only():
    one = read_image(dicom(ramp(), PatientID="A1", StudyInstanceUID="1.2.3"))
    other = read_image(dicom(ramp(), PatientID="B2", StudyInstanceUID="1.2.3"))
    assert one.patient != other.patient
    assert one.study == other.study != ""
    assert "A1" not in repr((one.patient, one.study))
    assert read_image(dicom(ramp(), PatientID="")).patient == ""
