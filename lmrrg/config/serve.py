"""Settings of the HTTP service."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, PositiveFloat, PositiveInt

from lmrrg.config.base import Settings


class ServeConfig(Settings):
    """The HTTP service."""

    checkpoint: Path | None = Field(None, description="model directory to serve; required to serve")
    host: str = Field(
        "127.0.0.1", description="address to listen on; one of other machines needs API keys"
    )
    port: PositiveInt = Field(8000, description="port to listen on")
    allowed_hosts: tuple[str, ...] = Field(
        (), description="names, without port, by which clients call the service, beside localhost"
    )
    api_keys_file: Path | None = Field(
        None, description="file of API keys, lines `NAME SHA256-OF-KEY`; without keys no login"
    )
    requests_per_s: PositiveFloat = Field(
        50, description="requests of one API key per second, on average"
    )
    request_burst: PositiveInt = Field(
        100, description="requests of one API key that may come at once"
    )
    max_upload_mb: PositiveInt = Field(64, description="largest upload, MB")
    upload_memory_mb: PositiveInt = Field(
        1024, description="memory for all uploads that are read or waiting at once, MB"
    )
    upload_timeout_s: PositiveFloat = Field(25, description="longest time for one upload, seconds")
    min_upload_kb_per_s: PositiveFloat = Field(
        16, description="slowest upload after its first five seconds, KB per second"
    )
    uploads_per_client: PositiveInt = Field(
        16, description="uploads of one client that take longer than a second, at once"
    )
    request_timeout_s: PositiveFloat = Field(
        60, description="longest time from the end of an upload to its answer, seconds"
    )
    retry_s: PositiveFloat = Field(
        10, description="longest time for another replica to answer after one died, seconds"
    )
    max_studies: PositiveInt = Field(
        64, description="most studies in one replica, from decoding to report; beyond: `busy`"
    )
    max_queued_requests: PositiveInt = Field(
        256, description="most requests that wait in each proxy while no replica takes them"
    )
    engine_timeout_s: PositiveFloat = Field(
        60, description="a replica whose engine makes no progress for so long is replaced, seconds"
    )
    audit_log: Path | None = Field(
        None, description="file for one JSON line per request; without it, Ray Serve's own log"
    )
    decoders: PositiveInt = Field(
        2, description="child processes of each replica that decode uploaded images"
    )
    decoder_timeout_s: PositiveFloat = Field(
        20, description="longest time for decoding one image, seconds"
    )
    decoder_memory_mb: PositiveInt = Field(
        2048, description="memory limit of a child process that decodes, MB"
    )
    replicas: PositiveInt = Field(1, description="replicas of the Ray Serve deployment")
