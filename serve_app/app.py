"""The HTTP service on Ray Serve: ``serve run serve_app.app:app`` listens on port 8000.

The checkpoint is ``$LMRRG_CHECKPOINT``, else ``serve.checkpoint`` of the file ``$LMRRG_CONFIG``; both can also be given
as ``serve run serve_app.app:app checkpoint=DIR config=FILE``.
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
from lmrrg.model.checkpoint import CheckpointError, checkpoint_settings
from serve_app.api import build_api
from serve_app.errors import ServiceError
from serve_app.reporter import Reporter, UploadedStudy
from serve_app.schemas import ReportResponse

MAX_PENDING = 32
"""Studies that are decoded or wait in one replica; more are turned away, so that time and memory are bounded."""
BATCH = 8
"""Studies that the engine decodes together."""


# Many more requests than studies may be open at once, so that health checks never queue behind studies.
@serve.deployment(max_ongoing_requests=4 * MAX_PENDING, health_check_period_s=5)
@serve.ingress()
class ReportService:
    """One replica: an engine in a thread of its own, so that health checks are answered while it works."""

    def __init__(self, checkpoint: str, config: Config):
        self._config = config
        _, inputs = checkpoint_settings(Path(checkpoint))
        self._image_size = inputs.image_size
        self._engine_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._loading = self._engine_thread.submit(Reporter, Path(checkpoint), config)
        self._pending = 0

    def __serve_build_asgi_app__(self) -> FastAPI:
        settings = self._config.serve
        decoders = DecoderPool(
            settings.decoders,
            timeout_s=settings.decoder_timeout_s,
            memory_mb=settings.decoder_memory_mb,
            limits=image_limits(self._config.data),
        )
        return build_api(self, decoders, settings.max_upload_mb << 20, self._image_size)

    def check_health(self) -> None:
        """Called by Ray Serve, which restarts the replica when the engine could not be loaded."""
        if self._loading.done():
            self._loading.result()

    def check_ready(self) -> None:
        """Raise :class:`ServiceError` ``not_ready`` while the engine is being loaded."""
        if not self._loading.done():
            raise ServiceError("not_ready", "the model is being loaded; try again soon")

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of :data:`MAX_PENDING` places, from before the images are decoded until the report is written.

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
        """Write one report, together with others that wait."""
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
        click.ClickException: no checkpoint, one that cannot be served, or an unknown argument; the command ends with
            that sentence.
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
        env["CUDA_VISIBLE_DEVICES"] = ""  # Ray lets a replica that asked for no GPU see all of them
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
        .bind(str(checkpoint), config)
    )


def _checkpoint(argument: str | None, config: Config) -> Path:
    chosen = argument or os.environ.get("LMRRG_CHECKPOINT") or config.serve.checkpoint
    if chosen is None:
        raise ConfigError(
            "no model to serve: set LMRRG_CHECKPOINT to a checkpoint directory, "
            "or serve.checkpoint in the file that LMRRG_CONFIG names"
        )
    checkpoint = Path(chosen).expanduser().resolve()
    checkpoint_settings(checkpoint)
    return checkpoint
