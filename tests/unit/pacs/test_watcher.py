"""The way of a study, and of the same study when the process is killed anywhere on it."""

from __future__ import annotations

import io
import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pydicom
import pytest

from lmrrg.config.watch import WatchConfig
from lmrrg.pacs import watcher as module
from lmrrg.pacs.archive import ArchiveError
from lmrrg.pacs.films import FilmFolder
from lmrrg.pacs.journal import Journal, JournalError
from lmrrg.pacs.service import FilmsRefused, ServiceDown
from lmrrg.pacs.watcher import Watcher
from lmrrg.studies import LABELS
from tests.support.dicom_files import dicom, ramp

_EVERY_STUDY = "select key, state, code from studies"


class Killed(BaseException):
    """What a test raises where a process would be killed."""


class Service:
    """Answers as the service does: the same key, the same answer."""

    def __init__(self) -> None:
        self.answers: dict[str, dict[str, Any]] = {}
        self.error: Exception | None = None
        self.abstains = False

    def report(self, paths: Sequence[Path], key: str) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        made = {
            "findings": f"Report {len(self.answers)}.",
            "complete": True,
            "probabilities": dict.fromkeys(LABELS, 0.5),
            "images": [{}] * len(paths),
            "model": {"version": "sha256:0"},
            "generated_at": f"2026-02-01T09:{len(self.answers):02}:00Z",
            "notice": "For research only.",
            "abstain": self.abstains,
        }
        return self.answers.setdefault(key, made)


