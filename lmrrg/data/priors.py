"""The previous study of the same patient, and its report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from lmrrg.studies import Section, Study


def link_priors(studies: Sequence[Study], study_dates: Mapping[str, str]) -> list[Study]:
    """Set ``prior`` to the latest earlier study of the same patient among ``studies`` (**ours**).

    Two studies of the same moment are not linked to each other, and a study without a date is no
    other study's prior.

    Args:
        studies: the studies of an import.
        study_dates: when each study was made, by its id, as text that sorts in time
            ("20110328 090650"). The dates are used for the order only and enter no study.
    """
    dated_studies: dict[str, list[Study]] = defaultdict(list)
    for study in studies:
        if study.id in study_dates:
            dated_studies[study.patient].append(study)
    prior_of: dict[str, str] = {}
    for of_patient in dated_studies.values():
        of_patient.sort(key=lambda study: study_dates[study.id])
        prior_of |= _priors_of_patient(of_patient, study_dates)
    return [replace(study, prior=prior_of.get(study.id, study.prior)) for study in studies]


def _priors_of_patient(studies: Sequence[Study], study_dates: Mapping[str, str]) -> dict[str, str]:
    """Return the id of each study's prior, by the study's id; ``studies`` are in order of time."""
    prior_of: dict[str, str] = {}
    prior: str | None = None
    for before, study in pairwise(studies):
        # Of studies of one moment, each keeps the prior of the first.
        if study_dates[before.id] < study_dates[study.id]:
            prior = before.id
        if prior is not None:
            prior_of[study.id] = prior
    return prior_of


def without_lost_priors(studies: Sequence[Study]) -> list[Study]:
    """Return the studies without those links whose prior is not among them."""
    ids = {study.id for study in studies}
    return [replace(study, prior=study.prior if study.prior in ids else None) for study in studies]


def prior_reports(studies: Sequence[Study], section: Section) -> dict[str, str]:
    """Return the prior's report of each study that has a prior, by the study's id.

    Args:
        studies: a whole manifest, so that every prior is among them.
        section: the section of the prior's report; empty where the prior has none.
    """
    report_of = {study.id: study.report(section) for study in studies}
    return {study.id: report_of[study.prior] for study in studies if study.prior is not None}
