"""``lmrrg watch``: take studies from an archive and store their reports there."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path

from lmrrg import RESEARCH_USE_ONLY
from lmrrg.config.description import config_help
from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config
from lmrrg.imaging.decoder_pool import image_limits
from lmrrg.pacs.archive import Archive, ArchiveError, CStoreArchive
from lmrrg.pacs.dicomweb import FilmPoller, StowArchive
from lmrrg.pacs.films import FilmFolder
from lmrrg.pacs.journal import Journal
from lmrrg.pacs.listener import listening
from lmrrg.pacs.service import ReportService
from lmrrg.pacs.watcher import Watcher

EPILOG = f"""\
A study is complete when no film of it has come for watch.quiet_s seconds. Its films go to the
report service (watch.service), and the report comes back to the archive as DICOM Structured Reports
in the study of the films: PARTIAL, UNVERIFIED, PRELIMINARY. A later film makes another report.

watch.state holds a journal, films that arrived and reports that wait; a command that was stopped or
killed goes on there. Films and reports in it identify patients; the journal and the log do not.

{RESEARCH_USE_ONLY}

examples
  lmrrg watch watch.archive_host=pacs watch.archive_port=4242 watch.archive_aet=ORTHANC
  lmrrg watch watch.source=folder watch.folder=/data/films watch.archive_port=4242
  lmrrg watch watch.source=dicomweb watch.store=stow watch.dicomweb=http://pacs:8042/dicom-web

{config_help()}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file with settings")
    parser.add_argument(
        "--once", action="store_true", help="do what can be done now, and end (not for a listener)"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings that win over the file's"
    )


def run(args: argparse.Namespace) -> int:
    """Watch until the command is stopped."""
    config = load_config(args.config, args.overrides)
    logging.basicConfig(format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("lmrrg.watch").setLevel(logging.INFO)
    # `kill` ends the command as Ctrl-C does: between two steps of its own.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    watch_archive(config, once=args.once)
    return 0


def watch_archive(config: Config, *, once: bool = False) -> None:
    """Move studies on, for ever or once.

    Raises:
        JournalError: ``watch_in_use``.
        ListenerError: ``listener_port``.
    """
    watch = config.watch
    limits = image_limits(config.data)
    folder = watch.folder if watch.source == "folder" and watch.folder else watch.state / "inbox"
    with ExitStack() as stack:
        journal = stack.enter_context(closing(Journal(watch.state / "journal.sqlite")))
        reports = stack.enter_context(closing(ReportService(watch)))
        archive: Archive = StowArchive(watch) if watch.store == "stow" else CStoreArchive(watch)
        watcher = Watcher(
            watch,
            FilmFolder(folder, watch.quiet_s, limits),
            reports,
            archive,
            journal,
            owns_films=watch.source != "folder",
        )
        poller = FilmPoller(watch, folder, journal) if watch.source == "dicomweb" else None
        if watch.source == "listener":
            stack.enter_context(listening(watch, folder, limits))
        while True:
            if poller is not None:
                _fetch(poller)
            watcher.step()
            if once:
                return
            time.sleep(watch.poll_s)


def _fetch(poller: FilmPoller) -> None:
    try:
        poller.fetch()
    except ArchiveError as error:
        logging.getLogger("lmrrg.watch").info("%s", error)
