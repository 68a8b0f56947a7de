"""Fetch films from an archive over DICOMweb (PS3.18), and store reports there."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pydicom
import requests
from dicomweb_client import DICOMwebClient
from pydicom.dataset import Dataset

from lmrrg.config.watch import WatchConfig
from lmrrg.pacs.archive import ArchiveError
from lmrrg.pacs.durable import write_durably
from lmrrg.pacs.films import film_name, study_key
from lmrrg.pacs.journal import FINAL, Journal
from lmrrg.pacs.listener import FILM_CLASSES

_MODALITIES = ("CR", "DX")
_STUDY = "0020000D"
_SERIES = "0020000E"
_INSTANCE = "00080018"
_CLASS = "00080016"
_FAILURES = (requests.RequestException, OSError, ValueError, KeyError)
"""What an archive that is down, or answers nonsense, makes the client raise."""


def dicomweb_client(watch: WatchConfig) -> DICOMwebClient:
    """Return a client of the archive."""
    headers = {}
    if watch.dicomweb_token_file is not None:
        token = watch.dicomweb_token_file.read_text(encoding="utf-8").strip()
        headers["Authorization"] = f"Bearer {token}"
    client = DICOMwebClient(url=str(watch.dicomweb), headers=headers)
    # The watcher tries again itself; the client would hold up everything else for half a minute.
    client.set_http_retry_params(retry=False)
    return client


class FilmPoller:
    """Looks for new films in an archive, and fetches them into a folder."""

    def __init__(self, watch: WatchConfig, inbox: Path, journal: Journal) -> None:
        self._client = dicomweb_client(watch)
        self._days = watch.days
        self._inbox = inbox
        self._journal = journal
        inbox.mkdir(parents=True, exist_ok=True)

    def fetch(self) -> None:
        """Fetch the films of recent studies that have no report as they are now.

        Raises:
            ArchiveError: ``archive_down``.
        """
        try:
            for study_uid in self._recent_studies():
                self._fetch_study(study_uid)
        except _FAILURES as error:
            raise ArchiveError(
                "archive_down", f"DICOMweb of the archive fails: {type(error).__name__}"
            ) from error

    def _recent_studies(self) -> list[str]:
        first = date.today() - timedelta(days=self._days)
        found: dict[str, None] = {}
        for modality in _MODALITIES:
            filters = {"StudyDate": f"{first:%Y%m%d}-", "ModalitiesInStudy": modality}
            search = partial(self._client.search_for_studies, search_filters=filters)
            for study in _all_found(search, _STUDY):
                found[_value(study, _STUDY)] = None
        return list(found)

    def _fetch_study(self, study_uid: str) -> None:
        search = partial(self._client.search_for_instances, study_uid)
        films = [
            each for each in _all_found(search, _INSTANCE) if _value(each, _CLASS) in FILM_CLASSES
        ]
        entry = self._journal.entry(
            study_key(study_uid, [_value(film, _INSTANCE) for film in films])
        )
        if not films or (entry is not None and entry.state in (*FINAL, "written")):
            return
        for film in films:
            path = self._inbox / film_name(_value(film, _INSTANCE))
            if not path.exists():
                fetched = self._client.retrieve_instance(
                    study_uid,
                    _value(film, _SERIES),
                    _value(film, _INSTANCE),
                    media_types=(("application/dicom", "*"),),
                )
                write_durably(path, _file_bytes(fetched))


class StowArchive:
    """Stores reports over DICOMweb (STOW-RS)."""

    def __init__(self, watch: WatchConfig) -> None:
        self._client = dicomweb_client(watch)

    def store(self, paths: Sequence[Path]) -> None:
        """Store DICOM files.

        Raises:
            ArchiveError: ``archive_down`` or ``archive_refused``.
        """
        try:
            answer = self._client.store_instances([pydicom.dcmread(path) for path in paths])
        except _FAILURES as error:
            raise ArchiveError(
                "archive_down", f"DICOMweb of the archive fails: {type(error).__name__}"
            ) from error
        if answer.get("FailedSOPSequence"):
            raise ArchiveError("archive_refused", "the archive did not take a report")


def _all_found(search: Callable[..., list[dict[str, Any]]], tag: str) -> list[dict[str, Any]]:
    """Return what all pages of a search hold, each thing once.

    The search ends at a page that brings nothing new. The client's own `get_remaining` waits for an
    empty page, and never ends with Orthanc, which ignores `offset` beside ``ModalitiesInStudy``.

    Args:
        search: returns one page of DICOM JSON objects, from its argument ``offset`` on.
        tag: of the UID that tells two of them apart.
    """
    found: dict[str, dict[str, Any]] = {}
    while True:
        before = len(found)
        found |= {_value(each, tag): each for each in search(offset=before)}
        if len(found) == before:
            return list(found.values())


def _value(found: dict[str, Any], tag: str) -> str:
    return str(found[tag]["Value"][0])


def _file_bytes(dataset: Dataset) -> bytes:
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()
