"""Reports as exports write them: escaped line breaks, tags, Markdown, bare headings."""

from __future__ import annotations

import pytest

from lmrrg.data.report_text import plain_report
from lmrrg.data.sections import parse_sections

BREAKS = (
    "\n",
    r"\.br\\"[:-1],
    r"\X0D\\"[:-1] + r"\X0A\\"[:-1],
    "~",
    r"\n",
    r"\r\n",
    "<br>",
    "<BR />",
    "</p><p>",
    "_x000D_\n",
    "_x000d_",
)
FINDINGS = "Both lungs are clear. No effusion."


def parts(text: str) -> tuple[str, str, str]:
    """Indication or history, findings and impression of a report."""
    sections = parse_sections(text)
    return sections.indication or sections.history, sections.findings, sections.impression


@pytest.mark.parametrize("line_end", BREAKS)
def test_escaped_line_breaks(line_end):
    lines = [
        "HISTORY: Fever.",
        "FINDINGS: Both lungs are clear.",
        "No effusion.",
        "",
        "IMPRESSION: No change.",
    ]
    assert parts(line_end.join(lines)) == ("Fever.", FINDINGS, "No change.")


@pytest.mark.parametrize(
    "text",
    [
        f"<b>History</b><br>Fever.<br><i>Findings</i><br>"
        f"{FINDINGS}<br><u>Impression</u><br>Normal.",
        f"## History\nFever.\n\n## Findings\n{FINDINGS}\n\n## Impression\nNormal.",
        f"**History:** Fever.\n**Findings**: {FINDINGS}\n__Impression:__ Normal.",
        f"History\nFever.\nFindings\n{FINDINGS}\nImpression\nNormal.",
        f"History: Fever Technique: AP view Findings: {FINDINGS} Impression: Normal.",
        f"HISTORY: Fever.\nFIDNINGS: {FINDINGS}\nIMPRSESION: Normal.",
        f"HISTORY: Fever.\nFINDINGS: {FINDINGS}\nIMPRESSION: Normal.\nDictated by: A reader",
        f"HISTORY: Fever.\nFINDINGS: {FINDINGS}\nIMPRESSION: Normal. Electronically signed by ___",
        f"HISTORY: Fever.\nREFERENCE EXAM: ___\nFINDINGS: {FINDINGS}\n"
        "IMPRESSION: Normal.\nDATE: ___",
        f"HISTORY: Fever.\nFINDINGS: {FINDINGS}\nIMPRESSION: Normal.\n\nADDENDUM  A rib is broken.",
        f"WETREAD: ___ 8:00 AM\nEdema. IMPRESSION: Edema.\n"
        f"\nHISTORY: Fever.\nFINDINGS: {FINDINGS}\n"
        "IMPRESSION: Normal.",
    ],
)
def test_headings_of_every_form(text):
    assert parts(text)[1:] == (FINDINGS, "Normal.")
    assert parts(text)[0].startswith("Fever")


def test_small_letters_in_one_line():
    text = "history : fever . findings : lungs are clear . impression : normal ."
    assert parts(text) == ("fever .", "lungs are clear .", "normal .")


@pytest.mark.parametrize(
    "text",
    [
        "A nodule of ~5 mm, ~ 6 mm before.",
        "<unk> is < 3 cm and > 1 cm.",
        "___ and R&D;",
        "I have reviewed",
    ],
)
def test_what_is_no_mark_stays(text):
    assert plain_report(text) == text


def test_escaped_brackets_are_text():
    assert plain_report("Nodule &lt;3 mm &amp; scar") == "Nodule <3 mm & scar"
