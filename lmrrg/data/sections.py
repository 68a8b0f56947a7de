"""The sections of a free-text chest radiograph report.

Written for the reports of MIMIC-CXR, whose headings vary: upper and mixed case, on a line of their own or inside one,
misspelt, joined ("FINDINGS AND IMPRESSION:"), repeated (one report of two studies), or absent. Nothing is rewritten:
a section is one stretch of the report, and no stretch is given to two sections. The rules are **ours**:

- Of repeated findings or impressions the last with text counts, of any other section the first.
- "FINDINGS AND IMPRESSION:" is findings.
- A wet read, a provisional reading and an addendum are neither findings nor impression; a heading that one of them
  quotes inside a line, below the report, is none.
- A heading that names the film ("CHEST:") is part of the findings or the impression that it lies in.
- A name in small letters, as a wrapped sentence may begin a line ("study: ..."), is no heading, unless the whole report
  has no capital.
- Without findings, a stretch under a heading that names the film ("AP CHEST:") is taken, else the paragraphs that
  follow the first one of the last section before the impression, else the text before the first heading.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from string import ascii_lowercase, ascii_uppercase
from typing import Literal

Kind = Literal[
    "findings",
    "impression",
    "indication",
    "comparison",
    "technique",
    "history",
    "narrative",
    "film",
    "preliminary",
    "addendum",
    "exam",
    "start",
    "other",
]
Span = tuple[int, int]

_ASIDES = ("addendum", "preliminary")
_CONTEXT = ("indication", "comparison", "technique", "history", "exam")
SECTIONS: tuple[Kind, ...] = (
    "findings",
    "impression",
    "indication",
    "comparison",
    "technique",
    "history",
)

_NAMES: dict[str, Kind] = {
    "finding": "findings",
    "findings": "findings",
    "findings and impression": "findings",
    "findings impression": "findings",
    "impression and findings": "findings",
    "impression findings": "findings",
    "impression": "impression",
    "impressions": "impression",
    "conclusion": "impression",
    "conclusions": "impression",
    "opinion": "impression",
    "interpretation": "impression",
    "indication": "indication",
    "indications": "indication",
    "indication for study": "indication",
    "clinical indication": "indication",
    "clinical information": "indication",
    "reason for exam": "indication",
    "reason for examination": "indication",
    "reason for study": "indication",
    "history": "history",
    "clinical history": "history",
    "patient history": "history",
    "comparison": "comparison",
    "comparisons": "comparison",
    "comparison study": "comparison",
    "comparison studies": "comparison",
    "technique": "technique",
    "techniques": "technique",
    "report": "narrative",
    "narrative": "narrative",
    "wet read": "preliminary",
    "preliminary report": "preliminary",
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
    "dictated by": "other",
}
_STARTS: tuple[tuple[str, Kind], ...] = (
    ("provisional", "preliminary"),
    ("wet read", "preliminary"),
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
_OFTEN_MISSPELT = tuple(name for name in _NAMES if " " not in name and len(name) > 6)
_PARTS: dict[Kind, tuple[Kind, ...]] = {"findings": ("film", "narrative"), "impression": ("film",)}
"""Headings that do not end the section they lie in."""
_FILM = {
    "ap",
    "cxr",
    "chest",
    "film",
    "films",
    "frontal",
    "lateral",
    "pa",
    "portable",
    "view",
    "views",
    "xray",
}
_FILM |= {"radiograph", "radiographs"}
_INLINE = sorted(
    (name.upper() for name, kind in _NAMES.items() if kind in SECTIONS and name != "finding"),
    key=len,
    reverse=True,
)

_LINE_HEADING = re.compile(
    r"^[ \t]*(?:\d{1,2}[.)][ \t]*)?([A-Za-z][\w \t/&,()'-]{0,70}?)[ \t]*:(?!\d\d)", re.MULTILINE
)
_BARE_HEADING = re.compile(r"^[ \t]*([A-Z][A-Z /&()]{2,50}[A-Z)])[ \t\r]*$", re.MULTILINE)
# with "#1" or blanks for a name and a time where other headings have a colon
_WET_READ = re.compile(r"^[ \t]*WET READ(?: VERSION)?[ \t]*[#\d_\r\n]", re.MULTILINE)
_RULE = re.compile(r"^[ \t]*_{5,}[ \t\r]*$", re.MULTILINE)
_INLINE_HEADING = re.compile(
    r"(?<![A-Za-z])("
    + "|".join(name.replace(" ", r"(?:[ \t]*/[ \t]*|[ \t]+)") for name in _INLINE)
    + r"|RECOMMENDATIONS?(?:\(S\))?|NOTIFICATION)[ \t]*:"
)
_AFTER_SENTENCE = re.compile(
    r"(?<=[.!?_)])[ \t]+(Findings|Impression|Conclusion|Comparison|Indication|Technique|History)[ \t]*:"
)
_PARAGRAPH = re.compile(r"\n[ \t\r]*\n")
_WORD_AND_STOP = re.compile(r"\w{2}\.(?!\w)")
_TO_SMALL = str.maketrans(ascii_uppercase, ascii_lowercase)
_WORD = re.compile(r"[^\W\d_]{2,}")
_NOT_LETTERS = re.compile(r"[^a-z]+")


@dataclass(frozen=True)
class Sections:
    """The sections of a report with single spaces; "" where the report has none.

    ``form`` says what was unusual: "addendum", "preliminary reading", "repeated section", "findings without heading",
    "no headings".
    """

    findings: str = ""
    impression: str = ""
    indication: str = ""
    comparison: str = ""
    technique: str = ""
    history: str = ""
    form: frozenset[str] = frozenset()


def parse_sections(text: str) -> Sections:
    """Split a report into its sections. Never raises; text that belongs to no section is left out."""
    blocks = _blocks(text)
    spans = section_spans(text, blocks)
    texts = {name: " ".join(text[start:end].split()) for name, (start, end) in spans.items()}
    return Sections(form=_form(blocks, spans), **texts)


def section_spans(text: str, blocks: list[tuple[Kind, Span]] | None = None) -> dict[Kind, Span]:
    """Where each section that has text lies in the report, as (start, end) offsets that do not overlap."""
    blocks = _blocks(text) if blocks is None else blocks
    filled = [(kind, span) for kind, span in blocks if text[span[0] : span[1]].strip()]
    spans: dict[Kind, Span] = {}
    for kind, span in filled:
        if kind in ("findings", "impression") or (kind in SECTIONS and kind not in spans):
            spans[kind] = span
    if "findings" not in spans:
        _add_unheaded_findings(text, filled, spans)
    return spans


def _blocks(text: str) -> list[tuple[Kind, Span]]:
    """The report cut at its headings: what each stretch is, and its offsets without the heading."""
    headings = _headings(text)
    last_start = max((at for kind, at, _ in headings if kind == "start"), default=-1)
    blocks: list[tuple[Kind, Span]] = []
    kind: Kind = "start"
    begin = 0
    reported = False
    for found, at, after in headings:
        quoted = at < last_start or (reported and at > 0 and text[at - 1] != "\n")
        inside_aside = kind in _ASIDES and found != "start" and quoted
        if at < begin or inside_aside or found in _PARTS.get(kind, ()):
            continue
        reported = reported or found in _PARTS
        blocks.append((kind, (begin, at)))
        kind, begin = found, after
    return [*blocks, (kind, (begin, len(text)))]


def _headings(text: str) -> list[tuple[Kind, int, int]]:
    """Headings in order: kind, offset of the heading, offset of the text after it."""
    found: dict[int, tuple[Kind, int, int]] = {}
    no_capitals = text.islower()
    for match in _LINE_HEADING.finditer(text):
        kind = _kind_of(match[1])
        if kind and (no_capitals or match[1][0].isupper()):
            found[match.end()] = (kind, match.start(), match.end())
    for pattern in (_INLINE_HEADING, _AFTER_SENTENCE):
        for match in pattern.finditer(text):
            known = found.get(match.end())
            # "CHEST TWO VIEWS   INDICATION:" is a line that names a film up to its colon; the nearer heading counts
            if known is None or known[0] == "film":
                found[match.end()] = (_NAMES[_plain(match[1])], match.start(1), match.end())
    for match in _BARE_HEADING.finditer(text):
        kind = _NAMES.get(_plain(match[1]))
        if kind:
            found[match.end()] = (kind, match.start(), match.end())
    for match in _WET_READ.finditer(text):
        found[match.end()] = ("preliminary", match.start(), match.end())
    for match in _RULE.finditer(text):
        found[match.end()] = ("start", match.start(), match.end())
    return sorted(found.values(), key=lambda heading: heading[1:])


@lru_cache(maxsize=20_000)
def _kind_of(name: str) -> Kind | None:
    """What a line that starts "NAME:" begins; ``None`` when it is no heading ("Heart:", "LUNGS:")."""
    plain = _plain(name)
    if plain in _NAMES:
        return _NAMES[plain]
    if not name.isupper():
        return None
    for start, kind in _STARTS:
        if plain.startswith(start):
            return kind
    near = get_close_matches(plain, _OFTEN_MISSPELT, n=1, cutoff=0.88)
    if near:
        return _NAMES[near[0]]
    return "film" if _FILM.intersection(plain.split()) else None


def _plain(name: str) -> str:
    return _NOT_LETTERS.sub(" ", re.sub(r"\([^)]*\)", " ", name.lower())).strip()


def _add_unheaded_findings(
    text: str, filled: list[tuple[Kind, Span]], spans: dict[Kind, Span]
) -> None:
    backwards = filled[::-1]
    capitals = text.isupper()
    if capitals:
        text = text.translate(
            _TO_SMALL
        )  # small letters tell prose from titles; here a full stop must
    context = [block for block in backwards if block[0] in _CONTEXT][:1]
    candidates: list[tuple[Span, Kind, Span]]
    candidates = [(span, kind, span) for kind, span in backwards if kind in ("film", "narrative")]
    candidates += [
        (_body(text, _after_first_paragraph(text, span)), kind, span) for kind, span in context
    ]
    candidates += [(_body(text, span), kind, span) for kind, span in backwards if kind == "start"]
    for found, kind, span in candidates:
        if _says_something(text, found) and (not capitals or _WORD_AND_STOP.search(text, *found)):
            spans["findings"] = found
            if spans.get(kind) == span:
                spans[kind] = (span[0], found[0])
            return


def _after_first_paragraph(text: str, span: Span) -> Span:
    start, end = span
    gap = _PARAGRAPH.search(text, end - len(text[start:end].lstrip()), end)
    return (gap.end(), end) if gap else (end, end)


def _body(text: str, span: Span) -> Span:
    """A stretch without the titles at its top: lines without a small letter, then a short paragraph without a stop."""
    start, end = span
    for line in text[start:end].splitlines(keepends=True):
        if any(letter.islower() for letter in line):
            break
        start += len(line)
    rest = _after_first_paragraph(text, (start, end))
    title = text[start : rest[0]].strip()
    if len(title.split()) <= 10 and not title.endswith((".", ":")) and _says_something(text, rest):
        return rest
    return start, end


def _says_something(text: str, span: Span) -> bool:
    """Whether a stretch reads as prose: three words and a small letter, not a date, a mark or a title."""
    part = text[span[0] : span[1]]
    return len(_WORD.findall(part)) >= 3 and any(letter.islower() for letter in part)


def _form(blocks: list[tuple[Kind, Span]], spans: dict[Kind, Span]) -> frozenset[str]:
    return frozenset(_unusual([kind for kind, _ in blocks], "findings" in spans))


def _unusual(kinds: list[Kind], has_findings: bool) -> Iterator[str]:
    if "addendum" in kinds:
        yield "addendum"
    if "preliminary" in kinds:
        yield "preliminary reading"
    if kinds.count("findings") > 1 or kinds.count("impression") > 1:
        yield "repeated section"
    if has_findings and "findings" not in kinds:
        yield "findings without heading"
    if all(kind == "start" for kind in kinds):
        yield "no headings"
