"""Receive films from an archive or a modality: a C-STORE service (PS3.4 annex B)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from lmrrg.config.watch import WatchConfig
from lmrrg.errors import CodedError
from lmrrg.imaging.dicom.reader import TRANSFER_SYNTAXES
from lmrrg.imaging.radiograph import DEFAULT_LIMITS, Limits
from lmrrg.pacs.durable import write_durably
from lmrrg.pacs.films import film_name

FILM_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.1",
    "1.2.840.10008.5.1.4.1.1.1.1",
    "1.2.840.10008.5.1.4.1.1.1.1.1",
)
"""Storage classes of computed radiography, and of digital X-ray for presentation and processing."""

_SUCCESS = 0x0000
_OUT_OF_RESOURCES = 0xA700
_CANNOT_UNDERSTAND = 0xC000

# Its messages quote data sets, which name patients.
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)


class ListenerError(CodedError):
    """The listener cannot start: ``listener_port``."""


@contextmanager
def listening(watch: WatchConfig, inbox: Path, limits: Limits = DEFAULT_LIMITS) -> Iterator[None]:
    """Receive films into a folder while the block runs.

    A sender is told of success when its film is on disk.

    Raises:
        ListenerError: ``listener_port``, the address cannot be bound.
    """
    inbox.mkdir(parents=True, exist_ok=True)
    entity = AE(watch.aet)
    entity.require_called_aet = True
    entity.require_calling_aet = list(watch.callers)
    entity.add_supported_context(Verification)
    for storage in FILM_CLASSES:
        entity.add_supported_context(storage, list(TRANSFER_SYNTAXES))

    def store(event: Event) -> int:
        return _store(event, inbox, limits)

    address = (watch.listen_host, watch.listen_port)
    try:
        server = entity.start_server(address, block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    except OSError as error:
        raise ListenerError(
            "listener_port", f"cannot listen on {address[0]}:{address[1]}: {error.strerror}"
        ) from error
    try:
        yield
    finally:
        entity.shutdown()
        del server


def _store(event: Event, inbox: Path, limits: Limits) -> int:
    """Write one film and return the status of the answer (PS3.4 table B.2-1)."""
    request = cast(C_STORE, event.request)
    sop_uid = str(request.AffectedSOPInstanceUID or "")
    data = event.encoded_dataset()
    if not sop_uid or len(data) > limits.max_bytes:
        return _CANNOT_UNDERSTAND
    try:
        write_durably(inbox / film_name(sop_uid), data)
    except OSError:
        return _OUT_OF_RESOURCES
    return _SUCCESS
