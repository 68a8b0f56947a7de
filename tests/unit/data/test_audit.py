"""The audit against counts made by hand, priors against a slow rule, copies of image files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmrrg.data.audit import audit_of, audit_table, find_duplicates
from lmrrg.data.importing import complete_source, write_import
from lmrrg.data.priors import link_priors, prior_reports
from lmrrg.data.source import Source
from lmrrg.manifest import read_studies, write_studies
from lmrrg.studies import Study, StudyError, StudyImage
from tests.support.trees import CLEAR, LARGE, picture


def study(name: str, patient: str, **more) -> Study:
    facts = {"images": (StudyImage(Path(f"{name}.png"), "PA"),), "findings": CLEAR, **more}
    return Study(id=name, patient=patient, **facts)


STUDIES = [
    study("a", "p", split="train", labels={"Edema": 1}, impression="Edema."),
    study(
        "b",
        "p",
        split="train",
        labels={"Edema": -1, "No Finding": 0},
        prior="a",
        findings="Seen 3/4/2020.",
    ),
    study(
        "c",
        "q",
        split="test",
        labels={"No Finding": 1},
        images=(StudyImage(Path("c"), "lateral"),) * 2,
    ),
]


def test_counts():
    audit = audit_of("made", "findings", STUDIES, rows=5, dropped={"z": 1, "a": 1}, notes={})
    assert audit["rows_read"] == 5
    assert audit["dropped"] == {"a": 1, "z": 1}
    assert audit["splits"] == {"train": 2, "test": 1}
    assert audit["split_table"]["train"] == {
        "studies": 2,
        "patients": 1,
        "images": 2,
        "abnormal": 1,
    }
    assert audit["views"] == {"PA": 2, "lateral": 2}
    assert audit["sections"]["impression"] == {"empty": 2, "median_words": 1}
    assert audit["labels"]["Edema"] == {"positive": 1, "negative": 0, "uncertain": 1}
    assert (audit["priors"], audit["abnormal"], audit["images"]) == (1, 1, 4)
    assert audit["identifier_like_text"]["date"] == 1
    assert audit["image_duplicates"] is None
    assert audit["patients_in_two_splits"] == 0
    shared = audit_of(
        "x", "findings", [*STUDIES, study("d", "q", split="val")], rows=4, dropped={}, notes={}
    )
    assert shared["patients_in_two_splits"] == 1


def test_the_table_shows_the_counts_and_the_file_holds_them(tmp_path):
    made = complete_source(
        Source("made", STUDIES, notes={"origin": "here"}), section="findings", seed=7
    )
    saved = json.loads(write_import(tmp_path / "m.jsonl", made).read_text())
    assert saved == made.audit()
    shown = audit_table(saved)
    for words in (
        "3 rows read",
        "patients in two splits: 0",
        "origin: here",
        "date 1",
        "PA 2",
        "50.0%",
    ):
        assert words in shown


def test_no_id_and_no_text_in_the_audit():
    secret = study("secret-id", "secret-patient", findings="secret text", split="train", labels={})
    shown = json.dumps(audit_of("made", "findings", [secret], rows=1, dropped={}, notes={}))
    assert "secret" not in shown


def test_copies(tmp_path):
    def at(name: str, seed: int) -> tuple[StudyImage, ...]:
        return (StudyImage(picture(tmp_path / f"{name}.png", seed), "PA"),)

    studies = [
        study("a", "p", split="train", images=at("a", 1) + at("a2", 1)),
        study("b", "q", split="train", images=at("b", 1)),
        study("c", "r", split="test", images=at("c", 2)),
        study("d", "r", split="test", images=at("d", 2)),
        study("e", "s", split="val", images=at("e", 1)),
    ]
    found = find_duplicates(studies, progress=False)
    assert found == {
        "images": 6,
        "distinct": 2,
        "copies": 4,
        "shared_by_patients": 1,
        "shared_by_splits": 1,
    }


@given(st.lists(st.tuples(st.sampled_from("pqr"), st.none() | st.integers(0, 5)), max_size=14))
def test_priors(facts):
    studies = [study(str(number), patient) for number, (patient, _) in enumerate(facts)]
    dates = {
        str(number): str(moment) for number, (_, moment) in enumerate(facts) if moment is not None
    }
    for one in link_priors(studies, dates):
        before = [
            dates[other.id]
            for other in studies
            if other.patient == one.patient
            and one.id in dates
            and dates.get(other.id, "9") < dates[one.id]
        ]
        if before:
            assert one.prior is not None
            assert dates[one.prior] == max(before)
            assert next(s.patient for s in studies if s.id == one.prior) == one.patient
        else:
            assert one.prior is None


def test_a_dropped_study_is_nobodys_prior():
    rows = [
        study("a", "p"),
        study("b", "p", findings=""),
        study("c", "p"),
        study("d", "q", prior="b"),
    ]
    made = complete_source(
        Source("x", rows, study_dates={"a": "1", "b": "2", "c": "3"}), section="findings", seed=7
    )
    assert {one.id: one.prior for one in made.studies} == {"a": None, "c": "a", "d": None}


@pytest.mark.parametrize(
    ("section", "text"),
    [("findings", ""), ("impression", "Normal."), ("findings+impression", "Normal.")],
)
def test_the_prior_report_is_the_wanted_section_of_the_prior(section, text):
    rows = [
        study("a", "p", findings="", impression="Normal."),
        study("b", "p", prior="a"),
        study("c", "q"),
    ]
    assert prior_reports(rows, section) == {"b": text}


@pytest.mark.parametrize("prior", ["b", "z", "a"])
def test_manifests_with_impossible_priors_are_refused(tmp_path, prior):
    write_studies(
        tmp_path / "m.jsonl", [study("a", "p", prior=prior), study("b", "q", findings=LARGE)]
    )
    with pytest.raises(StudyError, match="bad_prior"):
        read_studies(tmp_path / "m.jsonl")
