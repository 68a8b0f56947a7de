"""Polling an archive over DICOMweb, over real sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pydicom
import pytest

from lmrrg.config.watch import WatchConfig
from lmrrg.pacs.archive import ArchiveError
from lmrrg.pacs.dicomweb import FilmPoller
from lmrrg.pacs.films import film_name
from lmrrg.pacs.journal import Journal
from lmrrg.pacs.listener import FILM_CLASSES
from tests.support.dicom_files import dicom, ramp
from tests.support.serving.server import Handler, handled_by

FILM = dicom(ramp(), StudyInstanceUID="1.2", SeriesInstanceUID="1.3", SOPInstanceUID="1.4")
FOUND = {
    tag: {"vr": "UI", "Value": [value]}
    for tag, value in {
        "0020000D": "1.2",
        "0020000E": "1.3",
        "00080018": "1.4",
        "00080016": FILM_CLASSES[0],
    }.items()
}


@contextmanager
def archive(*, pages: bool) -> Iterator[str]:
    """Run an archive with one film; without pages it ignores `offset`, as Orthanc may."""

    class OneFilm(Handler):
        def do_GET(self) -> None:
            address = urlsplit(self.path)
            if address.path.endswith("/1.4"):
                kind = 'multipart/related; type="application/dicom"; boundary=xx'
                head = b"--xx\r\nContent-Type: application/dicom\r\n\r\n"
                body = head + FILM + b"\r\n--xx--\r\n"
            else:
                kind = "application/dicom+json"
                offset = int(parse_qs(address.query).get("offset", ["0"])[0])
                body = json.dumps([] if pages and offset else [FOUND]).encode()
            self.answer(200, body, kind)

    with handled_by(OneFilm) as address:
        yield address


@pytest.mark.parametrize("pages", [True, False])
def test_a_search_ends_also_where_the_archive_ignores_the_offset(tmp_path, pages) -> None:
    with archive(pages=pages) as address, closing(Journal(tmp_path / "journal.sqlite")) as journal:
        watch = WatchConfig(source="dicomweb", dicomweb=address)
        FilmPoller(watch, tmp_path / "inbox", journal).fetch()
    [fetched] = (tmp_path / "inbox").iterdir()
    assert fetched.name == film_name("1.4")
    assert pydicom.dcmread(fetched).StudyInstanceUID == "1.2"


def test_an_archive_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    with archive(pages=True) as address:
        watch = WatchConfig(source="dicomweb", dicomweb=address)
    with closing(Journal(tmp_path / "journal.sqlite")) as journal:
        poller = FilmPoller(watch, tmp_path / "inbox", journal)
        with pytest.raises(ArchiveError, match="archive_down"):
            poller.fetch()
