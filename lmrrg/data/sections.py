"""The sections of a free-text chest radiograph report.

Written for the reports of MIMIC-CXR, whose headings vary: upper and mixed case, on a line of their
own or inside one, misspelt, joined ("FINDINGS AND IMPRESSION:"), repeated (one report of two
studies), or absent. No word is rewritten: a section is one stretch of the report, and no stretch is
given to two sections. The rules are **ours**:

- Of repeated findings or impressions the last with text counts, of any other section the first.
- "FINDINGS AND IMPRESSION:" is findings.
- A section that is only a placeholder ("N/A", "nan", "-") has no text.
- A wet read, a provisional reading and an addendum are neither findings nor impression. A heading
  that one of them quotes inside a line, below the report, is no heading.
- A heading that names the film ("CHEST:") is part of the findings or impression that it lies in.
- A name in small letters, as a wrapped sentence may begin a line ("study: ..."), is no heading,
  unless the whole report has no capital.
- Without findings, the first of these that reads as prose is taken: a stretch under a heading that
  names the film ("AP CHEST:"); the paragraphs that follow the first one of the last section before
  the impression; the text before the first heading.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from string import ascii_lowercase, ascii_uppercase
from typing import NamedTuple, cast

from lmrrg.data.headings import SECTIONS, Heading, Kind, SectionName, find_headings
from lmrrg.data.placeholders import is_empty_text, is_placeholder
from lmrrg.data.report_text import plain_report

Span = tuple[int, int]
"""Offsets of a stretch of text, [start, end)."""


class Block(NamedTuple):
    """A stretch of a report between two headings, without them."""

    kind: Kind
    start: int
    end: int

    @property
    def span(self) -> Span:
        """The block's offsets."""
        return self.start, self.end


_REPORT: tuple[SectionName, ...] = ("findings", "impression")
# Readings that are no part of the final report, and may quote its headings.
_ASIDES = ("addendum", "preliminary")
# Sections in which reports without a heading for the findings hide them, below a first paragraph.
_CONTEXT = ("indication", "comparison", "technique", "history", "exam")
_PART_OF: dict[Kind, tuple[Kind, ...]] = {
    "findings": ("film", "narrative"),
    "impression": ("film",),
}
"""Headings that do not end the section they lie in."""

_MAX_TITLE_WORDS = 10
_MIN_PROSE_WORDS = 3

# An empty line, also one of blanks.
_PARAGRAPH_END = re.compile(r"\n[ \t\r]*\n")
# The end of a sentence: two letters or digits before a full stop that no letter follows, so neither
# an initial nor the point of an abbreviation like "a.p.".
_SENTENCE_END = re.compile(r"\w{2}\.(?!\w)")
# Two or more letters; [^\W\d_] is a letter of any alphabet.
_WORD = re.compile(r"[^\W\d_]{2,}")
_TO_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)


@dataclass(frozen=True)
class Sections:
    """The sections of a report with single spaces; "" where the report has none.

    ``form`` names what was unusual: "addendum", "preliminary reading", "repeated section",
    "findings without heading", "no headings".
    """

    findings: str = ""
    impression: str = ""
    indication: str = ""
    comparison: str = ""
    technique: str = ""
    history: str = ""
    form: frozenset[str] = frozenset()


def parse_sections(text: str) -> Sections:
    """Split a report into its sections; text that belongs to no section is left out.

    Escaped line breaks, tags and Markdown are repaired first (:func:`plain_report`). It never
    raises.

    >>> parse_sections("HISTORY: Cough.  FINDINGS: The lungs   are clear.").findings
    'The lungs are clear.'
    """
    text = plain_report(text)
    blocks = _blocks(text)
    spans = _spans(text, blocks)
    texts = {name: " ".join(text[start:end].split()) for name, (start, end) in spans.items()}
    form = frozenset(_unusual([block.kind for block in blocks], "findings" in spans))
    return Sections(form=form, **texts)


def section_spans(text: str) -> dict[SectionName, Span]:
    """Return where each section that has text lies in the report.

    The values are (start, end) offsets; no two overlap.
    """
    return _spans(text, _blocks(text))


def _spans(text: str, blocks: list[Block]) -> dict[SectionName, Span]:
    filled = [block for block in blocks if _has_text(text, block)]
    spans: dict[SectionName, Span] = {}
    for block in filled:
        # Of findings and impressions the last counts, of other sections the first.
        if block.kind in SECTIONS and (block.kind in _REPORT or block.kind not in spans):
            spans[block.kind] = block.span
    if "findings" not in spans:
        _add_findings_without_heading(text, filled, spans)
    return spans


def _has_text(text: str, block: Block) -> bool:
    """Return whether a block is neither blank nor a placeholder ("FINDINGS: N/A")."""
    content = text[block.start : block.end]
    # "None." says something in "COMPARISON: None.", and nothing that could be learned in findings.
    return not (is_empty_text(content) if block.kind in _REPORT else is_placeholder(content))


