"""Saying more about the same never raises the score: repeats, other words, contradictions."""

from __future__ import annotations

import pytest

from lmrrg.metrics.embedded.backend import EmbeddedBackend
from lmrrg.metrics.radcliq import radcliq_v1

REFERENCES = [
    "There is a moderate right pneumothorax. Heart size is normal.",
    "Small left pleural effusion. Mild cardiomegaly. No pneumothorax.",
    "The lungs are clear. The heart is normal in size. No pleural effusion or pneumothorax.",
    "Severe pulmonary edema with large bilateral effusions. ET tube 4 cm above the carina.",
]
REPORTS = [
    "There is a small right pneumothorax. The heart is mildly enlarged.",
    "Large left effusion. Heart size is normal. No pneumothorax is seen.",
    "Lungs are clear. Heart size is normal.",
    "Mild edema. Small right effusion. Moderate cardiomegaly. ETT above the carina.",
]
SIZES = ("small", "moderate", "large", "mild", "severe")


def rewards(hypotheses: list[str], reference: str) -> list[float]:
    parts = EmbeddedBackend().score(hypotheses, [reference] * len(hypotheses))
    return (-radcliq_v1(parts.radgraph, parts.bertscore, parts.semb)).tolist()


def said_again(report: str) -> list[str]:
    """Return the report with each of its sentences once more, as it is and in other words."""
    sentences = report.rstrip(".").split(". ")
    forms = ("{}", "again, {}", "there is {}", "{} is seen")
    return [f"{report} {form.format(text.lower())}." for text in sentences for form in forms]


def contradicted(report: str) -> list[str]:
    """Return the report with each of its sizes once more as another size."""
    found: list[str] = []
    for text in report.lower().rstrip(".").split(". "):
        for size in SIZES:
            if size in text.split():
                found += [f"{report} {text.replace(size, other)}." for other in SIZES]
    return found


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("report", REPORTS)
def test_no_repeat_or_contradiction_pays(report: str, reference: str) -> None:
    more = [*said_again(report), *contradicted(report)]
    honest, *others = rewards([report, *more], reference)
    gains = [(text, other - honest) for text, other in zip(more, others, strict=True)]
    assert [gain for gain in gains if gain[1] > 0] == []


def test_what_the_reference_says_twice_may_be_said_twice() -> None:
    reference = "Small left effusion. Mild edema. There is again a small effusion on the left."
    twice, thrice = rewards(
        [
            "Mild edema. Left effusion, small. Small effusion on the left.",
            "Mild edema. Left effusion, small. Small effusion on the left. Again "
            "small left effusion. There is a small effusion on the left side.",
        ],
        reference,
    )
    assert twice > thrice
    assert twice > 1.2


@pytest.mark.parametrize(
    "more", ["The effusion is on the left.", "The effusion has increased.", "No edema."]
)
def test_more_about_a_finding_is_no_repeat(more: str) -> None:
    whole, part = rewards([f"Small effusion. {more}", "Small effusion."], f"Small effusion. {more}")
    assert whole > part


def test_to_call_everything_resolved_does_not_pay() -> None:
    """A false finding that has gone is less wrong than one that is there, yet nothing is gained."""
    gains = []
    for reference in REFERENCES:
        for report in sorted({*REPORTS, *REFERENCES} - {reference}):
            gone = report.replace(". ", " has resolved. ").rstrip(".") + " has resolved."
            honest, cheat = rewards([report, gone], reference)
            gains.append(cheat - honest)
    assert sum(gains) / len(gains) < -0.1


def test_what_the_reference_calls_resolved_may_be_resolved() -> None:
    reference = "The right pneumothorax has resolved. Heart size is normal."
    same, denied = rewards(
        [
            "Heart size is normal. Interval resolution of the right pneumothorax.",
            "Heart size is normal. No pneumothorax.",
        ],
        reference,
    )
    assert same > denied
