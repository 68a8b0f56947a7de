"""The ends of the way: a C-STORE listener and client, and the HTTP client, over real sockets."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pydicom
import pytest
from pynetdicom import AE, evt
from pynetdicom.events import Event

from lmrrg.config.loading import load_config
from lmrrg.config.watch import WatchConfig
from lmrrg.documents.sr import sr_bytes, structured_report
from lmrrg.pacs.archive import ArchiveError, CStoreArchive
from lmrrg.pacs.films import film_name
from lmrrg.pacs.listener import FILM_CLASSES, ListenerError, listening
from lmrrg.pacs.service import FilmsRefused, ReportService, ServiceDown
from tests.support.dicom_files import dataset, ramp
from tests.support.drafts import draft, films
from tests.support.serving.server import Handler, handled_by


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_film_is_on_disk_before_its_sender_is_told_so(tmp_path: Path) -> None:
    watch = WatchConfig(listen_port=free_port(), callers=("MODALITY",))
    film = dataset(ramp(), StudyInstanceUID="1.2", SeriesInstanceUID="1.3", SOPInstanceUID="1.4")
    sender = AE("MODALITY")
    sender.add_requested_context(FILM_CLASSES[0])
    with listening(watch, tmp_path):
        association = sender.associate("127.0.0.1", watch.listen_port, ae_title="LMRRG")
        film.file_meta.MediaStorageSOPInstanceUID = "1.4"
        assert association.send_c_store(film).Status == 0
        arrived = pydicom.dcmread(tmp_path / film_name("1.4"))
        association.release()
        stranger = AE("STRANGER")
        stranger.add_requested_context(FILM_CLASSES[0])
        refused = stranger.associate("127.0.0.1", watch.listen_port, ae_title="LMRRG")
        assert not refused.is_established
        with pytest.raises(ListenerError, match="listener_port"), listening(watch, tmp_path):
            pass
    assert arrived.PixelData == film.PixelData
    assert [path.name for path in tmp_path.iterdir()] == [film_name("1.4")]


@contextmanager
def archive(status: int = 0) -> Iterator[tuple[int, dict[str, bytes]]]:
    """Run an archive that answers with a status; yield its port and what it was given."""
    objects: dict[str, bytes] = {}

    def store(event: Event) -> int:
        objects[str(event.request.AffectedSOPInstanceUID)] = event.encoded_dataset()
        return status

    entity = AE("ARCHIVE")
    for storage in ("1.2.840.10008.5.1.4.1.1.88.11", "1.2.840.10008.5.1.4.1.1.88.33"):
        entity.add_supported_context(storage)
    port = free_port()
    entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    try:
        yield port, objects
    finally:
        entity.shutdown()


def test_reports_are_stored_or_the_error_is_coded(tmp_path: Path) -> None:
    paths = []
    for kind in ("text", "tid1500"):
        paths.append(tmp_path / f"{kind}.dcm")
        paths[-1].write_bytes(sr_bytes(structured_report(draft(), films(), kind)))
    with archive() as (port, objects):
        CStoreArchive(WatchConfig(archive_port=port)).store(paths)
        stored = [pydicom.dcmread(io.BytesIO(data)) for data in objects.values()]
    assert {each.SOPInstanceUID for each in stored} == {
        pydicom.dcmread(path).SOPInstanceUID for path in paths
    }
    assert {str(each.PatientName) for each in stored} == {"Müller^Änne"}
    with archive(0xA700) as (port, _), pytest.raises(ArchiveError, match="archive_refused"):
        CStoreArchive(WatchConfig(archive_port=port)).store(paths)
    with pytest.raises(ArchiveError, match="archive_down"):
        CStoreArchive(WatchConfig(archive_port=free_port())).store(paths)


@contextmanager
def answering(status: int, body: bytes) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Run a server that gives one answer; yield its address and the headers that it was sent."""
    seen: list[dict[str, str]] = []

    class OneAnswer(Handler):
        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(
                {name.lower(): value for name, value in self.headers.items()}
                | {"body": sent.decode("latin-1")}
            )
            self.answer(status, body)

    with handled_by(OneAnswer) as address:
        yield address, seen


def error(code: str) -> bytes:
    return json.dumps({"error": {"code": code, "message": "why"}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (422, error("too_small"), FilmsRefused, "too_small"),
        (415, error("not_an_image"), FilmsRefused, "not_an_image"),
        (503, error("busy"), ServiceDown, "busy"),
        (429, error("rate_limited"), ServiceDown, "rate_limited"),
        (401, error("unauthorized"), ServiceDown, "unauthorized"),
        (502, b"<html>", ServiceDown, "service_down"),
        (200, b"[]", ServiceDown, "service_down"),
    ],
)
def test_an_error_of_the_service_is_final_or_not(tmp_path, status, body, kind, code) -> None:
    film = tmp_path / "jane-doe.dcm"
    film.write_bytes(b"film")
    key = tmp_path / "key"
    key.write_text("secret-key\n")
    with answering(status, body) as (address, seen):
        watch = WatchConfig(service=address, api_key_file=key)
        with closing(ReportService(watch)) as service, pytest.raises(kind) as caught:
            service.report([film], "abc")
    assert caught.value.code == code
    [sent] = seen
    assert sent["authorization"] == "Bearer secret-key"
    assert sent["idempotency-key"].startswith("abc-")
    assert "jane" not in sent["body"]


def test_the_request_of_other_bytes_has_another_key(tmp_path: Path) -> None:
    films = [tmp_path / "first.dcm", tmp_path / "second.dcm"]
    for film, content in zip(films, (b"film", b"film with another header"), strict=True):
        film.write_bytes(content)
    with (
        answering(200, b"{}") as (address, seen),
        closing(ReportService(WatchConfig(service=address))) as service,
    ):
        for film in (films[0], films[0], films[1]):
            service.report([film], "abc")
    first, again, other = (sent["idempotency-key"] for sent in seen)
    assert first == again != other
    assert len(first) <= 128


def test_a_service_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    film = tmp_path / "film.dcm"
    film.write_bytes(b"film")
    watch = WatchConfig(service=f"http://127.0.0.1:{free_port()}")
    with closing(ReportService(watch)) as service, pytest.raises(ServiceDown, match="service_down"):
        service.report([film], "abc")


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("watch.source=folder", "watch.folder"),
        ("watch.source=dicomweb", "watch.dicomweb"),
        ("watch.store=stow", "watch.dicomweb"),
        ("watch.aet=MUCH_TOO_LONG_A_NAME", "watch.aet"),
        ("watch.kinds=[]", "watch.kinds"),
    ],
)
def test_settings_that_cannot_work_are_refused(setting: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        load_config(None, [setting])
