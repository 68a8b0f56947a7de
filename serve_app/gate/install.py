"""Start Ray Serve with the gate in its proxies."""

from __future__ import annotations

import http.client
import os

from ray import serve
from ray.serve.context import _get_global_client
from starlette.middleware import Middleware

from actors.placement import connect
from lmrrg.config.base import ConfigError
from lmrrg.config.cluster import RayConfig
from serve_app.gate.middleware import GATE_HEADER, PROXY_HEALTH, Gate
from serve_app.gate.settings import GateSettings, is_loopback

_CALLBACK_VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"  # Ray Serve's own name
_SETTINGS_VARIABLE = "LMRRG_GATE"
_ASK_S = 10


def start_serve(cluster: RayConfig, settings: GateSettings) -> bool:
    """Start Ray and Ray Serve, unless they run; return whether the proxies have this very gate.

    They have it when they were started here. In proxies that somebody else started there is none,
    and the replicas need it.

    Raises:
        PlacementError: Ray cannot be joined or started.
        ConfigError: the proxies have a gate with other settings, or can be reached by others while
            there are no keys.
    """
    connect(cluster)
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is not None:
        host, port = client.http_config.host or "", client.http_config.port
        GateSettings.of(settings.serve.model_copy(update={"host": host}))
        return _is_in_proxies(host, port, settings)
    serve.start(
        http_options={
            "host": settings.serve.host,
            "port": settings.serve.port,
            "request_timeout_s": settings.serve.request_timeout_s,
        },
        controller_options={"runtime_env": {"env_vars": _environment(settings)}},
    )
    return True


def middlewares() -> list[Middleware]:
    """Return the gate; each proxy calls this once, at its start."""
    stated = os.environ[_SETTINGS_VARIABLE]
    return [Middleware(Gate, settings=GateSettings.model_validate_json(stated))]


def _environment(settings: GateSettings) -> dict[str, str]:
    """Return the environment variables of a Serve controller, which its proxies inherit."""
    return {
        _CALLBACK_VARIABLE: f"{middlewares.__module__}:{middlewares.__name__}",
        _SETTINGS_VARIABLE: settings.model_dump_json(),
        # Ray Serve gives a proxy 15 seconds to start, which a busy machine does not make.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
    }


def _is_in_proxies(host: str, port: int, settings: GateSettings) -> bool:
    """Ask the proxy of this machine whether it has a gate.

    Raises:
        ConfigError: it has one with other settings, or does not answer.
    """
    # 0.0.0.0 and the like stand for all addresses of the machine.
    connection = http.client.HTTPConnection(
        host if is_loopback(host) else "localhost", port, timeout=_ASK_S
    )
    try:
        connection.request("GET", PROXY_HEALTH)
        found = connection.getresponse().getheader(GATE_HEADER)
    except OSError as error:
        raise ConfigError(
            f"Ray Serve runs in this cluster, but its proxy does not answer at port {port}: "
            "run `serve shutdown` and start the service again"
        ) from error
    finally:
        connection.close()
    if found not in (None, settings.fingerprint):
        raise ConfigError(
            "the proxies of this cluster run with other serve.* settings or API keys: "
            "run `serve shutdown` and start the service again"
        )
    return found is not None
