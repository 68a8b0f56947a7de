"""The HTTP service on Ray Serve: ``serve run serve_app.app:app`` listens on port 8000.

The checkpoint is ``$LMRRG_CHECKPOINT``, else ``serve.checkpoint`` of the file ``$LMRRG_CONFIG``.
Both can also be given as ``serve run serve_app.app:app checkpoint=DIR config=FILE``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import click
from fastapi import FastAPI
from ray import serve
from ray.serve import Application

from lmrrg.config.base import ConfigError
from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config
from lmrrg.engine.vllm_settings import engine_environment
from lmrrg.imaging.decoder_pool import DecoderPool, image_limits
from lmrrg.model.checkpoint import CheckpointError, checkpoint_encoder, checkpoint_settings
from serve_app.api import build_api
from serve_app.errors import ServiceError
from serve_app.reporter import Reporter, UploadedStudy
from serve_app.schemas import ReportResponse
from serve_app.service import Service
from serve_app.settings import ServiceSettings

MAX_PENDING = 32
"""Most studies in one replica, from upload to report; the limit bounds waiting time and memory."""
BATCH = 8
"""Most studies whose reports are generated together."""


# Many more requests than studies may be open, so that health checks never queue behind studies.
@serve.deployment(max_ongoing_requests=4 * MAX_PENDING, health_check_period_s=5)
@serve.ingress()
class ReportService:
    """One replica of the service.

    The engine works in a thread of its own, so that health checks are answered meanwhile.
    """

    def __init__(self, checkpoint: str, settings: ServiceSettings):
        self._settings = settings
        _, inputs = checkpoint_settings(Path(checkpoint))
        self._image_size = inputs.image_size
        # One worker, because the engine must not be used by several threads at once.
        self._engine_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        # Loading in the background lets the replica answer health checks from the start.
        self._loading = self._engine_thread.submit(Reporter, Path(checkpoint), settings)
        self._pending = 0

    def __serve_build_asgi_app__(self) -> FastAPI:
        serve_settings = self._settings.serve
        decoders = DecoderPool(
            serve_settings.decoders,
            timeout_s=serve_settings.decoder_timeout_s,
            memory_mb=serve_settings.decoder_memory_mb,
            limits=image_limits(self._settings.data),
            polarity=self._settings.data.polarity,
        )
        service = Service(self, decoders, self._image_size)
        return build_api(service, serve_settings.max_upload_mb << 20)

    def check_health(self) -> None:
        """Raise the error of loading the engine, if any; Ray Serve then restarts the replica."""
        if self._loading.done():
            self._loading.result()

    def check_ready(self) -> None:
        """Raise :class:`ServiceError` ``not_ready`` while the engine is being loaded."""
        if not self._loading.done():
            raise ServiceError("not_ready", "the model is being loaded; try again soon")

    @contextmanager
    def queue_slot(self) -> Iterator[None]:
        """Hold one of :data:`MAX_PENDING` slots for studies.

        A study holds its slot from before its images are decoded until its report is written.

        Raises:
            ServiceError: ``busy``.
        """
        if self._pending >= MAX_PENDING:
            raise ServiceError("busy", "too many studies are waiting; try again soon")
        self._pending += 1
        try:
            yield
        finally:
            self._pending -= 1

    async def write(self, study: UploadedStudy) -> ReportResponse:
        """Write the report of one study, in one batch with other studies that wait."""
        return await self._write_batch(study)

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=0.01)
    async def _write_batch(self, studies: list[UploadedStudy]) -> list[ReportResponse]:
        reporter = self._loading.result()
        return await asyncio.get_running_loop().run_in_executor(
            self._engine_thread, reporter.write, studies
        )


def app(arguments: Mapping[str, str]) -> Application:
    """Build the application for ``serve run`` and ``serve deploy``.

    Raises:
        click.ClickException: no checkpoint, one that cannot be served, or an unknown argument. The
            command prints the message and ends.
    """
    if unknown := sorted(arguments.keys() - {"checkpoint", "config"}):
        known = "checkpoint=DIR and config=FILE are known"
        raise click.ClickException(f"unknown argument {', '.join(unknown)}: {known}")
    try:
        config = load_config(arguments.get("config") or os.environ.get("LMRRG_CONFIG"))
        checkpoint = _checkpoint(arguments.get("checkpoint"), config)
    except (ConfigError, CheckpointError) as error:
        raise click.ClickException(str(error)) from error
    rollout = config.rollout
    env = engine_environment(config.threads, gpu=rollout.gpus_per_engine > 0)
    if not rollout.gpus_per_engine:
        # A replica that reserved no GPU would still see all GPUs of its machine.
        env["CUDA_VISIBLE_DEVICES"] = ""
    return (
        cast(Any, ReportService)
        .options(
            num_replicas=config.serve.replicas,
            ray_actor_options={
                "num_cpus": rollout.cpus_per_engine,
                "num_gpus": rollout.gpus_per_engine,
                "runtime_env": {"env_vars": env},
            },
        )
        .bind(str(checkpoint), ServiceSettings.of(config))
    )


def _checkpoint(argument: str | None, config: Config) -> Path:
    """Return the model directory to serve, after a check that it can be served."""
    chosen = argument or os.environ.get("LMRRG_CHECKPOINT") or config.serve.checkpoint
    if chosen is None:
        raise ConfigError(
            "no model to serve: set LMRRG_CHECKPOINT to a checkpoint directory, "
            "or serve.checkpoint in the file that LMRRG_CONFIG names"
        )
    checkpoint = Path(chosen).expanduser().resolve()
    # Fails here rather than in a replica that is restarted forever.
    checkpoint_encoder(checkpoint, config.model.image_encoder)
    return checkpoint
