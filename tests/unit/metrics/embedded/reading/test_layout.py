"""The form of a report does not matter: every form has the sentences of its prose."""

from __future__ import annotations

import json
import random
import re
import textwrap

import numpy as np
import pytest

from lmrrg.metrics.embedded.backend import EmbeddedBackend
from lmrrg.metrics.embedded.labeler import label_report
from lmrrg.metrics.embedded.sentences import sentences_of
from lmrrg.metrics.radcliq import radcliq_v1
from tests.support.paths import REAL_DATA

REPORTS = REAL_DATA / "iu_xray" / "reports.jsonl"
PROSE = (
    "The heart is mildly enlarged. There is a 5.5 cm mass in the left upper lobe, unchanged from "
    "before. No focal consolidation, pleural effusion or pneumothorax is seen on either side. "
    "Right PICC ends in the SVC. Old left rib fractures."
)


def _sentences(prose: str) -> list[str]:
    return [part.strip() for part in re.split(r"(?<=[.!?;])\s+", prose) if part.strip()]


def _without_stops(prose: str) -> list[str]:
    return [sentence.rstrip(" .;") for sentence in _sentences(prose)]


def _numbered(sentences: list[str], mark: str) -> str:
    return "\n".join(f"{i}{mark} {sentence}" for i, sentence in enumerate(sentences, 1))


FORMS = {
    "lines": lambda prose: "\n".join(_sentences(prose)),
    "lines without stops": lambda prose: "\n".join(_without_stops(prose)),
    "small lines without stops": lambda prose: "\n".join(_without_stops(prose)).lower(),
    "large lines without stops": lambda prose: "\n".join(_without_stops(prose)).upper(),
    "Windows lines": lambda prose: "\r\n".join(_without_stops(prose)),
    "paragraphs": lambda prose: "\n\n".join(_without_stops(prose)),
    "dashed list": lambda prose: "- " + "\n- ".join(_without_stops(prose)),
    "starred list": lambda prose: "* " + "\n* ".join(_sentences(prose)),
    "dotted list": lambda prose: "• " + "\n• ".join(_without_stops(prose)),
    "dots in a line": lambda prose: " • ".join(_without_stops(prose)),
    "numbered list": lambda prose: _numbered(_without_stops(prose), "."),
    "bracketed numbers": lambda prose: _numbered(_sentences(prose), ")"),
    "br": lambda prose: "<br>".join(_without_stops(prose)),
    "br of XHTML": lambda prose: "<br />".join(_sentences(prose)),
    "dashes": lambda prose: " - ".join(_without_stops(prose)),
    "long dashes": lambda prose: " — ".join(_without_stops(prose)),
    "semicolons": lambda prose: "; ".join(_without_stops(prose)),
    "small": str.lower,
    "large": str.upper,
    "wrapped": lambda prose: textwrap.fill(prose, 60),
    "small and wrapped": lambda prose: textwrap.fill(prose.lower(), 72),
    "heading": lambda prose: f"FINDINGS:\n{prose}",
    "wrapped list": lambda prose: "\n".join(
        textwrap.fill(f"- {sentence}", 50, subsequent_indent="  ")
        for sentence in _without_stops(prose)
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_the_sentences_of_the_prose(form: str) -> None:
    assert sentences_of(FORMS[form](PROSE)) == sentences_of(PROSE)


def test_headings_name_what_the_rest_does_not() -> None:
    text = "LUNGS: Clear. PLEURA: No pleural effusion. INDICATION: Pneumonia."
    assert sentences_of(text) == ["lungs: clear", "no pleural effusion"]
    assert sentences_of("Heart: normal Lungs: clear") == ["heart: normal", "lungs: clear"]


def test_lines_below_headings_are_sentences_of_their_own() -> None:
    text = (
        "Chest: Hyperlucent apices\nNo focal airspace disease or consolidation\n"
        "Healed remote left rib fracture\nShoulder: No fracture or dislocation"
    )
    assert sentences_of(text)[1:3] == [
        "no focal airspace disease or consolidation",
        "healed remote left rib fracture",
    ]


def test_a_section_of_the_request_ends_at_the_next_heading() -> None:
    text = "History: Cough. Pneumonia last year.\nFindings: No effusion."
    assert sentences_of(text) == ["no effusion"]


@pytest.mark.skipif(not REPORTS.is_file(), reason="needs real reports ($LMRRG_TEST_DATA)")
@pytest.mark.parametrize("form", FORMS)
def test_forms_of_real_reports_score_like_their_prose(form: str) -> None:
    studies = [json.loads(line) for line in REPORTS.open(encoding="utf-8")]
    reports = [study["findings"] for study in studies if study["findings"]]
    reports = random.Random(1).sample(reports, 300)
    rewritten = list(map(FORMS[form], reports))
    backend = EmbeddedBackend()
    same, copies = (backend.score(texts, reports) for texts in (rewritten, reports))
    scores = [radcliq_v1(p.radgraph, p.bertscore, p.semb) for p in (same, copies)]
    differ = np.abs(scores[0] - scores[1]) > 1e-6
    # A few are ambiguous: a sentence that begins with a small letter, a stop that is missing.
    assert differ.mean() <= 0.01
    changed = [label_report(a) != label_report(b) for a, b in zip(rewritten, reports, strict=True)]
    assert np.mean(changed) <= 0.005
