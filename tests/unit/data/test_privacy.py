"""The shapes of identifiers in text: what is marked, whole, and what reads like one but stays."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from lmrrg.data.privacy import IDENTIFIERS, identifier_counts, scrub
from lmrrg.studies import Study, StudyImage

NAMES = [
    "Dr. Roe",
    "Dr. Jane Roe",
    "Dr Roe",
    "DR. SMITH",
    "DR SMITH",
    "Dr SMITH",
    "dr. Smith",
    "Dr.Smith",
    "Dr. J. Smith",
    "Dr. J.R. Smith",
    "Dr. J R Smith",
    "Dr. John Q. Smith",
    "Dr. McDonald",
    "Dr. Smith-Jones",
    "Dr. van Dyke",
    "Dr. Maria de la Cruz",
    "Dr. García",
    "Dr. Ångström",
    "Prof. Dr. Müller",
    "Mr. O'Brien",
    "Mr. O’Brien",
    "MR. O'BRIEN",
    "MR. LI",
    "MS. J. JONES",
    "MRS JONES",
    "Ms Jones",
]
DATES = [
    "03/04/2021",
    "3.4.21",
    "2011-03-28",
    "2011-3-8",
    "2011/03/28",
    "2011.03.28",
    "2011-03-28T09:06",
    "2011-03-28T090650",
    "28-MAR-2011",
    "28-Mar-11",
    "28 Mar 11",
    "28MAR2011",
    "28 March 2011",
    "28th of March, 2011",
    "March 28, 2011",
    "March 28th, 2011",
    "MAR-28-2011",
    "MARCH 2011",
    "Mar. 2011",
    "March, 2011",
    "March of 2011",
    "Sept 2011",
    "MAY-2011",
    "3/2011",
    "03/2011",
    "03-2011",
]
PHONES = [
    "555-0142",
    "617-555-0142",
    "(617) 555-0142",
    "(617)555-0142",
    "617.555.0142",
    "+1 617 555 0142",
]
NUMBERS = [
    "123456",
    "A1234567",
    "CR12345678",
    "cxr123456",
    "20110328T0906",
    "123-45-6789",
    "123-05-2011",
]
PROSE = [
    "Opacity may represent pneumonia; 2 may be nodes.",
    "Signal at T1/2, wedge of T12, L1-2 and T7/8.",
    "MS changes. History of MS. The lungs are clear. MS. Evaluate for pneumonia.",
    "HISTORY OF MS. NO PNEUMOTHORAX. SEVERE MR. LUNGS ARE CLEAR.",
    "Prior MR Brain and MR. CT chest. DR Chest, DR CHEST, DR. PA and lateral views.",
    "Fluid in 1/3 of the lung, nodule of 5/10 mm, 12 x 9 mm, 3/10.",
    "Marked edema, decreased 2010 ml, separated 1 2000, margins 5-10 mm. 20 ms Tail.",
    "The drain and the Drain. Dr. is away. An adr Smith.",
    "Told Dr. XXXX XXXX and Dr. XXXX.",
    "Intubated 3 days ago, on 2/3 films, grade 1/6.",
    "Seen T12-1000, of 100-2000-50 ml, 1.234-5678 or v123-4567b.",
    "Of 28 and 28 Mar alone, ratio 2011/3, 1234/56/789, T12345, 123-45-678 and 1123-45-6789.",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_after_a_title_go_whole(name):
    assert scrub(f"Told {name}, by phone. Clear.") == "Told ___, by phone. Clear."
    assert scrub(f"{name}'s film") == "___ film"


@pytest.mark.parametrize("date", DATES)
def test_dates_go_whole(date):
    for form in (date, date.lower(), date.upper()):
        assert scrub(f"Film of {form}. Clear.") == "Film of ___. Clear."


@pytest.mark.parametrize("phone", PHONES)
def test_phone_numbers_go_whole(phone):
    assert scrub(f"Call {phone}. Clear.") == "Call ___. Clear."


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_go_whole(number):
    assert scrub(f"MRN: {number}. Clear.") == "MRN: ___. Clear."


def test_own_ids_go_in_any_case():
    assert (
        scrub("Film of MRN-AB12, not of MRN-AB123.", "mrn-ab12") == "Film of ___, not of MRN-AB123."
    )


@pytest.mark.parametrize("text", PROSE)
def test_prose_stays(text):
    assert scrub(text) == text


def test_the_audit_counts_what_the_scrub_removes():
    def count(text: str, shape: str) -> int:
        return identifier_counts(
            [Study("s", "p", (StudyImage(Path("a.png"), "PA"),), findings=text)]
        )[shape]

    assert all(count(f"Told {name}.", "name after a title") for name in NAMES)
    assert all(count(f"Film of {date}.", "date") for date in DATES)
    assert all(
        any(count(f"No {number}.", shape) for shape in IDENTIFIERS) for number in NUMBERS + PHONES
    )
    assert not any(count(scrub(f"Told {name}."), "name after a title") for name in NAMES)


@pytest.mark.parametrize(
    "unit",
    ["Dr. ", "DR ", "Dr", "DR.", "Dr. A. ", "MR. A.", "Dr. van ", "Dr. A-", "Dr. Aa'", "1", "1/",
     "11-", "111-", "may ", "1 mar ", "mar 1", "march 1, ", "1st of ", "12/20", "A. ", "A-", "O'",
     "a@", "a.", "1.1 ", "2011-", "2011/1/", "(555)", "555-", "123-45-", "abc1", "abc12345 ",
     "a@b.", "a-"],
)  # fmt: skip
def test_time_is_linear_in_the_text(unit):
    """Measure each shape on a text that makes its pattern begin everywhere.

    100,000 characters take milliseconds, and would take minutes in quadratic time.
    """
    text = unit * (100_000 // len(unit)) + "!"
    for shape, pattern in IDENTIFIERS.items():
        started = time.process_time()
        pattern.sub("___", text)
        assert time.process_time() - started < 2, shape
