"""Store reports in an archive by C-STORE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import pydicom
from pydicom.uid import BasicTextSRStorage, ComprehensiveSRStorage
from pynetdicom import AE

from lmrrg.config.watch import WatchConfig
from lmrrg.errors import CodedError

_WARNINGS = range(0xB000, 0xC000)
"""Statuses of an object that was stored, with a remark (PS3.4 table B.2-1)."""


class ArchiveError(CodedError):
    """The archive does not take a report now: ``archive_down`` or ``archive_refused``."""


class Archive(Protocol):
    """Where reports are stored."""

    def store(self, paths: Sequence[Path]) -> None:
        """Store DICOM files.

        Raises:
            ArchiveError: not all of them are stored; storing them again does no harm.
        """


class CStoreArchive:
    """Stores reports by C-STORE (PS3.4 annex B)."""

    def __init__(self, watch: WatchConfig) -> None:
        self._watch = watch

    def store(self, paths: Sequence[Path]) -> None:
        """Store DICOM files.

        Raises:
            ArchiveError: ``archive_down`` or ``archive_refused``.
        """
        watch = self._watch
        entity = AE(watch.aet)
        for storage in (BasicTextSRStorage, ComprehensiveSRStorage):
            entity.add_requested_context(storage)
        association = entity.associate(
            watch.archive_host, watch.archive_port, ae_title=watch.archive_aet
        )
        if not association.is_established:
            raise ArchiveError(
                "archive_down",
                f"no association with {watch.archive_aet} at "
                f"{watch.archive_host}:{watch.archive_port}",
            )
        try:
            for path in paths:
                status = association.send_c_store(pydicom.dcmread(path)).get("Status")
                if status != 0 and status not in _WARNINGS:
                    raise ArchiveError("archive_refused", f"C-STORE status {status}")
        except (ValueError, RuntimeError) as error:
            # No presentation context for the class, or the association was lost.
            raise ArchiveError(
                "archive_refused", f"C-STORE fails: {type(error).__name__}"
            ) from error
        finally:
            association.release()
