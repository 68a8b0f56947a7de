"""Take complete studies to the report service, and their reports to the archive.

Every step is on disk before the next one begins, and doing one again does no harm:

1. a film is in a folder before its sender is told so;
2. a report is asked for with a key that depends on the films alone;
3. its Structured Reports are in the outbox before the journal says ``written``; their UIDs depend
   on study, films and model alone;
4. the archive has them before the journal says ``stored``.

So a process that is killed anywhere goes on where it was: no report is lost, and one that is stored
twice is the same object.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from lmrrg.config.watch import WatchConfig
from lmrrg.documents.draft import DocumentError, read_answer
from lmrrg.documents.source import source_study
from lmrrg.documents.sr import sr_bytes, structured_report
from lmrrg.pacs.archive import Archive, ArchiveError
from lmrrg.pacs.durable import write_folder_durably
from lmrrg.pacs.films import CompleteStudy, FilmFolder
from lmrrg.pacs.journal import FINAL, Journal
from lmrrg.pacs.service import FilmsRefused, ServiceDown

logger = logging.getLogger("lmrrg.watch")


class Reports(Protocol):
    """What writes the reports: :class:`lmrrg.pacs.service.ReportService`."""

    def report(self, paths: Sequence[Path], key: str) -> dict[str, Any]:
        """Return the service's answer about the films of one study."""


class Watcher:
    """Moves studies on.

    Args:
        watch: what to store, and where the outbox is.
        films: the folder that studies appear in.
        reports: writes the reports.
        archive: takes the Structured Reports.
        journal: how far each study is.
        owns_films: whether films are deleted when their study is done.
    """

    def __init__(
        self,
        watch: WatchConfig,
        films: FilmFolder,
        reports: Reports,
        archive: Archive,
        journal: Journal,
        *,
        owns_films: bool,
    ) -> None:
        self._kinds = watch.kinds
        self._outbox = watch.state / "outbox"
        self._films = films
        self._reports = reports
        self._archive = archive
        self._journal = journal
        self._owns_films = owns_films
        self._outbox.mkdir(parents=True, exist_ok=True)
        self._recover()

    def step(self) -> int:
        """Write and store what can be written and stored now; return the studies that wait."""
        waiting = 0
        due = {entry.key for entry in self._journal.due("waiting")}
        for study in self._films.complete():
            entry = self._journal.entry(study.key)
            if entry is None or study.key in due:
                self._write(study)
                entry = self._journal.entry(study.key)
            if entry is not None and entry.state in FINAL:
                self._delete(study)
            else:
                waiting += 1
        for written in self._journal.due("written"):
            self._store(written.key)
        return waiting

    def _recover(self) -> None:
        """Bring outbox and journal together, after a process that was killed between the two."""
        for folder in self._outbox.iterdir():
            entry = self._journal.entry(folder.name)
            if folder.name.startswith(".") or (entry is not None and entry.state in FINAL):
                shutil.rmtree(folder)
            elif entry is None or entry.state != "written":
                self._journal.set(folder.name, "written")

    def _write(self, study: CompleteStudy) -> None:
        """Bring a study's reports to the outbox, or note why there are none."""
        folder = self._outbox / study.key
        if not folder.exists():
            try:
                documents = self._documents(study)
            except ServiceDown as error:
                self._journal.failed(study.key, "waiting", error.code)
                self._log(study.key, f"waits: {error.code}")
                return
            except (FilmsRefused, DocumentError) as error:
                self._journal.set(study.key, "refused", error.code)
                self._log(study.key, f"refused: {error.code}")
                return
            if not documents:
                self._journal.set(study.key, "abstained")
                self._log(study.key, "the model abstains")
                return
            write_folder_durably(folder, documents)
        self._journal.set(study.key, "written")

    def _documents(self, study: CompleteStudy) -> dict[str, bytes]:
        """Return the Structured Reports of a study by file name; none where the model abstains."""
        source = source_study(study.headers)
        answer = self._reports.report(study.paths, study.key)
        if answer.get("abstain"):
            return {}
        draft = read_answer(answer)
        return {
            f"{kind}.dcm": sr_bytes(structured_report(draft, source, kind)) for kind in self._kinds
        }

    def _store(self, key: str) -> None:
        """Store the reports of the outbox."""
        folder = self._outbox / key
        try:
            self._archive.store(sorted(folder.glob("*.dcm")))
        except ArchiveError as error:
            self._journal.failed(key, "written", error.code)
            self._log(key, f"not stored: {error}")
            return
        self._journal.set(key, "stored")
        shutil.rmtree(folder)
        self._log(key, "stored")

    def _delete(self, study: CompleteStudy) -> None:
        if self._owns_films:
            for path in study.paths:
                path.unlink(missing_ok=True)

    def _log(self, key: str, what: str) -> None:
        # The key is a hash: no identifier reaches a log.
        logger.info("study %s %s", key[:8], what)
