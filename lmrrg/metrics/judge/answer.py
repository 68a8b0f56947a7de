"""What the judge is asked, the answer that it must give, and the score of an answer (ours).

The kinds of errors are those of GREEN (Ostmeier et al., 2024) and of CRIMSON, which adds how much
an error matters; the words are ours. GREEN's score is matched / (matched + errors). Here each error
counts as much as it matters, with CRIMSON's weights.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

QUESTION_VERSION = "1"
"""Raise it when the question or the schema changes: kept answers are then asked for anew."""

Category = Literal[
    "false_finding",
    "missing_finding",
    "location",
    "severity",
    "measurement",
    "certainty",
    "false_comparison",
    "missing_comparison",
]
Significance = Literal["urgent", "actionable", "minor", "harmless"]

_WEIGHTS: dict[Significance, float] = {
    "urgent": 1.0,
    "actionable": 0.5,
    "minor": 0.25,
    "harmless": 0.0,
}
_MOST = 60
"""Findings or errors that an answer may have; real reports have a third of it."""

_TASK = """\
You compare a generated chest X-ray report with the radiologist's report of the same study.
Go through both, finding by finding. Judge what is said, not how it is worded; the order of the
sentences does not matter.

1. "matched": how many statements of the radiologist's report, normal ones included, the generated
   report makes as well and rightly.
2. "errors": every error of the generated report, with its category and its significance.

Categories:
- false_finding: it states a finding that the radiologist does not state, or denies
- missing_finding: it leaves out, or denies, a finding that the radiologist states
- location: right finding, wrong side, lobe or place of a device
- severity: right finding, wrong size, amount or severity
- measurement: a number that differs so much that it matters
- certainty: a finding called certain that is only possible, or the other way round
- false_comparison: it speaks of a change or an earlier study that the radiologist does not mention
- missing_comparison: it leaves out a change since the earlier study that the radiologist describes

Significance, by what the error would do to the patient:
- urgent: treatment within hours would be wrong or missing
- actionable: follow-up or treatment that can wait would change
- minor: worth a correction, but nothing would be done otherwise
- harmless: of no consequence, or expected at the patient's age

Report each difference once. Reports that agree have no error. Answer with one JSON object, without
any other text: {"matched": 3, "errors": [{"category": "severity", "significance": "minor"}]}
"""


class JudgedError(BaseModel):
    """One error that the judge found."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    category: Category
    significance: Significance


class Answer(BaseModel):
    """The judge's answer on one report."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    matched: int = Field(ge=0, le=_MOST, strict=True)
    errors: list[JudgedError] = Field(max_length=_MOST)

    @property
    def score(self) -> float:
        """Matched statements among them and the weighted errors, 0 to 1.

        >>> error = {"category": "location", "significance": "actionable"}
        >>> Answer(matched=2, errors=[error, error]).score
        0.6667
        >>> Answer(matched=0, errors=[]).score  # nothing to agree on, nothing wrong
        1.0
        """
        wrong = sum([_WEIGHTS[error.significance] for error in self.errors])
        return self.matched / (self.matched + wrong) if self.matched or wrong else 1.0


def question(report: str, reference: str) -> list[dict[str, str]]:
    """Return the messages that ask for the judgement of one report."""
    texts = f"Radiologist's report:\n{reference}\n\nGenerated report:\n{report}"
    return [{"role": "system", "content": _TASK}, {"role": "user", "content": texts}]


def answer_schema() -> dict[str, Any]:
    """Return the JSON schema of an answer, for an endpoint that can enforce it."""
    return Answer.model_json_schema()


def parse_answer(text: str) -> Answer | None:
    """Return the answer that a text holds; None where it is no valid one.

    Words and code fences around the JSON object are passed over, wrong values are not.

    >>> parse_answer('Here it is: {"matched": 2, "errors": []}').matched
    2
    >>> parse_answer('{"matched": "many", "errors": []}') is None
    True
    """
    start = text.find("{")
    end = text.rfind("}") + 1
    try:
        return Answer.model_validate_json(text[start:end])
    except ValidationError:
        return None
