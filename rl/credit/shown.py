"""The choice of the sampled reports whose credit the run report shows."""

from __future__ import annotations

from collections.abc import Sequence

from lmrrg.config.ppo import PPOConfig
from lmrrg.policy.credited_reports import (
    CreditedReport,
    CreditedReports,
    CreditedSentence,
    CreditedStudy,
)
from lmrrg.ppo.credit import Credits
from rl.credit.sentences import Sentences
from rl.experience import ScoredBatch

SHOWN_STUDIES = 3
SHOWN_REPORTS = 3
"""Of each study."""


def credited_reports(
    batch: ScoredBatch,
    cutter: Sentences,
    credits: Sequence[Credits],
    ppo: PPOConfig,
    iteration: int,
    ids: Sequence[str],
) -> CreditedReports:
    """Return the first reports of the first studies of a batch with the credit of each sentence.

    They are chosen without regard to their rewards: abnormal studies come first.

    Args:
        batch: the sampled reports, their rewards and sentences.
        cutter: cuts reports into sentences.
        credits: centred credits of each report.
        ppo: form and weight of the credit.
        iteration: from 1.
        ids: id of each study of the batch.
    """
    shown = CreditedReports(
        iteration=iteration,
        form="prefix" if ppo.credit == "prefix" else "leave_one_out",
        weight=ppo.credit_weight,
        studies=[],
    )
    for study in _first_studies(batch.sample.studies.abnormal):
        first = study * ppo.samples_per_study
        rows = range(first, first + min(SHOWN_REPORTS, ppo.samples_per_study))
        shown.studies.append(
            CreditedStudy(
                id=ids[study],
                abnormal=batch.sample.studies.abnormal[study],
                reference=batch.sample.studies.references[study],
                reports=[_report(batch, cutter, row, credits[row]) for row in rows],
            )
        )
    return shown


def _first_studies(abnormal: Sequence[bool]) -> list[int]:
    # A stable sort: within each kind the order of the batch, which the run's seed decides.
    return sorted(range(len(abnormal)), key=lambda study: not abnormal[study])[:SHOWN_STUDIES]


def _report(batch: ScoredBatch, cutter: Sentences, row: int, credits: Credits) -> CreditedReport:
    report = batch.sample.reports[row]
    *of_sentences, end = credits.tolist()
    texts = cutter.texts(report.token_ids, batch.sentences[row].numbers)
    return CreditedReport(
        sentences=[
            CreditedSentence(text=text, credit=credit)
            for text, credit in zip(texts, of_sentences, strict=True)
        ],
        end=end,
        reward=float(batch.rewards.reward[row]) if batch.rewards.valid[row] else None,
        finished=report.finished,
    )