class Archive:
    """Keeps what it is given, by UID, as an archive does."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.error: ArchiveError | None = None

    def store(self, paths: Sequence[Path]) -> None:
        assert paths, "there is something to store"
        if self.error is not None:
            raise self.error
        for path in paths:
            data = path.read_bytes()
            uid = str(pydicom.dcmread(io.BytesIO(data)).SOPInstanceUID)
            assert self.objects.setdefault(uid, data) == data, "one UID, one object"


class Place:
    """A state folder with an inbox, and what is outside of the process."""

    def __init__(self, folder: Path) -> None:
        self.watch = WatchConfig(state=folder / "state")
        self.inbox = folder / "inbox"
        self.inbox.mkdir()
        self.service = Service()
        self.archive = Archive()
        self.now = time.time() + 60

    def film(self, study: str = "1.1", sop: str = "1.1.1", **elements: str | None) -> Path:
        uids = {"StudyInstanceUID": study, "SeriesInstanceUID": "1.9", "SOPInstanceUID": sop}
        path = self.inbox / f"{sop}.dcm"
        path.write_bytes(dicom(ramp(), **(uids | elements)))
        return path

    def run(self, steps: int = 2, *, owns_films: bool = True) -> dict[str, tuple[str, str]]:
        """Start a process, let it take some steps, end it; return state and code by study."""

        def clock() -> float:
            return self.now

        with closing(Journal(self.watch.state / "journal.sqlite", clock)) as journal:
            films = FilmFolder(self.inbox, 30, clock=clock)
            watcher = Watcher(
                self.watch, films, self.service, self.archive, journal, owns_films=owns_films
            )
            for _ in range(steps):
                watcher.step()
        with closing(sqlite3.connect(self.watch.state / "journal.sqlite")) as database:
            return {key: (state, code) for key, state, code in database.execute(_EVERY_STUDY)}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_films_become_reports_in_the_archive_and_are_deleted(place: Place) -> None:
    place.film()
    place.film("1.2", "1.2.1")
    place.film("1.2", "1.2.2")
    states = place.run()
    assert list(states.values()) == [("stored", "")] * 2
    assert len(place.archive.objects) == 4
    studies = [
        str(pydicom.dcmread(io.BytesIO(data)).StudyInstanceUID)
        for data in place.archive.objects.values()
    ]
    assert sorted(studies) == ["1.1", "1.1", "1.2", "1.2"]
    assert list(place.inbox.iterdir()) == []
    assert list((place.watch.state / "outbox").iterdir()) == []


def test_films_of_the_users_stay_and_are_reported_once(place: Place) -> None:
    path = place.film()
    place.run(owns_films=False)
    place.run(owns_films=False)
    assert path.exists()
    assert len(place.service.answers) == 1
    assert len(place.archive.objects) == 2
    place.film("1.1", "1.1.2")  # a late film makes the study another one
    place.run(owns_films=False)
    assert len(place.archive.objects) == 4


KILLED_AT = {
    "before the report": (Service, "report", False),
    "after the report": (Service, "report", True),
    "before the outbox": (module, "write_folder_durably", False),
    "after the outbox": (module, "write_folder_durably", True),
    "before the archive": (Archive, "store", False),
    "after the archive": (Archive, "store", True),
    "before a journal entry": (Journal, "set", False),
    "after a journal entry": (Journal, "set", True),
    "before the films are deleted": (Watcher, "_delete", False),
    "after the films are deleted": (Watcher, "_delete", True),
    "before the outbox is emptied": (shutil, "rmtree", False),
}


def _killing(original: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
    def killed(*args: Any, **options: Any) -> Any:
        if after:
            original(*args, **options)
        raise Killed

    return killed


@pytest.mark.parametrize("name", KILLED_AT)
def test_a_process_that_is_killed_loses_and_doubles_nothing(
    name: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, function, after = KILLED_AT[name]
    place.film()
    with monkeypatch.context() as patch:
        patch.setattr(owner, function, _killing(getattr(owner, function), after=after))
        with pytest.raises(Killed):
            place.run()
    states = place.run()
    assert list(states.values()) == [("stored", "")]
    assert len(place.archive.objects) == 2
    assert len(place.service.answers) == 1
    assert list(place.inbox.iterdir()) == []
    assert list((place.watch.state / "outbox").iterdir()) == []


def test_a_report_in_the_outbox_is_stored_although_its_films_are_gone(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place.film()
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "set", _killing(Journal.set, after=False))
        with pytest.raises(Killed):
            place.run()
    path.unlink()
    place.run()
    assert len(place.archive.objects) == 2


def test_what_is_down_is_tried_again_after_a_pause(place: Place) -> None:
    place.film()
    place.service.error = ServiceDown("busy", "too many studies")
    assert list(place.run().values()) == [("waiting", "busy")]
    place.service.error = None
    assert list(place.run().values()) == [("waiting", "busy")], "the pause is not over"
    place.now += 3
    place.archive.error = ArchiveError("archive_down", "no association")
    assert list(place.run().values()) == [("written", "archive_down")]
    place.archive.error = None
    place.now += 3
    assert list(place.run(3).values()) == [("stored", "")]


@pytest.mark.parametrize(
    ("error", "elements", "code"),
    [
        (FilmsRefused("too_small", "a side is too short"), {}, "too_small"),
        (None, {"SeriesInstanceUID": ""}, "no_instance_uid"),
    ],
)
def test_films_without_a_report_are_not_asked_for_again(place, error, elements, code) -> None:
    place.film(**elements)
    place.service.error = error
    assert list(place.run().values()) == [("refused", code)]
    assert place.archive.objects == {}
    assert list(place.inbox.iterdir()) == []


def test_films_of_two_patients_in_one_study_are_refused(place: Place) -> None:
    place.film()
    place.film("1.1", "1.1.2", PatientID="other")
    assert list(place.run().values()) == [("refused", "mixed_study")]
    assert place.service.answers == {}


def test_where_the_model_abstains_nothing_is_stored(place: Place) -> None:
    place.film()
    place.service.abstains = True
    assert list(place.run().values()) == [("abstained", "")]
    assert place.archive.objects == {}


def test_two_watchers_never_share_a_state_folder(place: Place) -> None:
    path = place.watch.state / "journal.sqlite"
    with closing(Journal(path)), pytest.raises(JournalError, match="watch_in_use"):
        Journal(path)
    Journal(path).close()


def test_neither_journal_nor_log_names_a_patient(place: Place, caplog) -> None:
    caplog.set_level("DEBUG")
    place.film()
    place.run()
    journal = (place.watch.state / "journal.sqlite").read_bytes()
    for private in ("MRN-12345", "Secret", "1.1.1"):
        assert private.encode() not in journal
        assert private not in caplog.text
    assert "stored" in caplog.text
