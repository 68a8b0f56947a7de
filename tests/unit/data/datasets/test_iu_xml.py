"""IU X-ray from Open-i's XML records, loose and in their archive."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from lmrrg.studies import StudyError
from tests.support.trees import CLEAR, import_from, picture, real_iu, table

RECORD = """<?xml version="1.0" encoding="utf-8"?>
<eCitation><meta type="rr"/><uId id="CXR{uid}"/><pmcId id="{uid}"/>
  <MedlineCitation><Article><Abstract>
    <AbstractText Label="COMPARISON">None.</AbstractText>
    <AbstractText Label="INDICATION">Cough &amp; fever</AbstractText>
    <AbstractText Label="FINDINGS">{findings}</AbstractText>
    <AbstractText Label="IMPRESSION"/>
  </Abstract></Article></MedlineCitation>
  {images}
</eCitation>"""


def record(uid: int, *images: str, findings: str = CLEAR) -> str:
    parents = "".join(
        f'<parentImage id="{name}"><caption>PA and lateral</caption></parentImage>'
        for name in images
    )
    return RECORD.format(uid=uid, findings=findings, images=parents)


@pytest.fixture
def openi(tmp_path: Path) -> Path:
    """Three loose records; the first has the doubled number that Open-i's first record has."""
    folder = tmp_path / "openi"
    records = {
        1: record(1, "CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001"),
        2: record(2, "CXR2_IM-0652-1001", findings="\n  Two\n lines. "),
        3: record(3, "CXR3_IM-1384-1001"),
    }
    (folder / "ecgen-radiology").mkdir(parents=True)
    for uid, text in records.items():
        (folder / "ecgen-radiology" / f"{uid}.xml").write_text(text)
    picture(folder / "images" / "CXR1_1_IM-0001-3001.png")
    picture(folder / "images" / "1_IM-0001-4001.dcm.png")
    picture(folder / "images" / "CXR2_IM-0652-1001.png")
    return folder


def pack(folder: Path) -> Path:
    with tarfile.open(folder / "NLMCXR_reports.tgz", "w:gz") as archive:
        archive.add(folder / "ecgen-radiology", "ecgen-radiology")
    for path in (folder / "ecgen-radiology").iterdir():
        path.unlink()
    return folder / "NLMCXR_reports.tgz"


def test_loose_records_and_the_archive_are_one(openi):
    loose = import_from("iu-xray", openi)
    studies = {study.id: study for study in loose.studies}
    assert set(studies) == {"CXR1", "CXR2"}
    assert len(studies["CXR1"].images) == 2, "both editions of a name"
    assert (studies["CXR1"].findings, studies["CXR1"].indication) == (CLEAR, "Cough & fever")
    assert studies["CXR2"].findings == "Two lines."
    assert loose.dropped == {"no image file": 1}
    archive = pack(openi)
    assert import_from("iu-xray", openi).studies == loose.studies
    assert import_from("iu-xray", archive).studies == loose.studies


def test_views(openi):
    columns = ["imageid", "Modality", "View Position"]
    rows = [
        ["CXR1_1_IM-0001-3001", "CR", "LL"],
        ["CXR1_1_IM-0001-4001", "CR", "PA"],
        ["CXR2_IM-0652-1001", "CR", ""],
    ]
    table(openi / "nlmcxr_dicom_metadata.csv.gz", columns, rows)
    views = [image.view for image in import_from("iu-xray", openi).studies[0].images]
    assert views == ["unknown", "lateral"], "a header's PA is not believed"
    projections = [
        [1, "1_IM-0001-4001.dcm.png", "Frontal"],
        [1, "1_IM-0001-3001.dcm.png", "Lateral"],
    ]
    table(openi / "indiana_projections.csv", ["uid", "filename", "projection"], projections)
    assert [image.view for image in import_from("iu-xray", openi).studies[0].images] == [
        "frontal",
        "lateral",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "<eCitation>",
        "<eCitation/>",
        '<!DOCTYPE x [<!ENTITY a "aaaa">]><eCitation><uId id="CXR1"/></eCitation>',
        "<a>" + " " * (1 << 20) + "</a>",
    ],
    ids=["cut off", "no id", "entities", "too large"],
)
def test_records_that_are_refused(openi, text):
    (openi / "ecgen-radiology" / "2.xml").write_text(text)
    with pytest.raises(StudyError, match="source_xml"):
        import_from("iu-xray", openi)


def test_archives_that_are_refused(openi):
    archive = pack(openi)
    whole = archive.read_bytes()
    for content in (b"no archive", whole[: len(whole) // 2]):
        archive.write_bytes(content)
        with pytest.raises(StudyError, match="source_archive"):
            import_from("iu-xray", openi)
    archive.unlink()
    with pytest.raises(StudyError, match="source_missing"):
        import_from("iu-xray", openi)


def test_an_archive_of_something_else_has_no_rows(openi):
    with tarfile.open(openi / "NLMCXR_reports.tgz", "w:gz") as archive:
        member = tarfile.TarInfo("notes.txt")
        member.size = 2
        archive.addfile(member, io.BytesIO(b"hi"))
    with pytest.raises(StudyError, match="no_studies"):
        import_from("iu-xray", openi)


def test_a_real_archive_says_what_the_csv_says(repo_root, tmp_path):
    """The published archive (torchxrayvision ships it) against the CSV form of the same studies."""
    archive = os.environ.get("LMRRG_NLMCXR_REPORTS")
    if not archive:
        pytest.skip("set LMRRG_NLMCXR_REPORTS to Open-i's NLMCXR_reports.tgz")
    folder = real_iu(repo_root)
    for name in ("indiana_projections.csv", "r2gen_annotation.json"):
        (tmp_path / name).symlink_to(folder / name)
    (tmp_path / "NLMCXR_reports.tgz").symlink_to(archive)
    from_xml = {
        study.id: study
        for study in import_from("iu-xray", tmp_path, images=folder / "images").studies
    }
    from_csv = {study.id: study for study in import_from("iu-xray", folder).studies}
    assert from_xml.keys() == from_csv.keys()
    differing = [name for name, study in from_csv.items() if study != from_xml[name]]
    assert all(not from_csv[name].indication and from_xml[name].indication for name in differing), (
        "#NAME? in the CSV"
    )
    assert len(differing) == 2
