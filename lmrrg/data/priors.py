"""Which study of the same patient came before, and what its report says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lmrrg.studies import Section, Study


def link_priors(studies: Sequence[Study], taken: Mapping[str, str]) -> list[Study]:
    """Set ``prior`` to the latest earlier study of the same patient that is among ``studies`` (**ours**).

    Two studies of one moment are not linked to each other, and a study without a date is nobody's prior.

    Args:
        taken: when a study was made, by its id, as text that sorts in time ("20110328 090650"). The dates serve this
            order only; they enter no study.
    """
    of_patient: dict[str, list[Study]] = defaultdict(list)
    for study in studies:
        if study.id in taken:
            of_patient[study.patient].append(study)
    prior_of: dict[str, str] = {}
    for dated in of_patient.values():
        dated.sort(key=lambda study: taken[study.id])
        earlier: str | None = None
        for before, study in zip([None, *dated], dated, strict=False):
            if before is not None and taken[before.id] < taken[study.id]:
                earlier = before.id
            if earlier is not None:
                prior_of[study.id] = earlier
    return [
        replace(study, prior=prior_of[study.id]) if study.id in prior_of else study
        for study in studies
    ]


def without_lost_priors(studies: Sequence[Study]) -> list[Study]:
    """Studies whose prior is no longer among them lose the link."""
    here = {study.id for study in studies}
    return [
        replace(s, prior=None) if s.prior is not None and s.prior not in here else s
        for s in studies
    ]


def prior_reports(studies: Sequence[Study], section: Section) -> dict[str, str]:
    """By the id of each study that has a prior: the section of the prior's report, empty where it has none.

    Args:
        studies: a whole manifest, so that every prior is among them.
    """
    report_of = {study.id: study.report(section) for study in studies}
    return {study.id: report_of[study.prior] for study in studies if study.prior is not None}
