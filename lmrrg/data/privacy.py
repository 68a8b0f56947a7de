"""Keep a hospital's identifiers out of a manifest: hash ids, and mark identifiers in text.

This is no de-identification tool. It removes the source's own ids and text that has the shape of an
identifier; a name in running text stays. Published data sets are de-identified at their source and
are not changed.
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
_MIN_SALT_LENGTH = 16
_HASH_DIGITS = 20
_MARK = "___"

# Every pattern below must take time linear in the text: reports come from outside. So no pattern
# has a repetition inside a repetition that can match the same text in two ways.

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
    r"|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_DAY = r"\d{1,2}(?:st|nd|rd|th)?"
_YEAR = r"(?:19|20)\d{2}"
_DATE = (
    # 2011/03/28, also with a time after it: 2011-03-28T09:06:50
    r"\b\d{4}[/.-]\d{1,2}[/.-]\d{1,2}(?!\d)(?:T\d{2}:?\d{2}(?::?\d{2})?)?"
    # 3/28/2011, 28.3.11
    r"|\b(?:\d{1,2}[/.-]\d{1,2}[/.-](?:\d{4}|\d{2})"
    # 28 March 2011, 28th of March, 2011, 28-MAR-11
    rf"|{_DAY}(?: of )?[ ./-]?{_MONTH}\.?(?:,?[ ./-]?\d{{4}}|[ ./-]\d{{2}})"
    # March 28, 2011
    rf"|{_MONTH}\.?[ -]{_DAY}(?:, ?|[ -])\d{{4}}"
    # March 2011, March of 2011
    rf"|{_MONTH}\.?,?(?: of)?[ ./-]{_YEAR}"
    # 3/2011; the month must be one, since a ratio or a size may look alike
    rf"|(?:0?[1-9]|1[0-2])[/-]{_YEAR})\b"
)

# In capitals, DR, MR and MS are also digital radiography, magnetic resonance or mitral
# regurgitation, and multiple sclerosis. So MR and MS need their point and a name in capitals, and
# words that often follow the other meaning ("MR. NO ...") are no names.
_CAPITAL_TITLE = (
    r"(?:DR(?:\. ?| )|M[RS]\. ?(?=[A-Z][A-Z.'’]))"
    r"(?!(?i:no|new|the|there|lungs?|heart|chest|thorax|abdomen|images?|imaging|films?"
    r"|ct|cxr|xr|pa|ap|iv)\b)"
)
_TITLE = rf"(?:(?:[Dd]r|Mr|Ms|Mrs|MRS|[Pp]rof|PROF)(?:\. ?| )|{_CAPITAL_TITLE})"
_CAPITAL = "[A-ZÀ-ÖØ-ÞĀ-Ž]"
_LETTER = r"[^\W\d_]"
_NAME = (
    rf"(?:{_CAPITAL}(?:\. ?| )){{0,3}}"  # initials: J. R.
    # particles: van der, de la
    r"(?:(?:van|von|der|den|ten|ter|de|del|della|di|da|dos|du|la|le|el|al|bin) ){0,3}"
    # The family name, also O'Neil and Smith-Jones. "XX" begins the mark that IU X-ray has in place
    # of a name, which needs no other mark.
    rf"(?!XX){_CAPITAL}(?:{_LETTER}|['’-](?={_LETTER}))+"
)

IDENTIFIERS: dict[str, re.Pattern[str]] = {
    "e-mail address": re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+\.[\w.-]+\w"),
    # Before the dates: the end of 123-12-2011 reads as a month and a year.
    "social security number": re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])"),
    "date": re.compile(_DATE, re.IGNORECASE),
    "phone number": re.compile(
        # With an area code: +1 (555) 123-4567, 555.123.4567
        r"(?<!\w)(?:\+?\d{1,3}[ .-])?\(?\d{3}(?:\)[ .-]?|[ .-])\d{3}[ .-]\d{4}\b"
        # Without: 123-4567, the hyphen required
        r"|(?<![\w.-])\d{3}-\d{4}(?![\w-])"
    ),
    # Record and accession numbers, also with letters before them: ACC1234567
    "number of 6 or more digits": re.compile(r"\b[A-Za-z]{0,3}\d{6,}\w*"),
    # One or two titles (Prof. Dr.), then one or two names
    "name after a title": re.compile(rf"\b{_TITLE}{{1,2}}{_NAME}(?: {_NAME})?"),
}
"""Shapes of identifiers in text (ours, after the list of the HIPAA Safe Harbor rule).

They are applied in this order.
"""


def salt_from_environment() -> bytes:
    """Return the secret that ids are hashed with.

    Raises:
        StudyError: ``salt_missing``: the variable is not set, or has less than 16 characters.
    """
    salt = os.environ.get(SALT_VARIABLE, "")
    if len(salt) < _MIN_SALT_LENGTH:
        raise StudyError(
            "salt_missing",
            "ids of this source are replaced by salted hashes: set "
            f"{SALT_VARIABLE} to {_MIN_SALT_LENGTH} or more secret characters and keep them, "
            "or say that the ids may be published (--ids published)",
        )
    return salt.encode()


def hashed_id(salt: bytes, kind: str, value: str) -> str:
    """Return a stable replacement for an id: 80 bits of HMAC-SHA256 over kind and id.

    Args:
        salt: the secret; without it nobody can tell which id a hash belongs to.
        kind: "patient" or "study", so that a patient and a study with one number differ.
        value: the id.
    """
    digest = hmac.new(salt, f"{kind}/{value}".encode(), hashlib.sha256).hexdigest()
    return digest[:_HASH_DIGITS]


def scrub(text: str, *ids: str) -> str:
    """Replace everything in the shape of an identifier, and the given ids, by ``___``.

    The mark is the one of MIMIC-CXR.

    >>> scrub("Discussed with Dr. Jane Roe on 3/4/2011. MRN-77 called.", "MRN-77")
    'Discussed with ___ on ___. ___ called.'
    """
    for value in map(str.strip, ids):
        if value:
            # A part of a longer word is another id, or none.
            whole_word = rf"(?<!\w){re.escape(value)}(?!\w)"
            text = re.sub(whole_word, _MARK, text, flags=re.IGNORECASE)
    for pattern in IDENTIFIERS.values():
        text = pattern.sub(_MARK, text)
    return text


def identifier_counts(studies: Iterable[Study]) -> dict[str, int]:
    """Count the studies with text in each shape of :data:`IDENTIFIERS`.

    The counts are a warning: a shape alone is no proof of an identifier.
    """
    counts: Counter[str] = Counter(dict.fromkeys(IDENTIFIERS, 0))
    for study in studies:
        text = "\n".join((study.findings, study.impression, study.indication, study.comparison))
        counts.update(name for name, pattern in IDENTIFIERS.items() if pattern.search(text))
    return dict(counts)
