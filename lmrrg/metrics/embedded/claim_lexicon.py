"""Read the findings of the claims, their weights and attributes from ``claims.yaml`` (ours)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from lmrrg.metrics.embedded.lexicon import Phrases, phrase_table, read_yaml


class AttributeWord(NamedTuple):
    """What one word says of a finding; "" or 0 for what it does not."""

    sides: str
    """Letters of the sides: a word may stand for both."""
    zone: str
    severity: int
    change: str
    number: int


@dataclass(frozen=True)
class ClaimLexicon:
    """Findings with their weights and relatives, and the words of their attributes."""

    phrases: Phrases
    """Phrases that name a finding; the meaning "" hides what looks like one."""
    weight: dict[str, float]
    """Finding -> what missing it costs; 1 is a finding that a reader must act on."""
    kin: dict[str, str]
    """Finding -> its family; relatives get part of the credit for each other."""
    clear_lungs: tuple[str, ...]
    """Findings that "clear" denies."""
    meanings: dict[str, AttributeWord]
    """Word of an attribute -> what it says of a finding."""
    attributes: frozenset[str]
    """All words of the attributes."""
    units: dict[str, float]
    """Unit of length -> mm."""
    places: dict[str, str]
    proper: dict[str, frozenset[str]]
    """Device -> the places where it may end."""


@cache
def claim_lexicon() -> ClaimLexicon:
    """Return the lexicon of the claims."""
    data = read_yaml("claims.yaml")
    # "Acute" is listed apart from the findings: it has no family but itself.
    findings = data["findings"] | {"acute": data["acute"] | {"kin": "acute"}}
    meanings = _meanings(data)
    return ClaimLexicon(
        phrases=phrase_table(_phrases(findings, data["nothing"])),
        weight={name: finding["weight"] for name, finding in findings.items()},
        kin={name: finding["kin"] for name, finding in findings.items()},
        clear_lungs=tuple(data["clear_lungs"]),
        meanings=meanings,
        attributes=frozenset(meanings),
        units=data["units"],
        places=data["places"],
        proper={device: frozenset(places) for device, places in data["proper"].items()},
    )


def _phrases(findings: dict[str, Any], nothing: list[str]) -> list[tuple[str, str]]:
    """Return (phrase, finding) of every finding, and (phrase, "") of what only looks like one."""
    phrases: list[tuple[str, str]] = []
    for name, finding in findings.items():
        phrases += [(phrase, name) for phrase in finding["phrases"]]
    return phrases + [(phrase, "") for phrase in nothing]


def _meanings(data: dict[str, Any]) -> dict[str, AttributeWord]:
    """Return word -> what it says, for the words of every attribute; units and places say nothing.

    Those need the words around them.
    """
    names = ("sides", "zones", "severity", "change", "numbers", "units", "places")
    words = dict.fromkeys(word for name in names for word in data[name])
    return {
        word: AttributeWord(
            data["sides"].get(word, ""),
            data["zones"].get(word, ""),
            data["severity"].get(word, 0),
            data["change"].get(word, ""),
            data["numbers"].get(word, 0),
        )
        for word in words
    }