def _blocks(text: str) -> list[Block]:
    """Return the report cut at its headings, in order."""
    headings = find_headings(text)
    last_start = max((heading.start for heading in headings if heading.kind == "start"), default=-1)
    last_report_line = max(
        (heading.start for heading in headings if _begins_report_line(text, heading)), default=-1
    )
    blocks: list[Block] = []
    # What comes before the first heading is a block as well.
    kind: Kind = "start"
    begin = 0
    is_reported = False
    for heading in headings:
        # Within an aside, a heading belongs to it if the report proper only begins further below,
        # or if it stands inside a line, as a quotation does, and the report is over, or has
        # findings or an impression on a line of their own further below.
        is_beside_report = is_reported or heading.start < last_report_line
        is_quoted = heading.start < last_start or (
            is_beside_report and _is_inside_line(text, heading)
        )
        if kind in _ASIDES and heading.kind != "start" and is_quoted:
            continue
        # A heading may overlap the one before ("CHEST TWO VIEWS   INDICATION:").
        if heading.start < begin or heading.kind in _PART_OF.get(kind, ()):
            continue
        is_reported = is_reported or heading.kind in _REPORT
        blocks.append(Block(kind, begin, heading.start))
        kind = heading.kind
        begin = heading.end
    return [*blocks, Block(kind, begin, len(text))]


def _is_inside_line(text: str, heading: Heading) -> bool:
    return heading.start > 0 and text[heading.start - 1] != "\n"


def _begins_report_line(text: str, heading: Heading) -> bool:
    return heading.kind in _REPORT and not _is_inside_line(text, heading)


def _add_findings_without_heading(
    text: str, filled: list[Block], spans: dict[SectionName, Span]
) -> None:
    """Add the findings of a report that has no heading for them to ``spans``, if it has any."""
    is_in_capitals = text.isupper()
    if is_in_capitals:
        # Small letters distinguish prose from titles below. Not str.lower(), which may change the
        # length of a text, and so the offsets.
        text = text.translate(_TO_LOWER)
    for block, (start, end) in _possible_findings(text, filled):
        if not _is_prose(text, (start, end)):
            continue
        # All letters are small now, so a sentence is known by its full stop instead.
        if is_in_capitals and not _SENTENCE_END.search(text, start, end):
            continue
        spans["findings"] = (start, end)
        name = cast(SectionName, block.kind)
        if spans.get(name) == block.span:
            # The findings were part of another section, which keeps what stands before them.
            spans[name] = (block.start, start)
        return


def _possible_findings(text: str, filled: list[Block]) -> Iterator[tuple[Block, Span]]:
    """Yield where findings without a heading may be, the likeliest first, with the block around.

    Of several blocks of a kind the last is the likeliest, as with repeated findings.
    """
    backwards = filled[::-1]
    for block in backwards:
        if block.kind in ("film", "narrative"):
            yield block, block.span
    last_context = next((block for block in backwards if block.kind in _CONTEXT), None)
    if last_context is not None:
        yield last_context, _body(text, _after_first_paragraph(text, last_context.span))
    for block in backwards:
        if block.kind == "start":
            yield block, _body(text, block.span)


def _after_first_paragraph(text: str, span: Span) -> Span:
    """Return a stretch without its first paragraph; it is empty if there is only one."""
    start, end = span
    first_letter = end - len(text[start:end].lstrip())
    gap = _PARAGRAPH_END.search(text, first_letter, end)
    return (gap.end(), end) if gap else (end, end)


def _body(text: str, span: Span) -> Span:
    """Return a stretch without the titles at its top.

    Titles are lines without a small letter, then a short paragraph that does not end as a sentence
    does.
    """
    start, end = span
    for line in text[start:end].splitlines(keepends=True):
        if any(letter.islower() for letter in line):
            break
        start += len(line)
    rest = _after_first_paragraph(text, (start, end))
    title = text[start : rest[0]].strip()
    is_title = len(title.split()) <= _MAX_TITLE_WORDS and not title.endswith((".", ":"))
    return rest if is_title and _is_prose(text, rest) else (start, end)


def _is_prose(text: str, span: Span) -> bool:
    """Return whether a stretch has three words and a small letter: no date, mark or title."""
    part = text[span[0] : span[1]]
    has_small_letter = any(letter.islower() for letter in part)
    return has_small_letter and len(_WORD.findall(part)) >= _MIN_PROSE_WORDS


def _unusual(kinds: list[Kind], has_findings: bool) -> Iterator[str]:
    """Yield the values of :attr:`Sections.form` for a report with blocks of these kinds."""
    if "addendum" in kinds:
        yield "addendum"
    if "preliminary" in kinds:
        yield "preliminary reading"
    if any(kinds.count(kind) > 1 for kind in _REPORT):
        yield "repeated section"
    if has_findings and "findings" not in kinds:
        yield "findings without heading"
    if all(kind == "start" for kind in kinds):
        yield "no headings"
