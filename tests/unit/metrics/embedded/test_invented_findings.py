"""An invented finding is never free, whatever its words, and no report with one is normal."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lmrrg.metrics.embedded.backend import EmbeddedBackend
from lmrrg.metrics.embedded.labeler import label_report
from lmrrg.metrics.embedded.reading.unnamed import unnamed_words
from lmrrg.metrics.embedded.sentences import read_sentence
from lmrrg.metrics.radcliq import radcliq_v1

SENTENCES = yaml.safe_load(
    (Path(__file__).parent / "invented_findings.yaml").read_text(encoding="utf-8")
)
INVENTED = [*SENTENCES["named"], *SENTENCES["unnamed"]]
NORMAL = (
    "The heart is normal in size. The mediastinum is unremarkable. Lungs are clear. There is no "
    "pleural effusion or pneumothorax."
)
SHORT = "Heart size is normal. Lungs are clear."
DEVICES = {
    "Right chest tube in place.",
    "Left subclavian line with its tip in the right atrium.",
    "Dual lead pacemaker.",
}
"""Devices leave "No Finding" standing, as in CheXbert."""


def rewards(hypotheses: list[str], reference: str) -> list[float]:
    parts = EmbeddedBackend().score(hypotheses, [reference] * len(hypotheses))
    return (-radcliq_v1(parts.radgraph, parts.bertscore, parts.semb)).tolist()


@pytest.mark.parametrize("normal", [NORMAL, SHORT])
def test_no_invented_finding_is_cheap(normal: str) -> None:
    appended = rewards([f"{normal} {sentence}" for sentence in INVENTED], normal)
    instead = rewards([normal.replace("Lungs are clear.", text) for text in INVENTED], normal)
    cheap = [
        sentence
        for sentence, after, before in zip(INVENTED, appended, instead, strict=True)
        if max(after, before) > 0.5
    ]
    assert cheap == []


def test_no_report_with_an_invented_finding_is_normal() -> None:
    normal = [text for text in INVENTED if "No Finding" in label_report(f"{SHORT} {text}")]
    assert set(normal) <= DEVICES


@pytest.mark.parametrize(
    "text",
    [
        "no swallowed coin in the stomach",
        "the osseous structures are within normal limits for patient age",
        "pa and lateral views of the chest were obtained",
        "comparison is made to the prior study of xxxx",
        "as compared to the previous radiograph, there is no relevant change",
        "the cardiomediastinal and hilar contours are stable",
        "recommend ct of the chest for further evaluation",
        "findings were discussed with dr xxxx by telephone",
        "heart, mediastinum and pulmonary vascularity appear normal",
        "lungs are well expanded and clear",
        "there is no cervical rib",
    ],
)
def test_ordinary_sentences_name_nothing(text: str) -> None:
    assert unnamed_words(read_sentence(text)) == ()


def test_a_finding_without_a_name_that_the_reference_has_is_not_invented() -> None:
    reference = f"{SHORT} There is a swallowed coin in the stomach."
    same, other = rewards(
        [f"{SHORT} Swallowed coin in the stomach.", f"{SHORT} The sternum is bowed."], reference
    )
    assert same > 1.2
    assert other < 0.5


def test_an_incidental_finding_beside_a_relative_keeps_its_weight() -> None:
    beside, alone = rewards(
        ["Left lung nodule. Calcified granuloma.", "Left lung nodule. Old rib deformity."],
        "Left lung nodule.",
    )
    assert beside > alone
