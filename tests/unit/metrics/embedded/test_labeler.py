"""The 14 classes on sentences written for this test, in every form in which reports come."""

from __future__ import annotations

import pytest

from lmrrg.metrics.embedded.labeler import label_report
from lmrrg.studies import LABELS, NEGATIVE, POSITIVE, UNCERTAIN


@pytest.mark.parametrize(
    ("text", "label", "value"),
    [
        ("The heart is mildly enlarged.", "Cardiomegaly", POSITIVE),
        ("Heart size is normal.", "Cardiomegaly", NEGATIVE),
        ("The heart is not enlarged.", "Cardiomegaly", NEGATIVE),
        ("Heart size upper limits of normal.", "Cardiomegaly", POSITIVE),
        ("Heart size at the upper limits of normal.", "Cardiomegaly", NEGATIVE),
        ("The heart is near the upper limits of normal.", "Cardiomegaly", NEGATIVE),
        (
            "Cardiomediastinal silhouette upper limits of normal.",
            "Enlarged Cardiomediastinum",
            NEGATIVE,
        ),
        ("Stable heart size.", "Cardiomegaly", UNCERTAIN),
        (
            "Heart size moderately enlarged, stable mediastinal contours.",
            "Enlarged Cardiomediastinum",
            UNCERTAIN,
        ),
        ("The cardiomediastinal silhouette is normal.", "Enlarged Cardiomediastinum", NEGATIVE),
        ("Widened mediastinum.", "Enlarged Cardiomediastinum", POSITIVE),
        ("Patchy opacity in the left base.", "Lung Opacity", POSITIVE),
        ("No focal airspace disease.", "Lung Opacity", NEGATIVE),
        ("Lungs are expanded and clear airspace disease.", "Lung Opacity", NEGATIVE),
        ("The airspace disease has cleared.", "Lung Opacity", NEGATIVE),
        ("Opacity at the base, not seen on prior.", "Lung Opacity", POSITIVE),
        ("Streaky opacity in the lingula, atelectasis versus scar.", "Lung Opacity", POSITIVE),
        ("Increased interstitial markings.", "Lung Opacity", POSITIVE),
        ("A 2 cm opacity in the left apex.", "Lung Lesion", POSITIVE),
        ("Round opacity in the lingula.", "Lung Lesion", POSITIVE),
        ("A 6 mm nodule.", "Lung Lesion", POSITIVE),
        ("Nodular opacity in the apex.", "Lung Lesion", POSITIVE),
        ("Interstitial edema.", "Edema", POSITIVE),
        ("Mild vascular congestion.", "Edema", UNCERTAIN),
        ("Right upper lobe consolidation.", "Consolidation", POSITIVE),
        ("Findings concerning for pneumonia.", "Pneumonia", UNCERTAIN),
        ("Bibasilar atelectasis.", "Atelectasis", POSITIVE),
        ("Probable atelectasis at the base.", "Atelectasis", POSITIVE),
        ("Probable atelectasis or infection at the base.", "Atelectasis", UNCERTAIN),
        ("Possible atelectasis at the base.", "Atelectasis", UNCERTAIN),
        ("Scarring or atelectasis at the base.", "Atelectasis", UNCERTAIN),
        ("Small apical pneumothorax.", "Pneumothorax", POSITIVE),
        ("No pneumothorax or effusion.", "Pneumothorax", NEGATIVE),
        ("Trace effusions.", "Pleural Effusion", POSITIVE),
        ("Apical pleural thickening.", "Pleural Other", POSITIVE),
        ("Old rib fracture.", "Fracture", POSITIVE),
        ("No displaced rib fractures.", "Fracture", NEGATIVE),
        ("Right PICC in the SVC.", "Support Devices", POSITIVE),
        ("There has been removal of the right PICC.", "Support Devices", NEGATIVE),
        ("No pneumothorax following right IJ line placement.", "Support Devices", POSITIVE),
        ("The pneumothorax is no longer visualized.", "Pneumothorax", NEGATIVE),
        ("Pneumonia is unlikely.", "Pneumonia", UNCERTAIN),
        ("Pleural effusion: No.", "Pleural Effusion", NEGATIVE),
        ("Pneumothorax: possible.", "Pneumothorax", UNCERTAIN),
        ("The tip of the nasogastric tube is not visualized.", "Support Devices", POSITIVE),
        ("The right chest tube was removed.", "Support Devices", NEGATIVE),
        ("The left lung is opacified.", "Lung Opacity", POSITIVE),
        ("Heart size is normal with increased interstitial markings.", "Cardiomegaly", NEGATIVE),
    ],
)
def test_class_of_a_sentence(text: str, label: str, value: int) -> None:
    assert label_report(text)[label] == value
    assert label_report(text.lower().replace(".", " .").replace(",", ""))[label] == value


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Nodular opacity in the apex.", "Lung Opacity"),
        ("A 2 cm opacity in the left apex.", "Lung Opacity"),
        ("Interstitial markings from pulmonary edema.", "Lung Opacity"),
        ("Old granulomatous infection.", "Pneumonia"),
        ("Calcified granuloma.", "Lung Lesion"),
        ("No pleural line.", "Support Devices"),
        ("Lungs are clear.", "Cardiomegaly"),
        ("Large left pleural effusion obscures the left heart border.", "Cardiomegaly"),
        ("Large hiatal hernia behind the heart.", "Cardiomegaly"),
        ("Large right pneumothorax with mediastinal shift.", "Enlarged Cardiomediastinum"),
        ("---", "No Finding"),
    ],
)
def test_what_is_no_mention(text: str, label: str) -> None:
    assert label not in label_report(text)


def test_positive_beats_uncertain_beats_negative() -> None:
    assert label_report("No effusion. Possible effusion.")["Pleural Effusion"] == UNCERTAIN
    assert (
        label_report("Small effusion. Possible effusion. No effusion.")["Pleural Effusion"]
        == POSITIVE
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Heart size is normal. Lungs are clear. No effusion.", True),
        ("Lungs are clear. Right PICC in the SVC.", True),
        ("Lungs are clear. Sternotomy wires and surgical clips.", True),
        # Neither normal nor a denied finding; with a normal heart it is.
        ("Low lung volumes with bronchovascular crowding.", False),
        ("Low lung volumes with bronchovascular crowding. Normal heart.", True),
        ("Rotated view limits the evaluation, with scoliosis.", False),
        ("Lungs are clear. Tortuous aorta.", False),
        ("Lungs are clear. Degenerative changes of the spine.", False),
        ("Possible pneumonia.", False),
        ("Free air under the diaphragm.", False),
        ("No free air under the diaphragm.", True),
        ("Small effusion.", False),
        ("", False),
    ],
)
def test_no_finding(text: str, expected: bool) -> None:
    assert (label_report(text).get("No Finding") == POSITIVE) is expected


def test_classes_come_in_their_order() -> None:
    found = list(label_report("PICC. Fracture. Effusion. Enlarged heart. Edema."))
    assert found == [label for label in LABELS if label in found]
    assert label_report("") == {}
