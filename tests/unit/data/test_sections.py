"""The section parser: the forms of MIMIC-CXR's reports (made up), and properties of any text."""

from __future__ import annotations

import time
from dataclasses import asdict
from itertools import pairwise

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lmrrg.data.sections import SECTIONS, parse_sections, section_spans
from tests.support.paths import ROOT

FORMS = yaml.safe_load(
    (ROOT / "tests" / "support" / "section_forms.yaml").read_text(encoding="utf-8")
)


def sections_of(text: str) -> dict[str, str]:
    """The sections that have text."""
    found = asdict(parse_sections(text))
    return {name: found[name] for name in SECTIONS if found[name]}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form["name"])
def test_forms(form):
    text = form["text"]
    assert sections_of(text) == form["sections"]
    assert sections_of(text.replace("\n", "\r\n")) == form["sections"]
    assert sections_of(text.replace("\n\n", "\n \n")) == form["sections"], (
        "blank lines of MIMIC hold a space"
    )


def test_what_was_unusual_is_named():
    def form(name: str) -> set[str]:
        text = next(form["text"] for form in FORMS if form["name"] == name)
        return set(parse_sections(text).form)

    assert form("the usual form") == set()
    assert form("wet read") == {"preliminary reading"}
    assert form("addendum after") == {"addendum"}
    assert form("two studies") == {"repeated section"}
    assert form("findings after the comparison") == {"findings without heading"}
    assert form("no headings") == {"no headings", "findings without heading"}


HEADINGS = (
    "FINDINGS:",
    "FINDINGS AND IMPRESSION:",
    "Impression:",
    "IMPRESSION",
    "HISTORY:",
    "COMPARISON:",
    "EXAM:",
)
ASIDES = (
    "AP CHEST:",
    "FINAL REPORT",
    "WET READ:",
    "ADDENDUM:",
    "_______________",
    "NOTIFICATION:",
    "LUNGS:",
)
TEXTS = (
    "The lungs are clear.",
    "No effusion is seen",
    "CHEST, PA AND LATERAL",
    "___",
    "1.",
    "10:45",
    "\n",
    "\n \n",
    " ",
)
PIECES = st.lists(st.sampled_from(HEADINGS + ASIDES + TEXTS), max_size=25)
REPORTS = PIECES.map("".join) | PIECES.map(" ".join) | st.text(max_size=80)


@settings(max_examples=150, deadline=None)
@given(text=REPORTS)
def test_any_text_gives_stretches_that_do_not_overlap(text):
    spans = sorted(section_spans(text).values())
    assert all(0 <= start <= end <= len(text) for start, end in spans)
    assert all(before[1] <= after[0] for before, after in pairwise(spans)), "no text twice"
    for name, section in sections_of(text).items():
        assert section in " ".join(text.split()), name


@settings(max_examples=60, deadline=None)
@given(text=REPORTS, ending=st.sampled_from([" ", "\n", "\n\n", "\t\n "]))
def test_white_space_around_a_report_changes_nothing(text, ending):
    assert parse_sections(text + ending) == parse_sections(text)


def test_a_hostile_report_takes_no_time():
    texts = [
        "A " * 50_000,
        "FINDINGS" * 20_000,
        "\n \n" * 50_000,
        "IMPRESSION: x\n" * 10_000,
        "a" * 200_000 + ":",
    ]
    texts += [
        "IMPRESSION: X ADDENDUM: " * 10_000,
        "A BB CC DD\n_____\n" * 10_000,
        "WET READ " * 20_000,
    ]
    for text in texts:
        began = time.perf_counter()
        parse_sections(text)
        assert time.perf_counter() - began < 2
