"""The credit of each sentence in a few sampled reports, as PPO learnt from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lmrrg.evaluation.rows import signed
from lmrrg.policy.credited_reports import CreditedReport, CreditedReports

_STEPS = 3
"""Shades of each colour."""

_FORMS = {
    "leave_one_out": "what the report loses without the sentence, minus the mean over the "
    "sentences of the study's other samples",
    "prefix": "the reward still to come after the sentences before it, minus the mean over the "
    "study's other samples at the same sentence",
}


def credit_section(credited: CreditedReports | None) -> dict[str, Any] | None:
    """Return what the template shows of the credited reports; None where there are none.

    A sentence has its ``credit`` as text, and a ``shade`` from "down3" over "even" to "up3": thirds
    of the largest absolute credit on the page.
    """
    if credited is None or not credited.studies:
        return None
    reports = [report for study in credited.studies for report in study.reports]
    largest = max(map(_largest, reports))
    studies = []
    for study in credited.studies:
        cards = [_report(report, largest) for report in study.reports]
        studies.append(
            {
                "id": study.id,
                "abnormal": study.abnormal,
                "reference": study.reference,
                "reports": cards,
            }
        )
    return {
        "iteration": credited.iteration,
        "weight": f"{credited.weight:g}",
        "form": credited.form,
        "meaning": _FORMS[credited.form],
        "largest": f"{largest:.2f}",
        "studies": studies,
    }


def shade(credit: float, largest: float) -> str:
    """Return the shade of a credit where ``largest`` is the largest absolute one.

    >>> [shade(credit, 0.9) for credit in (-0.9, -0.2, 0.004, 0.4)]
    ['down3', 'down1', 'even', 'up2']
    """
    # What is printed as 0.00 has no colour.
    if abs(credit) < 0.005:
        return "even"
    step = min(_STEPS, 1 + int(_STEPS * abs(credit) / largest))
    return f"up{step}" if credit > 0 else f"down{step}"


def _report(report: CreditedReport, largest: float) -> dict[str, Any]:
    return {
        "sentences": [
            _shown(sentence.text, sentence.credit, largest) for sentence in report.sentences
        ],
        "end": _shown("cut" if not report.finished else "end", report.end, largest),
        "reward": "not scored" if report.reward is None else signed(report.reward, 2),
    }


def _shown(text: str, credit: float, largest: float) -> dict[str, str]:
    return {
        "text": text,
        "credit": signed(credit, 2, plus=True),
        "shade": shade(credit, largest),
    }


def _largest(report: CreditedReport) -> float:
    credits: Sequence[float] = [report.end, *(one.credit for one in report.sentences)]
    return max(map(abs, credits))
