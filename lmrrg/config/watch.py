"""Settings of `lmrrg watch`: where films come from, and where reports go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    model_validator,
)

from lmrrg.config.base import Settings

AETitle = Annotated[str, StringConstraints(pattern=r"^[!-\[\]-~]{1,16}$")]
"""Name of a DICOM application: 1 to 16 printable characters without a backslash."""


class WatchConfig(Settings):
    """The way from an archive (PACS) to the service and back."""

    source: Literal["folder", "listener", "dicomweb"] = Field(
        "listener",
        description="where films come from: files below watch.folder; a C-STORE listener that the "
        "archive sends to; polling the archive over DICOMweb",
    )
    folder: Path | None = Field(
        None, description="folder of films, which is only read; required with watch.source=folder"
    )
    state: Path = Field(
        Path("watch"),
        description="folder of the journal, of films that arrived and of reports to be stored",
    )
    quiet_s: NonNegativeFloat = Field(
        30, description="a study is complete when no film of it has come for so long, seconds"
    )
    poll_s: PositiveFloat = Field(2, description="pause between two looks for work, seconds")
    service: str = Field("http://127.0.0.1:8000", description="address of the report service")
    api_key_file: Path | None = Field(None, description="file with the service's API key")
    report_timeout_s: PositiveFloat = Field(
        120, description="longest time for a report, seconds; then it is asked for again"
    )
    listen_host: str = Field("127.0.0.1", description="address that the listener binds")
    listen_port: PositiveInt = Field(11112, description="port of the listener")
    aet: AETitle = Field("LMRRG", description="our own AE title")
    callers: tuple[AETitle, ...] = Field(
        (), description="AE titles that may send films to the listener; empty: all"
    )
    dicomweb: str | None = Field(
        None,
        description="DICOMweb root of the archive; required with dicomweb and stow",
    )
    dicomweb_token_file: Path | None = Field(
        None, description="file with a bearer token for DICOMweb"
    )
    days: PositiveInt = Field(
        2, description="watch.source=dicomweb: look at studies of the last so many days"
    )
    store: Literal["cstore", "stow"] = Field(
        "cstore", description="how reports reach the archive: C-STORE, or DICOMweb STOW"
    )
    archive_host: str = Field("127.0.0.1", description="C-STORE: address of the archive")
    archive_port: PositiveInt = Field(4242, description="C-STORE: port of the archive")
    archive_aet: AETitle = Field("ARCHIVE", description="C-STORE: AE title of the archive")
    kinds: tuple[Literal["text", "tid1500"], ...] = Field(
        ("text", "tid1500"),
        min_length=1,
        description="Structured Reports to store: Basic Text SR, measurement report (TID 1500)",
    )

    @model_validator(mode="after")
    def _needs(self) -> WatchConfig:
        if self.source == "folder" and self.folder is None:
            raise ValueError("watch.folder is required with watch.source=folder")
        needs_dicomweb = self.source == "dicomweb" or self.store == "stow"
        if needs_dicomweb and self.dicomweb is None:
            raise ValueError(
                "watch.dicomweb is required with watch.source=dicomweb or watch.store=stow"
            )
        return self
