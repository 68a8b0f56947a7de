"""Structured Reports: valid by dciodvfy, readable by dsrdump, in the study of their films."""

from __future__ import annotations

import io
import logging
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import pydicom
import pytest
from pydicom.dataset import Dataset

from lmrrg.documents.draft import DocumentError
from lmrrg.documents.source import source_study
from lmrrg.documents.sr import SRKind, sr_bytes, structured_report
from lmrrg.studies import LABELS
from tests.support.drafts import FILM, draft, films

KINDS: tuple[SRKind, ...] = get_args(SRKind)


def needs(tool: str, package: str) -> pytest.MarkDecorator:
    reason = f"{tool} is not installed (Debian package {package})"
    return pytest.mark.skipif(shutil.which(tool) is None, reason=reason)


def texts(document: Dataset) -> list[str]:
    """Return every text of a document's tree."""
    found = [document.TextValue] if "TextValue" in document else []
    for item in document.get("ContentSequence", []):
        found += texts(item)
    return found


CASES = {
    "one film": (draft(), films()),
    "two films": (draft(images=2), films({}, {"SOPInstanceUID": "1.2.9"})),
    "no text": (draft(findings="", impression="", complete=False), films()),
    "odd characters": (draft(findings="a\x00\x1bb\nÄ " + "long " * 5000), films()),
    "bare header": (
        draft(),
        source_study(
            [{k: v for k, v in FILM.items() if k.endswith("UID")}],
        ),
    ),
}


@needs("dciodvfy", "dicom3tools")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_dciodvfy_finds_no_error(name: str, kind: SRKind, tmp_path: Path) -> None:
    path = tmp_path / "sr.dcm"
    path.write_bytes(sr_bytes(structured_report(*CASES[name], kind)))
    told = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False).stderr
    assert {"BasicTextSR", "ComprehensiveSR"} & set(told.splitlines()), "what it took it for"
    assert [line for line in told.splitlines() if line.startswith("Error")] == []


@needs("dciodvfy", "dicom3tools")
def test_dciodvfy_would_find_an_error(tmp_path: Path) -> None:
    document = structured_report(draft(), films(), "text")
    del document.CompletionFlag
    document.save_as(tmp_path / "sr.dcm", enforce_file_format=True)
    done = subprocess.run(
        ["dciodvfy", tmp_path / "sr.dcm"], capture_output=True, text=True, check=False
    )
    assert "Error" in done.stderr


@needs("dsrdump", "dcmtk")
@pytest.mark.parametrize("kind", KINDS)
def test_dsrdump_reads_the_report(kind: SRKind, tmp_path: Path) -> None:
    path = tmp_path / "sr.dcm"
    path.write_bytes(sr_bytes(structured_report(draft(), films(), kind)))
    done = subprocess.run(
        ["dsrdump", "+Pl", path], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    assert draft().findings in done.stdout
    assert "Verification Flag   : UNVERIFIED" in done.stdout
    assert "Completion Flag     : PARTIAL" in done.stdout
    if kind == "tid1500":
        assert 'Probability of Pneumothorax")="0.6154"' in done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_a_document_lies_in_the_study_of_its_films(kind: SRKind) -> None:
    written = pydicom.dcmread(io.BytesIO(sr_bytes(structured_report(draft(), films(), kind))))
    for keyword, value in FILM.items():
        if keyword not in ("SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID", "Modality"):
            assert str(written[keyword].value) == value
    [study] = written.CurrentRequestedProcedureEvidenceSequence
    [series] = study.ReferencedSeriesSequence
    [film] = series.ReferencedSOPSequence
    assert film.ReferencedSOPInstanceUID == FILM["SOPInstanceUID"]
    assert (written.CompletionFlag, written.VerificationFlag) == ("PARTIAL", "UNVERIFIED")
    assert written.PreliminaryFlag == "PRELIMINARY"
    assert written.Modality == "SR"
    assert written.SOPClassUID == written.file_meta.MediaStorageSOPClassUID
    assert written.SOPInstanceUID == written.file_meta.MediaStorageSOPInstanceUID
    said = texts(written)
    assert draft().findings in said
    assert draft().impression in said
    assert draft().notice in said


def test_the_measurement_report_has_every_probability() -> None:
    written = structured_report(draft(), films(), "tid1500")
    [group] = [
        item
        for part in written.ContentSequence
        if part.ConceptNameCodeSequence[0].CodeMeaning == "Imaging Measurements"
        for item in part.ContentSequence
    ]
    found = {
        item.ConceptNameCodeSequence[0].CodeMeaning.removeprefix("Probability of "): float(
            item.MeasuredValueSequence[0].NumericValue
        )
        for item in group.ContentSequence
        if item.ValueType == "NUM"
    }
    assert found == draft().probabilities
    coded = {
        item.ConceptNameCodeSequence[0].CodeValue
        for item in group.ContentSequence
        if item.ValueType == "NUM"
    }
    assert len(coded) == len(LABELS)


def test_uids_depend_on_study_films_and_model_alone() -> None:
    def uids(*, kind: SRKind = "text", change: dict[str, str] | None = None, **of_draft) -> str:
        document = structured_report(draft(**of_draft), films(change or {}), kind)
        assert len(document.SOPInstanceUID) <= 64
        return document.SOPInstanceUID

    same = uids()
    assert uids(findings="Other.") == same
    others = [
        uids(kind="tid1500"),
        uids(model_version="sha256:1"),
        uids(change={"SOPInstanceUID": "1.2.9"}),
        uids(change={"StudyInstanceUID": "1.2.9"}),
    ]
    assert len({same, *others}) == 5
    backwards = films({"SOPInstanceUID": "1.9"}, {"SOPInstanceUID": "1.8"})
    forwards = films({"SOPInstanceUID": "1.8"}, {"SOPInstanceUID": "1.9"})
    assert (
        structured_report(draft(), backwards, "text").SOPInstanceUID
        == structured_report(draft(), forwards, "text").SOPInstanceUID
    )


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([{}], "no_images"),
        ([FILM | {"StudyInstanceUID": ""}], "no_study_uid"),
        ([FILM | {"SOPInstanceUID": ""}], "no_instance_uid"),
        ([FILM | {"SeriesInstanceUID": ""}], "no_instance_uid"),
    ],
)
def test_films_without_what_a_document_refers_to_are_refused(headers, code) -> None:
    with pytest.raises(DocumentError) as caught:
        structured_report(draft(), source_study(headers), "text")
    assert caught.value.code == code
    assert "MRN" not in str(caught.value)


def test_no_name_reaches_a_log_or_a_warning(
    caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    caplog.set_level(logging.DEBUG)
    odd = films({"PatientName": "Doe, Jane (Secret)", "ReferringPhysicianName": "Secret, A."})
    written = structured_report(draft(), odd, "tid1500")
    sr_bytes(written)
    assert str(written.PatientName) == "Doe, Jane (Secret)"
    assert "Secret" not in caplog.text
    assert not [each for each in recwarn if "Secret" in str(each.message)]
