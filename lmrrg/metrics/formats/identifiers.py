"""Read study ids, and explain why the ids of two files do not match."""

from __future__ import annotations

import re
from collections.abc import Collection
from decimal import Decimal

from lmrrg.metrics.errors import is_showable
from lmrrg.metrics.formats.columns import is_placeholder, whole_characters

# pandas writes the whole numbers of a column with gaps as floats.
_FLOAT = re.compile(r"(\d+)\.0+", re.ASCII)
_EXPONENT = re.compile(r"\d(\.\d+)?e\+?\d{1,2}", re.ASCII | re.IGNORECASE)
_DIGITS = re.compile(r"\d+", re.ASCII)


def identifier(value: object) -> str | None:
    """Return a study id as text; None where there is none.

    >>> identifier(50000001), identifier("50000001.0"), identifier(" s7 "), identifier("NaN")
    ('50000001', '50000001', 's7', None)
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    # A Python bool is an int, but `true` in JSON is no id.
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = whole_characters(str(value)).strip()
    if not text or is_placeholder(text):
        return None
    as_float = _FLOAT.fullmatch(text)
    return as_float[1] if as_float else text


def spelling_hint(missing: Collection[str], surplus: Collection[str], other: object) -> str:
    """Return a sentence for ids that two files write differently; otherwise an empty text.

    Args:
        missing: ids that the file lacks.
        surplus: ids that only this file has.
        other: the path of the file that has the missing ids.

    >>> spelling_hint(["50000001"], ["s50000001"], "truth.csv")
    '; truth.csv writes 50000001 where this file writes s50000001'
    """
    by_core = {_core(study): study for study in missing}
    for study in sorted(surplus):
        wanted = by_core.get(_core(study))
        if wanted is not None and is_showable(study) and is_showable(wanted):
            return f"; {other} writes {wanted} where this file writes {study}"
    if any(map(_EXPONENT.fullmatch, surplus)):
        return "; a spreadsheet has rounded the ids of this file: format the column as text"
    if any(map(_EXPONENT.fullmatch, missing)):
        return f"; a spreadsheet has rounded the ids of {other}: format the column as text"
    return ""


def _core(study: str) -> str:
    """Return what the spellings of an id share: its number, without prefix, zeros and exponent."""
    if _EXPONENT.fullmatch(study):
        number = Decimal(study)
        return str(int(number)) if number == number.to_integral_value() else study
    groups = _DIGITS.findall(study)
    # With more than one number, or none, the id is compared as it stands.
    return groups[0].lstrip("0") if len(groups) == 1 else study.casefold()
