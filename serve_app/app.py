"""The HTTP service on Ray Serve: ``serve run serve_app.app:app`` listens on port 8000.

The checkpoint is ``$LMRRG_CHECKPOINT``, else ``serve.checkpoint`` of the file ``$LMRRG_CONFIG``.
Both can also be given as ``serve run serve_app.app:app checkpoint=DIR config=FILE``.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import click
from ray import serve
from ray.serve import Application
from starlette.types import ASGIApp

from actors.placement import PlacementError
from lmrrg.config.base import ConfigError
from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config
from lmrrg.engine.vllm_settings import engine_environment
from lmrrg.imaging.decoder_pool import DecoderPool, image_limits
from lmrrg.model.checkpoint import CheckpointError, checkpoint_encoder, checkpoint_settings
from serve_app.api import build_api
from serve_app.errors import ServiceError
from serve_app.gate.install import start_serve
from serve_app.gate.middleware import Gate
from serve_app.gate.settings import GateSettings
from serve_app.report_loop import ReportLoop
from serve_app.reporter import Reporter, UploadedStudy, model_info, model_kind
from serve_app.schemas import ReportResponse
from serve_app.service import Service
from serve_app.settings import ServiceSettings

_ARGUMENTS = ("checkpoint", "config", "host", "port")


# Many more requests than studies may be open, so that health checks never queue behind studies.
@serve.deployment(health_check_period_s=2)
@serve.ingress()
class ReportService:
    """One replica of the service.

    Args:
        settings: engine, images and limits.
        kind: of the checkpoint, from :func:`~serve_app.reporter.model_kind`. Ray Serve starts new
            replicas when it changes; otherwise :meth:`reconfigure` loads other weights.
        gate: settings of a gate around the application; None: the proxies have it.
    """

    def __init__(self, settings: ServiceSettings, kind: str, gate: GateSettings | None):
        self._settings = settings
        self._gate = gate
        self._loaded: dict[str, str] = {}
        self._loop: ReportLoop | None = None
        self._pending = 0

    async def reconfigure(self, user_config: dict[str, str]) -> None:
        """Load the checkpoint, or change to the weights of another one of the same kind.

        Ray Serve calls this before it gives the replica any request, and again whenever the
        application is deployed with another checkpoint, or with other weights in the same folder.
        """
        checkpoint = Path(user_config["checkpoint"])
        if self._loop is None:
            start = partial(Reporter, checkpoint, self._settings)
            self._loop = ReportLoop(start, self._settings.serve.engine_timeout_s)
            await asyncio.wrap_future(self._loop.started)
        elif user_config != self._loaded:
            await asyncio.wrap_future(self._loop.swap(checkpoint))
        self._loaded = user_config

    def __serve_build_asgi_app__(self) -> ASGIApp:
        data, limits = self._settings.data, self._settings.serve
        decoders = DecoderPool(
            limits.decoders,
            timeout_s=limits.decoder_timeout_s,
            memory_mb=limits.decoder_memory_mb,
            limits=image_limits(data),
            polarity=data.polarity,
        )
        api = build_api(Service(self, decoders, data.image_size))
        return api if self._gate is None else Gate(api, self._gate)

    def check_health(self) -> None:
        """Raise when the engine is broken or stuck; Ray Serve then replaces the replica."""
        self._reports.check_alive()

    def check_ready(self) -> None:
        """Raise :class:`ServiceError` ``engine_broken`` or ``engine_stuck``."""
        self._reports.check_alive()

    @contextmanager
    def queue_slot(self) -> Iterator[None]:
        """Hold one of ``serve.max_studies`` slots.

        A study holds its slot from before its images are decoded until its report is written.

        Raises:
            ServiceError: ``busy``.
        """
        if self._pending >= self._settings.serve.max_studies:
            raise ServiceError("busy", "too many studies are waiting; try again soon")
        self._pending += 1
        try:
            yield
        finally:
            self._pending -= 1

    async def write(self, study: UploadedStudy) -> ReportResponse:
        """Write the report of one study, together with those that are being written."""
        return await asyncio.wrap_future(self._reports.submit(study))

    @property
    def _reports(self) -> ReportLoop:
        if self._loop is None:
            raise ServiceError("not_ready", "the model is being loaded; try again soon")
        return self._loop


def app(arguments: Mapping[str, str]) -> Application:
    """Build the application for ``serve run`` and ``serve deploy``.

    Ray and Ray Serve are started with the gate in its proxies, unless they run already.

    Raises:
        click.ClickException: no checkpoint, one that cannot be served, an unknown argument, or
            Ray cannot be started so. The command prints the message and ends.
    """
    try:
        config = _config(arguments)
        checkpoint = _checkpoint(arguments.get("checkpoint"), config)
        gate = GateSettings.of(config.serve)
        in_proxies = start_serve(config.ray, gate)
    except (ConfigError, CheckpointError, PlacementError) as error:
        raise click.ClickException(str(error)) from error
    return deployment(config, checkpoint, None if in_proxies else gate)


def deployment(config: Config, checkpoint: Path, gate: GateSettings | None) -> Application:
    """Return the deployment of a checkpoint.

    Args:
        config: all settings.
        checkpoint: model directory.
        gate: for a gate in the replicas; None: the proxies have it.
    """
    # Replicas are told their checkpoint apart from their settings, because it may change, and they
    # need not know how many they are.
    limits = config.serve.model_copy(update={"checkpoint": None, "replicas": 1})
    rollout = config.rollout
    _, inputs = checkpoint_settings(checkpoint)
    # The square that the model sees is the checkpoint's own.
    data = config.data.model_copy(update={"image_size": inputs.image_size})
    settings = ServiceSettings.of(config.model_copy(update={"data": data, "serve": limits}))
    env = engine_environment(config.threads, gpu=rollout.gpus_per_engine > 0)
    if not rollout.gpus_per_engine:
        # A replica that reserved no GPU would still see all GPUs of its machine.
        env["CUDA_VISIBLE_DEVICES"] = ""
    kind = model_kind(checkpoint)
    return (
        cast(Any, ReportService)
        .options(
            num_replicas=config.serve.replicas,
            max_ongoing_requests=4 * limits.max_studies,
            max_queued_requests=limits.max_queued_requests,
            # The version says whether a folder holds other weights than when it was deployed last.
            user_config={
                "checkpoint": str(checkpoint),
                "version": model_info(checkpoint).version,
            },
            ray_actor_options={
                "num_cpus": rollout.cpus_per_engine,
                "num_gpus": rollout.gpus_per_engine,
                "runtime_env": {"env_vars": env},
            },
        )
        # Without a version of ours `serve.run` starts new replicas whenever it is called.
        .options(version=_version(settings, kind, gate), _internal=True)
        .bind(settings, kind, gate)
    )


def _version(settings: ServiceSettings, kind: str, gate: GateSettings | None) -> str:
    """Return a hash of what a running replica cannot change: all but its weights."""
    parts = (settings, kind, gate.fingerprint if gate else "")
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _config(arguments: Mapping[str, str]) -> Config:
    """Return the settings of the configuration file and the command's arguments.

    Raises:
        ConfigError: unknown argument, or a file or setting that cannot be used.
    """
    if unknown := sorted(arguments.keys() - set(_ARGUMENTS)):
        known = ", ".join(f"{name}=..." for name in _ARGUMENTS)
        raise ConfigError(f"unknown argument {', '.join(unknown)}: known are {known}")
    given = [f"serve.{name}={arguments[name]}" for name in ("host", "port") if name in arguments]
    return load_config(arguments.get("config") or os.environ.get("LMRRG_CONFIG"), given)


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
