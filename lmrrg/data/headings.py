"""The headings of free-text chest radiograph reports: their names, and where they stand in a text.

Written for the reports of MIMIC-CXR. All names and patterns are **ours**.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from functools import lru_cache
from typing import Literal, NamedTuple

SectionName = Literal["findings", "impression", "indication", "comparison", "technique", "history"]
Kind = (
    SectionName | Literal["narrative", "film", "preliminary", "addendum", "exam", "start", "other"]
)
"""What a heading begins.

Beside the sections: ``narrative`` is a report without further headings, ``film`` names the film
("AP CHEST:"), ``preliminary`` is a wet read or a provisional reading, ``exam`` names what was done,
``start`` is a mark after which the report begins anew, ``other`` is of no use here.
"""


class Heading(NamedTuple):
    """A heading in a text: it stands at [start, end), and what it begins starts at ``end``."""

    kind: Kind
    start: int
    end: int


SECTIONS: tuple[SectionName, ...] = (
    "findings",
    "impression",
    "indication",
    "comparison",
    "technique",
    "history",
)

_KIND_OF_NAME: dict[str, Kind] = {
    "finding": "findings",
    "findings": "findings",
    "findings and impression": "findings",
    "findings impression": "findings",
    "impression and findings": "findings",
    "impression findings": "findings",
    "impression": "impression",
    "final impression": "impression",
    "impression and recommendation": "impression",
    "impression and recommendations": "impression",
    "impressions": "impression",
    "conclusion": "impression",
    "conclusions": "impression",
    "opinion": "impression",
    "interpretation": "impression",
    "indication": "indication",
    "indications": "indication",
    "indication for study": "indication",
    "indication for exam": "indication",
    "indication for examination": "indication",
    "clinical indication": "indication",
    "clinical information": "indication",
    "reason for exam": "indication",
    "reason for examination": "indication",
    "reason for study": "indication",
    "reason for the exam": "indication",
    "history": "history",
    "clinical history": "history",
    "patient history": "history",
    "comparison": "comparison",
    "comparisons": "comparison",
    "comparison study": "comparison",
    "comparison studies": "comparison",
    "reference exam": "comparison",
    "reference exams": "comparison",
    "reference examination": "comparison",
    "technique": "technique",
    "techniques": "technique",
    "report": "narrative",
    "narrative": "narrative",
    "wet read": "preliminary",
    "wetread": "preliminary",
    "preliminary report": "preliminary",
    # "provisional findings impression", abbreviated
    "pfi": "preliminary",
    "pfi report": "preliminary",
    "provisional findings impression": "preliminary",
    "addendum": "addendum",
    "final addendum": "addendum",
    "final report": "start",
    "exam": "exam",
    "examination": "exam",
    "study": "exam",
    "procedure": "exam",
    "procedure comments": "other",
    "type of examination": "exam",
    "notification": "other",
    "recommendation": "other",
    "recommendations": "other",
    "end of impression": "other",
    "summary": "other",
    "accession number": "other",
    "comment": "other",
    "comments": "other",
    "date": "other",
    "attestation": "other",
    "dictated by": "other",
    "signed by": "other",
}
"""Names in small letters, without marks, as :func:`_plain` makes them."""

# For headings in capitals that go on after a known name ("FINDINGS ON THE RIGHT:"); the first
# match counts.
_KIND_OF_PREFIX: tuple[tuple[str, Kind], ...] = (
    ("provisional", "preliminary"),
    ("wet read", "preliminary"),
    ("wetread", "preliminary"),
    ("addendum", "addendum"),
    ("findings", "findings"),
    ("impression", "impression"),
    ("indication", "indication"),
    ("clinical indication", "indication"),
    ("reason for", "indication"),
    ("history", "history"),
    ("clinical history", "history"),
    ("comparison", "comparison"),
    ("technique", "technique"),
    ("recommendation", "other"),
    ("examination", "exam"),
)

# Short names are left out: they are one letter away from other words ("exam" from "exams").
_OFTEN_MISSPELT = tuple(name for name in _KIND_OF_NAME if " " not in name and len(name) > 6)
_SPELLING_CUTOFF = 0.88
"""How similar a misspelt name must be, as difflib measures it.

