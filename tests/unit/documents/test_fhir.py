"""FHIR bundles: valid by three checkers, and each kind of damage is noticed."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from lmrrg.documents.fhir import fhir_bundle
from lmrrg.documents.source import source_study
from lmrrg.studies import LABELS
from tests.support.drafts import draft, films
from tests.support.fhir_checks import npm_problems, problems, why_no_validator

needs_npm = pytest.mark.skipif(bool(why_no_validator()), reason=why_no_validator())

DOCUMENTS = {
    "one film": fhir_bundle(draft(), films()),
    "two films": fhir_bundle(
        draft(images=2), films({}, {"SOPInstanceUID": "1.2.9", "SeriesInstanceUID": "1.2.8"})
    ),
    "pictures": fhir_bundle(draft(impression="", images=2), source_study([{}, {}])),
    "no text": fhir_bundle(draft(findings="", impression="", complete=False), films()),
    "control characters": fhir_bundle(draft(findings="a\x00\x1b\u2028b <b>&"), films()),
}


def resources(bundle: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [
        entry["resource"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == kind
    ]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_reference_resolves_and_every_invariant_holds(name) -> None:
    assert problems(DOCUMENTS[name]) == []


@needs_npm
@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_profiles_of_r4_are_kept(name) -> None:
    assert npm_problems(DOCUMENTS[name]) == []


def test_the_bundle_says_what_the_draft_says() -> None:
    bundle = DOCUMENTS["one film"]
    [report] = resources(bundle, "DiagnosticReport")
    assert report["code"]["coding"][0]["code"] == "36554-4"
    assert report["status"] == "preliminary"
    assert report["conclusion"] == "Cardiomegaly."
    assert report["effectiveDateTime"] == "2026-01-31"
    text = base64.b64decode(report["presentedForm"][0]["data"]).decode()
    assert text == draft().text()
    observations = resources(bundle, "Observation")
    texts = {
        each["code"]["coding"][0]["code"]: each["valueString"]
        for each in observations
        if "valueString" in each
    }
    assert texts == {"18782-3": draft().findings, "19005-8": "Cardiomegaly."}
    probabilities = {
        each["code"]["coding"][0]["display"]: each["valueQuantity"]["value"]
        for each in observations
        if "valueQuantity" in each
    }
    assert probabilities == draft().probabilities
    assert tuple(probabilities) == LABELS
    [device] = resources(bundle, "Device")
    assert device["version"] == [{"value": "sha256:0123456789abcdef"}]
    [study] = resources(bundle, "ImagingStudy")
    assert study["identifier"][0]["value"] == "urn:oid:1.2.826.0.1.3680043.2.1"
    assert study["series"][0]["instance"][0]["uid"] == "1.2.826.0.1.3680043.2.3"
    [patient] = resources(bundle, "Patient")
    assert patient["identifier"] == [{"value": "MRN-4711"}]
    assert "Müller" not in json.dumps(bundle, ensure_ascii=False), "the number is enough"
    assert resources(DOCUMENTS["two films"], "DiagnosticReport")[0]["code"]["coding"][0][
        "code"
    ] == ("36643-5")


def test_ids_depend_on_study_films_and_model_alone() -> None:
    def ids(bundle: dict[str, Any]) -> list[str]:
        return [entry["fullUrl"] for entry in bundle["entry"]]

    again = fhir_bundle(draft(findings="Other.", generated_at=draft().generated_at), films())
    assert ids(again) == ids(DOCUMENTS["one film"])
    assert len(set(ids(again))) == len(again["entry"])
    for other in (
        fhir_bundle(draft(model_version="sha256:1"), films()),
        fhir_bundle(draft(), films({"SOPInstanceUID": "1.2.9"})),
    ):
        assert set(ids(other)).isdisjoint(ids(again))
    # Nothing names these studies, so that only their texts tell them apart.
    one, two = (fhir_bundle(draft(findings=text), source_study([{}])) for text in ("a", "b"))
    assert set(ids(one)).isdisjoint(ids(two))


def _at(kind: str, path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Return the damage that sets an element of the first resource of a kind; None removes it."""
    *above, last = path.split(".")

    def damage(bundle: dict[str, Any]) -> None:
        inner: Any = resources(bundle, kind)[0] if kind != "Bundle" else bundle
        for key in above:
            inner = inner[int(key) if key.isdigit() else key]
        if value is None:
            del inner[last]
        else:
            inner[last] = value

    return damage


def _without_patient(bundle: dict[str, Any]) -> None:
    bundle["entry"] = [
        entry for entry in bundle["entry"] if entry["resource"]["resourceType"] != "Patient"
    ]


def _twice(bundle: dict[str, Any]) -> None:
    bundle["entry"].append(bundle["entry"][1])


def _result_is_device(bundle: dict[str, Any]) -> None:
    [device] = resources(bundle, "Device")
    resources(bundle, "DiagnosticReport")[0]["result"][0] = {
        "reference": f"urn:uuid:{device['id']}"
    }


def _two_values(bundle: dict[str, Any]) -> None:
    resources(bundle, "Observation")[0]["dataAbsentReason"] = {"text": "unknown"}


BROKEN = {
    "a reference leads out": _at(
        "Observation", "subject.reference", "https://elsewhere.example/Patient/1"
    ),
    "no patient": _without_patient,
    "an entry twice": _twice,
    "a result that is a device": _result_is_device,
    "value and reason for none": _two_values,
    "a final report": _at("DiagnosticReport", "status", "final"),
    "another LOINC code": _at("DiagnosticReport", "code.coding.0.code", "30746-2"),
    "no presented form": _at("DiagnosticReport", "presentedForm", None),
    "no model version": _at("Device", "version", None),
    "no notice": _at("Observation", "note", None),
    "a total of a collection": _at("Bundle", "total", 3),
}
BROKEN_BY_PROFILE = {
    "an unknown status": _at("Observation", "status", "draft"),
    "no code": _at("Observation", "code", None),
    "an unknown element": _at("Observation", "probability", 0.5),
    "a number as text": _at("ImagingStudy", "numberOfInstances", "one"),
    "an unknown gender": _at("Patient", "gender", "w"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_document_fails(name) -> None:
    broken = copy.deepcopy(DOCUMENTS["one film"])
    BROKEN[name](broken)
    assert problems(broken)


@needs_npm
@pytest.mark.parametrize("name", BROKEN_BY_PROFILE)
def test_a_document_that_breaks_a_profile_fails(name) -> None:
    broken = copy.deepcopy(DOCUMENTS["one film"])
    BROKEN_BY_PROFILE[name](broken)
    assert npm_problems(broken)
