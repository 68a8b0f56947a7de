"""Drawn phantoms: same seed, same bytes; findings lie where the truth has them, reports agree."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmrrg.config.data import PhantomConfig
from lmrrg.data.phantom.drawn.dataset import import_phantoms
from lmrrg.data.phantom.drawn.findings import Finding, draw_phantom, sample_findings
from lmrrg.data.phantom.drawn.reports import labels_of, text_of, write_report
from lmrrg.imaging.reading import read_image
from lmrrg.manifest import check_patient_disjoint, write_studies
from lmrrg.metrics.embedded.labeler import label_report
from lmrrg.studies import LABELS, Study, StudyError

COUNTS = PhantomConfig(train=24, val=6, test=8)
KINDS = {
    "cardiomegaly": "Cardiomegaly",
    "pleural effusion": "Pleural Effusion",
    "pneumothorax": "Pneumothorax",
    "consolidation": "Consolidation",
    "edema": "Edema",
    "atelectasis": "Atelectasis",
    "nodule": "Lung Lesion",
    "pacemaker": "Support Devices",
    "central line": "Support Devices",
}


@pytest.fixture(scope="module")
def studies(tmp_path_factory) -> list[Study]:
    return import_phantoms(
        tmp_path_factory.mktemp("phantoms"), COUNTS, seed=3, progress=False
    ).studies


def facts(study: Study) -> list[dict]:
    return list(study.truth["findings"])  # type: ignore[call-overload]


def film(finding: Finding | None, seed: int, size: int = 256) -> tuple[np.ndarray, list[Finding]]:
    """Draw a film with one finding or none.

    The same seed gives the same patient, pose, vessels and exposure.
    """
    body = np.random.default_rng([9, seed])
    return draw_phantom(
        np.random.default_rng(seed), [finding] if finding else [], size, patient=body
    )


def test_same_seed_same_bytes(studies, tmp_path):
    again = import_phantoms(tmp_path, COUNTS, seed=3, progress=False).studies
    write_studies(tmp_path / "again.jsonl", again)
    for first, second in zip(studies, again, strict=True):
        assert first.images[0].path.read_bytes() == second.images[0].path.read_bytes()
        assert (first.findings, first.labels, first.truth) == (
            second.findings,
            second.labels,
            second.truth,
        )


def test_other_seed_other_studies(studies, tmp_path):
    other = import_phantoms(
        tmp_path, PhantomConfig(train=4, val=1, test=1), seed=4, progress=False
    ).studies
    assert [s.findings for s in other] != [s.findings for s in studies[:6]]


def test_more_studies_leave_the_first_ones_as_they_are(studies, tmp_path):
    few = import_phantoms(
        tmp_path, PhantomConfig(train=5, val=1, test=1), seed=3, progress=False
    ).studies
    for study, long in zip(few[:5], studies[:5], strict=True):
        assert study.images[0].path.read_bytes() == long.images[0].path.read_bytes()


def test_splits_and_patients(studies):
    assert [sum(s.split == split for s in studies) for split in ("train", "val", "test")] == [
        24,
        6,
        8,
    ]
    check_patient_disjoint(studies)
    patients = [s.patient for s in studies]
    assert len(set(patients)) < len(patients), "some patients have two studies"


def test_files_are_computed_radiographs_of_12_bits(studies):
    photometrics = set()
    for study in studies:
        dataset = pydicom.dcmread(study.images[0].path)
        photometrics.add(dataset.PhotometricInterpretation)
        assert (dataset.Modality, dataset.BitsAllocated, dataset.BitsStored) == ("CR", 16, 12)
        assert dataset.pixel_array.shape == (256, 256)
        assert dataset.pixel_array.max() <= 4095
        image = read_image(study.images[0].path)
        assert image.view == study.images[0].view
        assert image.pixels[100:140, 118:138].mean() > image.pixels[60:140, 60:90].mean(), (
            "the spine is the brighter"
        )
    assert photometrics == {"MONOCHROME1", "MONOCHROME2"}


def test_what_is_written_is_what_was_drawn(studies):
    """Compare the read brightness with the drawn one, before it became 12 bits and a window."""
    study = studies[0]
    number = int(study.id.rpartition("-")[2])
    findings = sample_findings(np.random.default_rng([1, 3, number, 0]))
    body = np.random.default_rng([1, 3, int(study.patient.rpartition("-")[2])])
    drawn, _ = draw_phantom(np.random.default_rng([1, 3, number, 1]), findings, 256, patient=body)
    np.testing.assert_allclose(read_image(study.images[0].path).pixels, drawn, atol=1 / 1500)


def test_boxes_lie_on_the_film_and_on_their_side(studies):
    seen = 0
    for study in studies:
        for fact in facts(study):
            left, top, right, bottom = fact["box"]
            assert 0 <= left < right <= 256
            assert 0 <= top < bottom <= 256
            if fact["type"] in ("consolidation", "nodule", "atelectasis", "pneumothorax"):
                seen += 1
                assert ((left + right) / 2 < 128) == (fact["side"] == "right"), (
                    "the patient's right is on our left"
                )
    assert seen > 5


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"cardiomegaly"}))
@pytest.mark.parametrize("seed", range(3))
def test_a_finding_changes_the_film_where_its_box_is(kind, seed):
    """Compare a film with a finding and without: they differ inside its box, hardly elsewhere."""
    wanted = Finding(
        kind,
        side="bilateral" if kind == "edema" else "left",
        severity={
            "edema": "moderate",
            "pleural effusion": "moderate",
            "pneumothorax": "moderate",
        }.get(kind, ""),
        zone={"consolidation": "mid", "nodule": "mid", "atelectasis": "lower"}.get(kind, ""),
    )
    with_it, placed = film(wanted, seed)
    left, top, right, bottom = placed[0].box
    without, _ = film(None, seed)
    change = np.abs(with_it - without)
    elsewhere = np.ones_like(change, bool)
    elsewhere[max(top - 8, 0) : bottom + 8, max(left - 8, 0) : right + 8] = False
    assert np.percentile(change[~elsewhere], 98) > 0.10
    assert change[~elsewhere].sum() > 0.85 * change.sum()


def test_severity_grows_with_its_name():
    def area(kind: str, severity: str) -> float:
        shown = []
        for seed in range(4):
            _, placed = film(Finding(kind, side="right", severity=severity), seed)
            left, top, right, bottom = placed[0].box
            shown.append((right - left) * (bottom - top))
        return float(np.mean(shown))

    for kind, names in (
        ("pleural effusion", ("small", "moderate", "large")),
        ("cardiomegaly", ("mild", "moderate", "severe")),
    ):
        areas = [area(kind, name) for name in names]
        assert areas == sorted(areas)
        assert areas[2] > 1.25 * areas[0]


def test_cardiomegaly_exceeds_half_the_chest():
    for seed in range(5):
        _, placed = film(Finding("cardiomegaly", severity="mild"), seed)
        left, _, right, _ = placed[0].box
        assert (right - left) / 256 > 0.5 * 0.70 * 0.93


def test_share_of_normals_and_counts():
    counts = [len(sample_findings(np.random.default_rng([5, n]))) for n in range(2000)]
    assert 0.34 < counts.count(0) / 2000 < 0.41
    assert 0.05 < counts.count(3) / 2000 < 0.15
    assert max(counts) == 3


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_reports_say_what_the_film_shows(seed):
    rng = np.random.default_rng(seed)
    findings = sample_findings(rng)
    report = write_report(rng, findings)
    text = text_of(report.findings)
    assert 3 <= len(report.findings) <= 6
    assert 18 <= len(text.split()) <= 70
    assert not re.search(r"[{}]|\s\s|\s\.", text)
    for section in (report.findings, report.impression):
        labels = labels_of(section)
        assert set(labels) <= set(LABELS)
        stated = {label for label, value in labels.items() if value == 1} - {
            "No Finding",
            "Lung Opacity",
        }
        assert stated == {KINDS[finding.kind] for finding in findings}
    for finding in findings:
        words = [finding.side] if finding.side and finding.side != "bilateral" else []
        assert all(word in text.lower() for word in words)
    assert (labels_of(report.findings).get("No Finding") == 1) == all(
        KINDS[f.kind] == "Support Devices" for f in findings
    )


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_stated_labels_agree_with_the_labeler(seed):
    """Compare two readings of a report: its writer's record, and the labeler's of the text."""
    rng = np.random.default_rng(seed)
    report = write_report(rng, sample_findings(rng))
    for section in (report.findings, report.impression):
        assert labels_of(section) == label_report(text_of(section))


def test_wording_varies_and_is_independent_of_the_film():
    findings = [Finding("pleural effusion", side="left", severity="small")]
    texts = {text_of(write_report(np.random.default_rng(n), findings).findings) for n in range(100)}
    assert len(texts) > 80
    firsts = {text.split(".")[0] for text in texts}
    assert len(firsts) > 10


def test_labels_follow_the_section(tmp_path):
    made = import_phantoms(
        tmp_path,
        PhantomConfig(train=8, val=1, test=1),
        seed=3,
        section="impression",
        progress=False,
    ).studies
    for study in made:
        assert dict(study.labels or {}) == label_report(study.impression)


def test_too_small_a_film_is_refused(tmp_path):
    with pytest.raises(StudyError, match="phantom_size"):
        import_phantoms(
            tmp_path, PhantomConfig(train=1, val=1, test=1, image_size=32), seed=1, progress=False
        )


@pytest.mark.parametrize("size", [64, 200, 320])
def test_other_sizes(tmp_path: Path, size: int):
    counts = PhantomConfig(train=2, val=1, test=1, image_size=size)
    for study in import_phantoms(tmp_path, counts, seed=3, progress=False).studies:
        assert read_image(study.images[0].path).pixels.shape == (size, size)
