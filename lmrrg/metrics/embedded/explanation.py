"""Explain a score: which claims of a report agree with the reference, are missing or invented."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from lmrrg.metrics.embedded.claims import Claim, merge_claims, sentence_claims
from lmrrg.metrics.embedded.sentences import ABSENT, UNCERTAIN, sentences_of

Verdict = Literal["matched", "different", "missed", "invented", "neutral"]

_SIDES = {"l": "left", "r": "right"}
_ZONES = {"u": "upper", "m": "middle", "b": "base", "d": "diffuse"}
_SEVERITIES = ("", "trace", "mild", "moderate", "severe")
_CHANGES = {"w": "worse or new", "i": "improved", "s": "stable"}
_WORST_FIRST: tuple[Verdict, ...] = ("invented", "missed", "different", "matched", "neutral")


@dataclass(frozen=True)
class ClaimVerdict:
    """One finding that the reference or the report asserts."""

    finding: str
    verdict: Verdict
    reference: str
    """The claim of the reference in words; "" where it does not assert the finding."""
    report: str
    """The claim of the report in words; "" where it does not assert the finding."""


@dataclass(frozen=True)
class MarkedSentence:
    """One sentence, in lower case, and the worst verdict on its claims."""

    text: str
    verdict: Verdict


@dataclass(frozen=True)
class Explanation:
    """The verdicts on one report."""

    claims: tuple[ClaimVerdict, ...]
    reference: tuple[MarkedSentence, ...]
    report: tuple[MarkedSentence, ...]

    def findings(self, verdict: Verdict) -> list[ClaimVerdict]:
        """Return the claims with this verdict."""
        return [claim for claim in self.claims if claim.verdict == verdict]


def explain(report: str, reference: str) -> Explanation:
    """Compare the asserted findings of a report with those of its reference (ours).

    A finding that both assert is "matched", or "different" where side, zone, severity, course or
    certainty are not the same. What only the reference asserts is "missed", what only the report
    asserts is "invented". Denied findings are no claims here.

    >>> truth = "There is a small left effusion. Mild edema. No pneumothorax."
    >>> found = explain("Large left effusion. There is a pneumothorax.", truth)
    >>> [(claim.finding, claim.verdict) for claim in found.claims]
    [('edema', 'missed'), ('effusion', 'different'), ('pneumothorax', 'invented')]
    >>> found.claims[1].reference, found.claims[1].report
    ('mild left effusion', 'severe left effusion')
    >>> [sentence.verdict for sentence in found.reference]
    ['different', 'missed', 'neutral']
    """
    wanted = _asserted(reference)
    written = _asserted(report)
    claims = tuple(
        _judge(finding, wanted.get(finding, ()), written.get(finding, ()))
        for finding in sorted(wanted.keys() | written.keys())
    )
    verdicts = {claim.finding: claim.verdict for claim in claims}
    return Explanation(
        claims=claims,
        reference=tuple(_mark(reference, verdicts)),
        report=tuple(_mark(report, verdicts)),
    )


def _asserted(text: str) -> dict[str, tuple[Claim, ...]]:
    """Return finding -> claims for what the text asserts or suspects."""
    merged = merge_claims(
        [claim for sentence in sentences_of(text) for claim in sentence_claims(sentence)]
    )
    return {name: found for name, found in merged.items() if found[0].assertion != ABSENT}


def _judge(finding: str, wanted: tuple[Claim, ...], written: tuple[Claim, ...]) -> ClaimVerdict:
    in_reference = " and ".join(sorted(map(describe_claim, wanted)))
    in_report = " and ".join(sorted(map(describe_claim, written)))
    verdict: Verdict
    if not in_report:
        verdict = "missed"
    elif not in_reference:
        verdict = "invented"
    else:
        verdict = "matched" if in_reference == in_report else "different"
    return ClaimVerdict(finding, verdict, in_reference, in_report)


def describe_claim(claim: Claim) -> str:
    """Return a claim in words.

    >>> describe_claim(sentence_claims("possible small right basilar effusion")[0])
    'possible mild right base effusion'
    """
    words = ["possible"] if claim.assertion == UNCERTAIN else []
    words.append(_SEVERITIES[claim.severity])
    words += [_CHANGES[letter] for letter in sorted(claim.change)]
    words += [_SIDES[letter] for letter in sorted(claim.sides)]
    words += [_ZONES[letter] for letter in sorted(claim.zones)]
    words.append(claim.finding.replace("_", " "))
    return " ".join(word for word in words if word)


def _mark(text: str, verdicts: dict[str, Verdict]) -> Iterator[MarkedSentence]:
    for sentence in sentences_of(text):
        asserted = [claim for claim in sentence_claims(sentence) if claim.assertion != ABSENT]
        found = {verdicts[claim.finding] for claim in asserted if claim.finding in verdicts}
        worst = next(verdict for verdict in _WORST_FIRST if verdict in found | {"neutral"})
        yield MarkedSentence(sentence, worst)
