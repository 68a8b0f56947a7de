"""Find the complete studies in a folder of films."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from lmrrg.imaging.dicom.identity import file_identity
from lmrrg.imaging.dicom.reader import MODALITIES
from lmrrg.imaging.radiograph import DEFAULT_LIMITS, ImageError, Limits
from lmrrg.imaging.reading import read_bytes

Header = dict[str, str]


@dataclass(frozen=True)
class CompleteStudy:
    """The films of one study, of which no more have come for a while."""

    key: str
    headers: tuple[Header, ...]
    paths: tuple[Path, ...]


def study_key(study_uid: str, sop_uids: Iterable[str]) -> str:
    """Return a hash that stands for a study with these films; it names no patient.

    >>> study_key("1.2", ["1.3", "1.4"]) == study_key("1.2", ["1.4", "1.3"])
    True
    """
    return hashlib.sha256("\n".join([study_uid, *sorted(sop_uids)]).encode()).hexdigest()[:32]


def film_name(sop_uid: str) -> str:
    """Return the file name of a film that arrived; the same film has the same name again."""
    return f"{hashlib.sha256(sop_uid.encode()).hexdigest()[:32]}.dcm"


class FilmFolder:
    """A folder of DICOM films, by study; whatever else lies there is passed over.

    Args:
        folder: looked through with all folders below it.
        quiet_s: seconds without a change after which a study is complete.
        limits: of files that are read.
        clock: gives seconds since 1970.
    """

    def __init__(
        self,
        folder: Path,
        quiet_s: float,
        limits: Limits = DEFAULT_LIMITS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._quiet_s = quiet_s
        self._limits = limits
        self._clock = clock
        self._known: dict[Path, tuple[tuple[int, int], Header]] = {}

    def complete(self) -> list[CompleteStudy]:
        """Return the studies that are complete now, by key."""
        studies: dict[str, dict[str, tuple[Path, Header]]] = {}
        changed: dict[str, float] = {}
        for path, when, header in self._films():
            uid = header["StudyInstanceUID"]
            # Of a film that lies there twice, one is taken.
            studies.setdefault(uid, {}).setdefault(header["SOPInstanceUID"], (path, header))
            changed[uid] = max(changed.get(uid, 0.0), when)
        quiet_since = self._clock() - self._quiet_s
        found = []
        for uid, films in studies.items():
            if changed[uid] <= quiet_since:
                paths, headers = zip(*(films[sop] for sop in sorted(films)), strict=True)
                found.append(CompleteStudy(study_key(uid, films), headers, paths))
        return sorted(found, key=lambda study: study.key)

    def _films(self) -> list[tuple[Path, float, Header]]:
        """Return path, time of arrival and header of every film."""
        films = []
        known = {}
        for path in sorted(self._folder.rglob("*")):
            if path.name.startswith(".") or not path.is_file():
                continue
            try:
                facts = path.stat()
                # The time of the inode: a copy may keep the time of its content, but not this one.
                stamp = (facts.st_size, facts.st_ctime_ns)
                before = self._known.get(path)
                header = before[1] if before and before[0] == stamp else self._header(path)
            except FileNotFoundError:
                continue  # moved away while we looked
            known[path] = (stamp, header)
            if _is_film(header):
                films.append((path, facts.st_ctime, header))
        self._known = known
        return films

    def _header(self, path: Path) -> Header:
        """Return who and what a file is; empty for one that cannot be read."""
        try:
            return file_identity(read_bytes(path, self._limits), self._limits)
        except ImageError:
            return {}


def _is_film(header: Header) -> bool:
    named = "StudyInstanceUID" in header and "SOPInstanceUID" in header
    return named and header.get("Modality", MODALITIES[0]) in MODALITIES
