"""A real archive for the tests: Debian's Orthanc with its DICOMweb plug-in."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
# As an archive is set up by hand: every film that arrives is sent on.
_RULE = """
function OnStoredInstance(instance, tags, metadata, origin)
  if tags['Modality'] ~= 'SR' then SendToModality(instance, 'lmrrg') end
end
"""


def why_no_orthanc() -> str:
    """Return what is missing here; "" where nothing is."""
    for tool in ("Orthanc", "storescu", "dsrdump"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed (Debian packages orthanc and dcmtk)"
    return "" if PLUGIN.is_file() else "Orthanc has no DICOMweb (Debian package orthanc-dicomweb)"


def free_port() -> int:
    """Return a port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Orthanc:
    """A running archive."""

    http: str
    dicom_port: int
    watcher_port: int
    """Port of the listener that films are sent on to."""

    def send(self, *films: Path) -> None:
        """Store films as a modality does."""
        peer = ["-aec", "TESTPACS", "127.0.0.1", str(self.dicom_port)]
        subprocess.run(["storescu", *peer, *films], check=True, timeout=60)

    def reports(self) -> list[bytes]:
        """Return every Structured Report."""
        query = {"Level": "Instance", "Query": {"Modality": "SR"}}
        found = requests.post(f"{self.http}/tools/find", json=query, timeout=30).json()
        return [requests.get(f"{self.http}/instances/{i}/file", timeout=30).content for i in found]

    def wait_for_reports(self, count: int, seconds: float) -> list[bytes]:
        """Return the Structured Reports as soon as there are so many."""
        deadline = time.monotonic() + seconds
        while len(reports := self.reports()) < count:
            assert time.monotonic() < deadline, f"{len(reports)} of {count} reports"
            time.sleep(0.5)
        return reports


@contextmanager
def running_orthanc(folder: Path) -> Iterator[Orthanc]:
    """Run an archive with an empty database in a folder."""
    archive = Orthanc(f"http://127.0.0.1:{free_port()}", free_port(), free_port())
    rule = folder / "rule.lua"
    rule.write_text(_RULE, encoding="utf-8")
    settings = {
        "Name": "TESTPACS",
        "HttpPort": int(archive.http.rpartition(":")[2]),
        "DicomPort": archive.dicom_port,
        "DicomAet": "TESTPACS",
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "Plugins": [str(PLUGIN)],
        "LuaScripts": [str(rule)],
        "DicomAlwaysAllowStore": True,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        "DicomModalities": {"lmrrg": ["LMRRG", "127.0.0.1", archive.watcher_port]},
        "DefaultEncoding": "Utf8",
    }
    (folder / "orthanc.json").write_text(json.dumps(settings), encoding="utf-8")
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen(
            ["Orthanc", folder / "orthanc.json"], stdout=log, stderr=log, cwd=folder
        )
    try:
        _wait_until_up(archive, process)
        yield archive
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_up(archive: Orthanc, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, "Orthanc ended"
        try:
            requests.get(f"{archive.http}/system", timeout=5).raise_for_status()
            return
        except requests.RequestException:
            assert time.monotonic() < deadline
            time.sleep(0.2)
