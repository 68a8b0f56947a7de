"""Marks that exports leave in report texts: escaped line breaks, tags and Markdown."""

from __future__ import annotations

import re
from html import unescape

# The tags that become line breaks, and those that are removed. Other words in angle brackets stay:
# they may be text ("<unk>", "size <rib and >node").
_BLOCK_TAGS = "br|p|div|li|ul|ol|tr|table|h[1-6]|hr|pre"
_OTHER_TAGS = (
    "html|body|head|title|meta|b|i|u|s|a|em|strong|span|font|small|big|sup|sub|center|td|th|tbody|"
    "thead|code|mark|section|article"
)

# Each with a mark without which it finds nothing: looking for that is much faster than the pattern,
# and most reports have none. In this order: HL7's escapes end with a backslash, so they come before
# a literal "\n".
_REPAIRS: tuple[tuple[str, re.Pattern[str], str], ...] = (
    # A carriage return and a line feed, as spreadsheets write them into XML.
    ("_", re.compile(r"_x000[dDaA]_\n?"), "\n"),
    ("\\", re.compile(r"\\\.(?:br|sp|ce)[+\d]*\\|\\X(?:0[AD])+\\", re.IGNORECASE), "\n"),
    # Highlighted text begins with \H\ and ends with \N\.
    ("\\", re.compile(r"\\[HN]\\"), ""),
    # HL7's mark of a repeated field. "~5 mm" and "~ 5 mm" mean about, "~1. Clear" is a new line.
    ("~", re.compile(r"(?<=[.:;!?~])~|~(?=\s*(?:[A-Z~]|\d+[.)]\s|$))"), "\n"),
    ("\\", re.compile(r"(?:\\r)?\\n|\\r"), "\n"),
    ("<", re.compile(rf"</?(?:{_BLOCK_TAGS})(?:\s[^<>]{{0,300}})?/?>", re.IGNORECASE), "\n"),
    ("<", re.compile(rf"</?(?:{_OTHER_TAGS})(?:\s[^<>]{{0,300}})?/?>", re.IGNORECASE), ""),
    # Markdown: "## Findings", "**Findings:**", "__Findings__". "___" is a blank of MIMIC-CXR.
    ("#", re.compile(r"^[ \t]*#{1,6}[ \t]+(?=[A-Za-z*_])", re.MULTILINE), ""),
    ("*", re.compile(r"\*\*"), ""),
    ("__", re.compile(r"(?<![\w])__([A-Za-z][^_\n]{0,60})__(?![\w])"), r"\1"),
    ("*", re.compile(r"^([ \t]*)\*([A-Za-z][\w /]{2,60}:?)\*(?!\w)", re.MULTILINE), r"\1\2"),
)
# Only complete ones: "R&D;" and the like stay.
_ENTITY = re.compile(r"&(?:#\d{1,5}|#[xX][0-9a-fA-F]{1,4}|nbsp|amp|lt|gt|quot|apos);")


def plain_report(text: str) -> str:
    r"""Return a report with real line breaks in place of escaped ones, without tags and Markdown.

    A text without such marks stays as it is.

    >>> plain_report(r"**Findings:** Clear.\.br\<b>Impression:</b> About ~5 mm.")
    'Findings: Clear.\nImpression: About ~5 mm.'
    """
    for mark, pattern, replacement in _REPAIRS:
        if mark in text:
            text = pattern.sub(replacement, text)
    # Last, so that an escaped bracket ("&lt;3 mm") begins no tag.
    return _ENTITY.sub(lambda match: unescape(match[0]), text)
