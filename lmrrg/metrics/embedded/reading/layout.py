"""Turn the forms in which reports are written into one: lower-case sentences (ours).

Lists, one sentence a line, headings, dashes, HTML line breaks, questions and shorthand such as
"s/p" become plain sentences. A wrapped line goes on: the line break inside a sentence ends nothing.
The headings and the shorthand are listed in ``lexicons/layout.yaml``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property

from lmrrg.metrics.embedded.lexicon import ANATOMY, DEVICE, OBSERVATION, graph_lexicon, read_yaml

_MARKS = re.compile(r"[+\n\r\t:?()\[\]/<>\\*_#&]")
"""Characters that plain prose does not have; most reports have none of them."""
_MARKUP = re.compile(r"[<\\\r\t*_#&’]|\(s\)")

_LINE_TAG = re.compile(r"<\s*/?\s*(?:br|p|li|ul|ol|div|h\d|tr|td)\b[^<>]*>|\\[nr]|\r\n?", re.I)
_NOISE = re.compile(
    r"<\s*/?\s*(?:b|i|u|em|strong|span|font)\b[^<>]*>|&nbsp;|[*_#]{2,}|\(s\)|[\t\f\v]", re.I
)
_DASH_MARK = r"(?:[^\S\n]*—[^\S\n]*|[^\S\n]+(?:[–−]|--?)[^\S\n]+)"
# "3 - 4 mm" and "T7 - T8" are ranges.
_DASH = re.compile(rf"(?<=[^\s\d]){_DASH_MARK}(?=\w)|(?<=\d){_DASH_MARK}(?=[^\W\d]{{2}})")
_DASHED_ANSWER = re.compile(
    r"(?<=\S)\s*(?:—|\s(?:[–−]|--?)\s)\s*"
    r"(?=(?:no|none|nil|negative|absent|(?:not|none|nil) \w+)\W*(?:$|[.;\n]))",
    re.I,
)
_DASHED_REQUEST = re.compile(
    r"((?:^|\.)\s*(?:indications?|(?:clinical )?history|clinical details|reason for exam|request))"
    r"\s+(?:[–−—]|--?)\s+",
    re.I,
)
_BULLET = re.compile(r"\s*(?:[-*+>•·▪◦‣●–—]+(?![\d.])|[•·▪◦‣●]|\(?\d{1,2}[.)](?!\S)|\(?[a-z]\))\s*")
_INNER_BULLET = re.compile(r"\s[•▪◦‣●]")
# The digit comes first: a search for one is much faster than for what stands around it.
_INNER_NUMBER = re.compile(r"\d(?<!\S\d)\d?[.)](?!\S)")
_SIGN = re.compile(r"\s*\(\s*(-|\+|neg\w*|pos\w*)\s*\)")
_SIGNS = {"-": " absent", "n": " absent", "+": " present", "p": " present"}
"""A sign in brackets: "effusion (-)"."""
_COMPARED = {">": " greater than ", "<": " less than "}
_BRACKET = re.compile(r"\s*[()\[\]]\s*")

_ENDS = re.compile(r"[.;!?]\W*$")
_ENDS_INSIDE = re.compile(r"[a-z)\]][.;!?](?=\s+\S)", re.I)
_CONTINUES = frozenset(["or", "nor", "of", "and", "than", "which", "that", "to"])
"""Words with which a sentence hardly begins."""
_SHORT_LINE = 0.6
"""A line that, with the next word, is shorter than this part of the longest was not wrapped."""
_LEAST_WIDTH = 35
"""Letters of the longest line from which on lines may have been wrapped at a width."""
_STOPS_OF_PROSE = 0.45
"""Stops inside the lines, per line without one at its end, from which on a text is prose."""

_ASKED = re.compile(r"(?<!\S)\?+\s*(?=[a-z])|(?<=[(,])\?+\s*(?=[a-z])")
_ASKED_AND_DENIED = re.compile(r"(?<!\S)\?+\s*([a-z][^.;:!?\n]*)[.;:]\s*(?=(no [^.;!?\n]*))")
"""A question mark before what is asked, and a denial that follows."""
_QUESTION = re.compile(r"([^.;!?\n]*[\w)])\s*\?+\s*([^.;!?\n]*)")
"""A question with its mark, and the sentence that follows."""
_NEVER = frozenset(["no", "none", "nil", "negative", "absent"])
"""Answers that deny what is asked, whatever it is."""
_LONG_ANSWER = 6
"""Words from which on what follows a question is a sentence of its own."""
_DENIED = re.compile(r"((?:^|[.;!]\s*)(?:there (?:is|are) )?no [a-z ]+):")
"""A denial before a colon: what follows is a new fact."""
_HEADED = re.compile(r"([a-z][a-z /,&-]*?)\s*:\s*(.*)")


@dataclass(frozen=True)
class _Headings:
    """The content of ``layout.yaml``, which explains each part."""

    results: frozenset[str]
    requests: frozenset[str]
    organs: frozenset[str]
    vague: frozenset[str]
    self_evident: frozenset[str]
    unfinished: frozenset[str]
    answers: frozenset[str]
    cut_short: tuple[str, ...]
    """Each with the space before it."""
    inline: re.Pattern[str]
    """A heading and the space before it."""
    request_section: re.Pattern[str]
    """A section of the request, up to the next heading."""
    shorthand: dict[str, str]
    short: re.Pattern[str]
    """Any of the shorthand."""


@cache
def _headings() -> _Headings:
    data = read_yaml("layout.yaml")
    # The longest come first, as a regular expression takes the first that fits.
    found = sorted([*data["results"], *data["requests"], *data["organs"]], key=len, reverse=True)
    any_heading = "(?:" + "|".join(map(re.escape, found)) + r")\s*:"
    requests = "(?:" + "|".join(map(re.escape, data["requests"])) + r")\s*:"
    short = sorted(data["shorthand"], key=len, reverse=True)
    return _Headings(
        results=frozenset(data["results"]),
        requests=frozenset(data["requests"]),
        organs=frozenset(data["organs"]),
        vague=frozenset(data["vague"].split()),
        self_evident=frozenset(data["self_evident"].split()),
        unfinished=frozenset(data["unfinished"].split()),
        answers=frozenset(data["answers"].split()),
        cut_short=tuple(f" {word}" for word in data["cut_short"].split()),
        inline=re.compile(rf"(?:^|,?\s+)({any_heading})"),
        request_section=re.compile(rf"\b{requests}(?:(?!\b{any_heading}).)*(?=\b{any_heading})"),
        shorthand=data["shorthand"],
        short=re.compile(r"\b(?:" + "|".join(map(re.escape, short)) + r")(?![\w/])"),
    )


def plain_prose(text: str) -> str:
    """Return a report in lower case as prose whose sentences end in ".", ";" or "!".

    >>> plain_prose("- No effusion<br>- Heart size\\n  is normal")
    'no effusion. heart size is normal'
    >>> plain_prose("Pneumothorax? No. ?pneumonia s/p lobectomy")
    'pneumothorax: no. possible pneumonia status post lobectomy'
    """
    if _is_plain(text):
        return text.lower()
    if _MARKUP.search(text):
        text = _NOISE.sub(" ", _LINE_TAG.sub("\n", text.replace("’", "'")))
    if "\n" in text:
        text = _join_lines(text)
    if not text.isascii() or "- " in text:
        text = _DASHED_REQUEST.sub(r"\1: ", text)
        text = _DASHED_ANSWER.sub(": ", text)
        text = _INNER_BULLET.sub(". ", _DASH.sub(". ", text))
    text = _INNER_NUMBER.sub(". ", text).lower().replace(" vs.", " vs")
    text = _spelled_out(text)
    if "?" in text:
        text = _ASKED_AND_DENIED.sub(_dropped_if_denied, text)
        text = _QUESTION.sub(_answered, _ASKED.sub("possible ", text))
    if ":" in text:
        headings = _headings()
        text = _DENIED.sub(r"\1.", text)
        text = headings.inline.sub(r". \1", headings.request_section.sub("", text))
    if "(" in text or "[" in text:
        text = _SIGN.sub(lambda match: _SIGNS[match.group(1)[0]], text)
        # What stands in brackets is an aside.
        text = _BRACKET.sub(", ", text)
    return " ".join(text.split())


def _spelled_out(text: str) -> str:
    """Return a text with the words that shorthand and the signs of comparison stand for.

    >>> _spelled_out("effusion c/w chf, right>left")
    'effusion consistent with chf, right greater than left'
    """
    if "/" in text:
        headings = _headings()
        text = headings.short.sub(lambda match: headings.shorthand[match.group()], text)
    text = text.replace("+ve", "positive").replace("->", ", ").replace("→", ", ")
    if ">" in text or "<" in text:
        for sign, meaning in _COMPARED.items():
            text = text.replace(sign, meaning)
    return text


def _dropped_if_denied(match: re.Match[str]) -> str:
    """Return nothing for "?fracture" where "no fracture" follows, else the same."""
    asked, denial = match.groups()
    return "" if _facts(asked) & _facts(denial) else match.group()


def _facts(text: str) -> set[str]:
    """Return the findings and devices among the words of a lower-case text."""
    kind = graph_lexicon().kind
    glued = graph_lexicon().glued
    words = [part for word in re.findall("[a-z]+", text) for part in glued.get(word, (word,))]
    return {word for word in words if kind.get(word) in (OBSERVATION, DEVICE)}


def _answered(question: re.Match[str]) -> str:
    """Return what is asked with its answer, or as doubt.

    "Effusion? Small." says "effusion: small"; "Effusion? The heart is normal." doubts it.
    "Effusion? No effusion is seen." says the answer alone.
    """
    asked, answer = question.groups()
    words = answer.split()
    first = words[0].rstrip(",") if words else ""
    is_short = 0 < len(words) < _LONG_ANSWER
    is_answer = is_short and (first in _headings().answers or first in graph_lexicon().affirming)
    named = _facts(answer)
    if answer.strip() in _NEVER and _facts(asked) and not _facts(asked.split()[-1]):
        return f" no {asked.strip()}. "  # "pneumothorax after biopsy? none"
    if is_answer and not named:
        return f"{asked}: {answer}"
    if named & _facts(asked):
        # The start of the question stays apart from what stands before it.
        return f" {answer}"
    return f"{asked} is questioned. {answer}"


def _is_plain(text: str) -> bool:
    """Return whether a text is prose already."""
    if not text.isascii() or _MARKS.search(text):
        return False
    # Spelled out: a loop takes longer than the look-ups.
    if "- " in text or "  " in text or " vs." in text:
        return False
    return not _INNER_NUMBER.search(text)


def without_heading(sentence: str) -> str:
    """Return a lower-case sentence without its heading; "" where it only says what was asked for.

    The name of an organ stays where the rest does not say what it is about.

    >>> without_heading("findings: no effusion"), without_heading("indication: effusion")
    ('no effusion', '')
    >>> without_heading("lungs: the lungs are clear"), without_heading("lungs: clear")
    ('the lungs are clear', 'lungs: clear')
    """
    match = _HEADED.fullmatch(sentence)
    if match is None:
        return sentence
    headings = _headings()
    heading, rest = match.groups()
    if heading in headings.requests:
        return ""
    if heading in headings.results:
        return without_heading(rest)
    if heading in headings.organs and _stands_alone(rest):
        return rest
    return sentence


def _stands_alone(text: str) -> bool:
    """Return whether words after a heading say themselves what they are about."""
    headings = _headings()
    kind = graph_lexicon().kind
    return any(
        word in headings.self_evident
        or (kind.get(word) in (ANATOMY, DEVICE) and word not in headings.vague)
        for word in re.findall("[a-z]+", text)
    )


def join_cut_short(parts: list[str]) -> list[str]:
    """Return the sentences with those joined that only an abbreviation has cut.

    >>> join_cut_short(["interval resol", " of effusion", " no edema"])
    ['interval resol of effusion', ' no edema']
    """
    endings = _headings().cut_short
    joined: list[str] = []
    is_cut = False
    for part in parts:
        if is_cut:
            joined[-1] += part
        else:
            joined.append(part)
        is_cut = f" {part}".endswith(endings)
    return joined


def _join_lines(text: str) -> str:
    """Return a text without line breaks, with a stop where one of them ended a sentence."""
    lines = _Lines([line.strip() for line in text.split("\n")])
    plain = [
        _BULLET.sub("", line, count=1) if _BULLET.match(line) else line for line in lines.lines
    ]
    joined = [plain[0]]
    for i in range(1, len(plain)):
        joined += [" " if lines.goes_on(i) else ". ", plain[i]]
    return "".join(joined)


class _Lines:
    """The lines of a text, and whether each goes on with the sentence of the line before."""

    def __init__(self, lines: list[str]):
        self.lines = lines
        self.written = [line for line in lines if line]

    def goes_on(self, i: int) -> bool:
        """Return whether the break before line ``i`` stands inside a sentence."""
        before, line = self.lines[i - 1], self.lines[i]
        if not before or not line or _ENDS.search(before) or _starts_item(line):
            return False
        if before.endswith(":"):
            return True
        last = before.lower().split()[-1]
        first = line.split()[0]
        if last in _headings().unfinished or last.endswith(",") or first.lower() in _CONTINUES:
            return True
        length = len(before) + 1 + len(first)
        if length < _SHORT_LINE * self.longest:
            return False
        if self.has_bullets:
            return True
        if first[0].isupper() and not first.isupper():
            return False
        if self.has_stops:
            return True
        # Without stops, a small letter goes on with the line before if that one was full.
        is_full = length > self.longest >= _LEAST_WIDTH
        is_sign = first[0].islower() and self.has_capitals
        return is_sign and (is_full or self.has_headings)

    @cached_property
    def longest(self) -> int:
        """Letters of the longest line."""
        return max(map(len, self.written))

    @cached_property
    def has_bullets(self) -> bool:
        """Whether the text is a list with bullets, so that a line without one goes on."""
        return any(_BULLET.match(line) for line in self.written)

    @cached_property
    def has_headings(self) -> bool:
        """Whether several lines begin with a heading."""
        return sum(map(_starts_item, self.written)) > 1

    @cached_property
    def has_capitals(self) -> bool:
        """Whether some line begins with a capital, so that a small letter is a sign."""
        return any(line[0].isupper() and not line.split()[0].isupper() for line in self.written)

    @cached_property
    def has_stops(self) -> bool:
        """Whether the writer ended sentences with stops, so that a line without one goes on."""
        open_lines = sum(not _ENDS.search(line) for line in self.written)
        inside = sum(len(_ENDS_INSIDE.findall(line)) for line in self.written)
        return bool(_ENDS.search(self.written[-1])) or inside >= _STOPS_OF_PROSE * open_lines


def _starts_item(line: str) -> bool:
    """Return whether a line begins with a bullet, a number or a heading."""
    if _BULLET.match(line):
        return True
    match = _HEADED.match(line.lower())
    return match is not None and len(match.group(1)) <= 40