A letter that lacks in "FINDINGS" leaves 0.93, a wrong one 0.875; longer names may have a wrong one.
"""

_FILM_WORDS = {
    "ap",
    "cxr",
    "chest",
    "film",
    "films",
    "frontal",
    "lateral",
    "pa",
    "portable",
    "radiograph",
    "radiographs",
    "view",
    "views",
    "xray",
}

# "   1. Findings:" at the start of a line. A number of one or two digits may come first. The name
# may hold the marks of joined or explained headings ("INDICATION/HISTORY (M/F):"); it is at most 71
# characters long, so that a line of prose with a colon far behind is no heading. A colon before two
# digits belongs to a time ("Read at 10:30").
_LINE_HEADING = re.compile(
    r"^[ \t]*(?:\d{1,2}[.)][ \t]*)?([A-Za-z][\w \t/&,()'-]{0,70}?)[ \t]*:(?!\d\d)", re.MULTILINE
)

# "FINAL REPORT" or "PFI", in capitals alone on their line, without a colon. At least four
# characters.
_BARE_HEADING = re.compile(r"^[ \t]*([A-Z][A-Z /&()]{2,50}[A-Z)])[ \t\r]*$", re.MULTILINE)

# "WET READ VERSION #1" or "WET READ: ___ 10:30 PM": a number, or blanks for a name and a time,
# stand where other headings have their colon.
_WET_READ = re.compile(r"^[ \t]*WET ?READ(?: VERSION)?[ \t]*[#\d_\r\n]", re.MULTILINE)

# "Findings" alone on its line, without a colon; only names of sections and addenda count.
_BARE_MIXED_HEADING = re.compile(r"^[ \t]*([A-Z][A-Za-z /&]{3,50})[ \t\r]*$", re.MULTILINE)

# "ADDENDUM  The nodule is ...", in capitals at the start of a line, without a colon after it.
_BARE_ADDENDUM = re.compile(r"^[ \t]*(?:FINAL )?ADDENDUM\b(?![A-Z \t/&()#\d]{0,60}:)", re.MULTILINE)

# What a radiologist or a system signs a report with, at the start of a line or after a sentence.
_SIGN_OFF = re.compile(
    r"(?:^[ \t]*|(?<=[.!?])[ \t]+)(?:"
    r"(?:(?:this|the) )?(?:report|study|exam(?:ination)?) (?:(?:was|is|has been) )?"
    r"(?:electronically )?(?:signed|dictated|transcribed|approved|finalized|verified)\b"
    r"|electronic(?:ally)? (?:signed|signature|approved|verified)\b"
    r"|(?:dictated|transcribed|signed|approved|verified|interpreted) by\b"
    r"|attestation\b"
    r"|I(?:,[^\n,]{1,60},)? (?:have |attest |certify )(?:that I )?(?:have )?(?:personally )?"
    r"(?:reviewed|interpreted|examined)\b"
    r"|I personally (?:reviewed|interpreted)\b"
    r")[ \t]*:?",
    re.MULTILINE | re.IGNORECASE,
)

# A line of five or more underscores, which separates an addendum or a wet read from the report.
_RULE = re.compile(r"^[ \t]*_{5,}[ \t\r]*$", re.MULTILINE)


def _names_inside_lines() -> str:
    """Return a pattern of the section names in capitals, as they stand inside of lines.

    Longer names come first, so that "FINDINGS AND IMPRESSION" is not read as "FINDINGS". Words may
    be joined by a slash ("FINDINGS / IMPRESSION").
    """
    # "FINDING:" inside a line is more often one point of a list than the section.
    names = [name for name, kind in _KIND_OF_NAME.items() if kind in SECTIONS and name != "finding"]
    names.sort(key=len, reverse=True)
    return "|".join(name.upper().replace(" ", r"(?:[ \t]*/[ \t]*|[ \t]+)") for name in names)


# "... clear. IMPRESSION: Normal." The name must not be the end of a longer word.
_INLINE_HEADING = re.compile(
    rf"(?<![A-Za-z])({_names_inside_lines()}|RECOMMENDATIONS?(?:\(S\))?|NOTIFICATION)[ \t]*:"
)

# "... PA and lateral. Findings: Clear." In mixed case a name is a heading inside a line only after
# the end of a sentence, of a blank ("___") or of brackets.
_AFTER_SENTENCE = re.compile(
    r"(?<=[.!?_)])[ \t]+"
    r"(Findings|Impression|Conclusion|Comparison|Indication|Technique|History)[ \t]*:"
)
# "PA view Comparison: none Findings: ...": a report in one line may have no full stop before a
# heading, so a capital and the colon are enough there.
_IN_ONE_LINE = re.compile(
    r"(?<=[ \t])((?:Clinical |Patient )?"
    r"(?:Findings|Impression|Conclusion|Comparison|Indication|Technique|History)|"
    r"(?:Clinical )(?:indication|history|information))[ \t]*:"
)
# In small letters the end of a sentence is needed again: "these findings: ..." is prose.
_IN_SMALL_LETTERS = re.compile(
    r"(?<=[.!?_)])[ \t]+"
    r"((?:clinical )?(?:findings|impression|conclusion|comparison|indication|technique|history))"
    r"[ \t]*:"
)
_BRACKETS = re.compile(r"\([^)]*\)")
_NOT_LETTERS = re.compile(r"[^a-z]+")


def find_headings(text: str) -> list[Heading]:
    """Return the headings of a report, in order.

    >>> [heading.kind for heading in find_headings("HISTORY: Cough.  FINDINGS: Clear.")]
    ['history', 'findings']
    """
    # By the offset of the text that follows: of two readings of one heading the later one counts.
    found: dict[int, Heading] = {}
    for heading in _line_headings(text):
        found[heading.end] = heading
    for heading in _inline_headings(text):
        known = found.get(heading.end)
        # "CHEST TWO VIEWS   INDICATION:" names a film up to its colon, but the nearer name counts.
        if known is None or known.kind == "film":
            found[heading.end] = heading
    for heading in _headings_without_colon(text):
        found[heading.end] = heading
    return sorted(found.values(), key=lambda heading: (heading.start, heading.end))


def _line_headings(text: str) -> Iterator[Heading]:
    # A wrapped sentence may begin a line in small letters ("study: ..."), so a heading needs a
    # capital, unless the whole report has none.
    has_no_capitals = text.islower()
    for match in _LINE_HEADING.finditer(text):
        kind = _kind_of(match[1])
        if kind and (has_no_capitals or match[1][0].isupper()):
            yield Heading(kind, match.start(), match.end())


def _inline_headings(text: str) -> Iterator[Heading]:
    patterns = [_INLINE_HEADING, _AFTER_SENTENCE]
    if text.islower():
        patterns.append(_IN_SMALL_LETTERS)
    elif "\n" not in text.strip():
        patterns.append(_IN_ONE_LINE)
    for pattern in patterns:
        for match in pattern.finditer(text):
            yield Heading(_KIND_OF_NAME[_plain(match[1])], match.start(1), match.end())


def _headings_without_colon(text: str) -> Iterator[Heading]:
    for match in _BARE_HEADING.finditer(text):
        kind = _KIND_OF_NAME.get(_plain(match[1]))
        if kind:
            yield Heading(kind, match.start(), match.end())
    for match in _BARE_MIXED_HEADING.finditer(text):
        kind = _KIND_OF_NAME.get(_plain(match[1]))
        if kind in SECTIONS or kind in ("addendum", "preliminary"):
            yield Heading(kind, match.start(), match.end())
    for match in _BARE_ADDENDUM.finditer(text):
        yield Heading("addendum", match.start(), match.end())
    for match in _SIGN_OFF.finditer(text):
        yield Heading("other", match.start(), match.end())
    for match in _WET_READ.finditer(text):
        yield Heading("preliminary", match.start(), match.end())
    for match in _RULE.finditer(text):
        yield Heading("start", match.start(), match.end())


# A data set repeats its headings, and the comparison with misspelt names is slow.
@lru_cache(maxsize=20_000)
def _kind_of(name: str) -> Kind | None:
    """Return what a line that starts "NAME:" begins.

    ``None`` stands for names that are no heading, as of organs ("Heart:", "LUNGS:").
    """
    plain = _plain(name)
    if plain in _KIND_OF_NAME:
        return _KIND_OF_NAME[plain]
    # In small letters only an exact name is a heading: all else may be a sentence with a colon.
    if not name.isupper():
        return None
    for prefix, kind in _KIND_OF_PREFIX:
        if plain.startswith(prefix):
            return kind
    # Two letters that changed places ("FINIDNGS") leave less likeness than a letter that lacks.
    letters = sorted(plain)
    for known in _OFTEN_MISSPELT:
        if letters == sorted(known):
            return _KIND_OF_NAME[known]
    near = get_close_matches(plain, _OFTEN_MISSPELT, n=1, cutoff=_SPELLING_CUTOFF)
    if near:
        return _KIND_OF_NAME[near[0]]
    return "film" if _FILM_WORDS.intersection(plain.split()) else None


def _plain(name: str) -> str:
    """Return a name in small letters, without what stands in brackets and without marks."""
    return _NOT_LETTERS.sub(" ", _BRACKETS.sub(" ", name.lower())).strip()
