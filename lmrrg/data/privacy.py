"""What keeps a hospital's own identifiers out of a manifest: salted hashes for ids, marks for identifiers in text.

This is no de-identification tool. It removes the source's own ids and text that has the shape of an identifier; a
name in running text stays. Published data sets are de-identified at their source and are not changed.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections import Counter
from collections.abc import Iterable

from lmrrg.studies import Study, StudyError

SALT_VARIABLE = "LMRRG_ID_SALT"
_SHORTEST_SALT = 16
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)"
)
_DAY = r"\d{1,2}(?:st|nd|rd|th)?"
_YEAR = r"(?:19|20)\d{2}"
# In capitals these are also digital radiography, magnetic resonance or regurgitation, and multiple sclerosis: MR and MS
# need their point and a name in capitals, and words that often follow the other meaning are no names.
_CAPITAL_TITLE = (
    r"(?:DR(?:\. ?| )|M[RS]\. ?(?=[A-Z][A-Z.'’]))"
    r"(?!(?i:no|new|the|there|lungs?|heart|chest|thorax|abdomen|images?|imaging|films?|ct|cxr|xr|pa|ap|iv)\b)"
)
_TITLE = rf"(?:(?:[Dd]r|Mr|Ms|Mrs|MRS|[Pp]rof|PROF)(?:\. ?| )|{_CAPITAL_TITLE})"
_CAPITAL = "[A-ZÀ-ÖØ-ÞĀ-Ž]"
_LETTER = r"[^\W\d_]"
_NAME = (
    rf"(?:{_CAPITAL}(?:\. ?| )){{0,3}}"  # initials
    r"(?:(?:van|von|der|den|ten|ter|de|del|della|di|da|dos|du|la|le|el|al|bin) ){0,3}"
    rf"(?!XX){_CAPITAL}(?:{_LETTER}|['’-](?={_LETTER}))+"  # XX..: the mark of IU X-ray, where a name was
)
IDENTIFIERS: dict[str, re.Pattern[str]] = {
    "e-mail address": re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+\.[\w.-]+\w"),
    "social security number": re.compile(
        r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])"
    ),  # its end is a month and year
    "date": re.compile(
        r"\b\d{4}[/.-]\d{1,2}[/.-]\d{1,2}(?!\d)(?:T\d{2}:?\d{2}(?::?\d{2})?)?"
        rf"|\b(?:\d{{1,2}}[/.-]\d{{1,2}}[/.-](?:\d{{4}}|\d{{2}})"
        rf"|{_DAY}(?: of )?[ ./-]?{_MONTH}\.?(?:,?[ ./-]?\d{{4}}|[ ./-]\d{{2}})"
        rf"|{_MONTH}\.?[ -]{_DAY}(?:, ?|[ -])\d{{4}}"
        rf"|{_MONTH}\.?,?(?: of)?[ ./-]{_YEAR}|(?:0?[1-9]|1[0-2])[/-]{_YEAR})\b",
        re.IGNORECASE,
    ),
    "phone number": re.compile(
        r"(?<!\w)(?:\+?\d{1,3}[ .-])?\(?\d{3}(?:\)[ .-]?|[ .-])\d{3}[ .-]\d{4}\b|(?<![\w.-])\d{3}-\d{4}(?![\w-])"
    ),
    "number of 6 or more digits": re.compile(r"\b[A-Za-z]{0,3}\d{6,}\w*"),
    "name after a title": re.compile(rf"\b{_TITLE}{{1,2}}{_NAME}(?: {_NAME})?"),
}
"""Shapes of identifiers in text (ours, after the list of the HIPAA Safe Harbor rule)."""


def salt_from_environment() -> bytes:
    """The secret that ids are hashed with.

    Raises:
        StudyError: ``salt_missing``: the variable is not set, or shorter than 16 characters.
    """
    salt = os.environ.get(SALT_VARIABLE, "")
    if len(salt) < _SHORTEST_SALT:
        raise StudyError(
            "salt_missing",
            f"ids of this source are replaced by salted hashes: set {SALT_VARIABLE} to {_SHORTEST_SALT} or more "
            "secret characters and keep them, or say that the ids may be published (--ids published)",
        )
    return salt.encode()


def hashed_id(salt: bytes, kind: str, value: str) -> str:
    """A stable stand-in for an id: 80 bits of HMAC-SHA256 over kind ("patient", "study") and id."""
    return hmac.new(salt, f"{kind}/{value}".encode(), hashlib.sha256).hexdigest()[:20]


def scrub(text: str, *ids: str) -> str:
    """Text with ``___``, MIMIC's mark, in place of everything in :data:`IDENTIFIERS` and of the given ids."""
    for value in ids:
        if value.strip():
            text = re.sub(
                rf"(?<!\w){re.escape(value.strip())}(?!\w)", "___", text, flags=re.IGNORECASE
            )
    for pattern in IDENTIFIERS.values():
        text = pattern.sub("___", text)
    return text


def identifier_counts(studies: Iterable[Study]) -> dict[str, int]:
    """How many studies have text of each shape of :data:`IDENTIFIERS`: a warning, since a shape proves nothing."""
    counts: Counter[str] = Counter(dict.fromkeys(IDENTIFIERS, 0))
    for study in studies:
        text = "\n".join((study.findings, study.impression, study.indication, study.comparison))
        counts.update(name for name, pattern in IDENTIFIERS.items() if pattern.search(text))
    return dict(counts)
