"""From a real archive through `lmrrg watch` and the running service, and back into the archive."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pydicom
import pytest
import requests

from lmrrg.config.data import PhantomConfig
from lmrrg.data.phantom.drawn.dataset import import_phantoms
from tests.support.orthanc import Orthanc, running_orthanc, why_no_orthanc
from tests.support.paths import ROOT

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(bool(why_no_orthanc()), reason=why_no_orthanc()),
]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Orthanc]:
    with running_orthanc(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def service(served: str) -> str:
    deadline = time.monotonic() + 120
    while requests.get(f"{served}/readyz", timeout=5).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    return served


@pytest.fixture
def films(tmp_path: Path) -> list[Path]:
    """Two films of two patients, taken today."""
    folder = tmp_path / "films"
    import_phantoms(folder, PhantomConfig(train=1, val=1, test=1), seed=3, progress=False)
    paths = sorted(folder.glob("*.dcm"))[:2]
    for path in paths:
        film = pydicom.dcmread(path)
        film.StudyDate = f"{date.today():%Y%m%d}"
        film.PatientName = "Müller^Änne"
        film.SpecificCharacterSet = "ISO_IR 100"
        film.save_as(path)
    return paths


@contextmanager
def watching(state: Path, service: str, *settings: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "lmrrg.cli.main", "watch"]
    common = [f"watch.state={state}", f"watch.service={service}", "watch.quiet_s=1"]
    process = subprocess.Popen(
        [*command, *common, "watch.poll_s=0.5", *settings],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def check_reports(service: str, reports: list[bytes], films: list[Path], folder: Path) -> None:
    """Check that the archive has both reports of every film, readable, in the film's study."""
    found = [pydicom.dcmread(io.BytesIO(data)) for data in reports]
    assert len({each.SOPInstanceUID for each in found}) == len(reports) == 2 * len(films)
    for path in films:
        film = pydicom.dcmread(path)
        mine = [each for each in found if each.StudyInstanceUID == film.StudyInstanceUID]
        assert {each.SOPClassUID.name for each in mine} == {
            "Basic Text SR Storage",
            "Comprehensive SR Storage",
        }
        assert {str(each.PatientName) for each in mine} == {"Müller^Änne"}
        assert {each.PatientID for each in mine} == {film.PatientID}
        upload = {"files": path.read_bytes()}
        answer = requests.post(f"{service}/v1/reports", files=upload, timeout=60).json()
        words = answer["findings"].split()[:3]
        assert all(word in str(mine[0]) for word in words if word.isalpha())
    for number, data in enumerate(reports):
        path = folder / f"sr-{number}.dcm"
        path.write_bytes(data)
        done = subprocess.run(["dsrdump", path], capture_output=True, check=True)
        assert b"UNVERIFIED" in done.stdout
        assert b"Finding" in done.stdout


def test_films_that_the_archive_sends_come_back_as_reports(archive, service, films, tmp_path):
    settings = [
        f"watch.listen_port={archive.watcher_port}",
        f"watch.archive_port={archive.dicom_port}",
        "watch.archive_aet=TESTPACS",
    ]
    state = tmp_path / "state"
    with watching(state, service, *settings) as process:
        deadline = time.monotonic() + 60
        while not (state / "inbox").is_dir():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        started = time.monotonic()
        archive.send(*films)
        reports = archive.wait_for_reports(4, seconds=60)
        print(f"storescu to reports in the archive: {time.monotonic() - started:.1f} s")
        time.sleep(3)
        assert len(archive.reports()) == 4
    check_reports(service, reports, films, tmp_path)
    assert list((state / "inbox").iterdir()) == []


def test_a_watcher_that_is_killed_goes_on_over_dicomweb(archive, service, films, tmp_path):
    settings = [
        "watch.source=dicomweb",
        "watch.store=stow",
        f"watch.dicomweb={archive.http}/dicom-web",
    ]
    state = tmp_path / "state"
    archive.send(*films)
    with watching(state, service, *settings) as process:
        archive.wait_for_reports(1, seconds=60)
        process.kill()
        process.wait(30)
    with watching(state, service, *settings):
        archive.wait_for_reports(4, seconds=60)
        time.sleep(3)
        reports = archive.reports()
    check_reports(service, reports, films, tmp_path)
