"""What the gate needs to know, and how the proxies of Ray Serve get it."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lmrrg.config.base import ConfigError
from lmrrg.config.serve import ServeConfig

KEYS_VARIABLE = "LMRRG_API_KEYS"
"""Environment variable with the lines of a key file, beside ``serve.api_keys_file``."""
_KEY_LINE = re.compile(r"([\w.@-]{1,64})\s+(?:sha256:)?([0-9a-f]{64})", re.ASCII)


class GateSettings(BaseModel):
    """The settings of one gate."""

    model_config = ConfigDict(frozen=True)

    serve: ServeConfig
    keys: dict[str, str]
    """SHA-256 of each API key in hexadecimal digits, by the key's name; empty: no login."""

    @staticmethod
    def of(serve: ServeConfig, environment: Mapping[str, str] = os.environ) -> GateSettings:
        """Read the keys and check that a service which others can reach has some.

        Raises:
            ConfigError: unreadable keys, or none although ``serve.host`` is not this machine alone.
        """
        keys = parse_keys(environment.get(KEYS_VARIABLE, ""), KEYS_VARIABLE)
        if serve.api_keys_file is not None:
            keys |= _keys_of(serve.api_keys_file)
        if not keys and not is_loopback(serve.host):
            raise ConfigError(
                f"other machines can reach {serve.host}, so the service needs API keys: "
                "set serve.api_keys_file, or listen on 127.0.0.1"
            )
        return GateSettings(serve=serve, keys=keys)

    @property
    def fingerprint(self) -> str:
        """Return what tells these settings from others, without telling them."""
        # Neither checkpoint nor replicas nor decoders concern the gate, and all may change.
        free = {"checkpoint", "replicas", "decoders", "decoder_timeout_s", "decoder_memory_mb"}
        stated = self.model_dump_json(exclude={"serve": free})
        return hashlib.sha256(stated.encode()).hexdigest()[:16]


def parse_keys(text: str, source: str) -> dict[str, str]:
    """Return the hashes of API keys by name, from lines ``NAME SHA256``; ``#`` begins a comment.

    Raises:
        ConfigError: a line is something else, or a name occurs twice. It quotes no line, because
            somebody may have written the key itself.

    >>> parse_keys("# ward 3\\nward3 " + "0" * 64, "keys")  # doctest: +ELLIPSIS
    {'ward3': '000...'}
    """
    keys: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stated = line.partition("#")[0].strip()
        if not stated:
            continue
        found = _KEY_LINE.fullmatch(stated)
        if found is None or found[1] in keys:
            raise ConfigError(
                f"{source}, line {number}: expected a name, used once, and the SHA-256 of its key "
                "in 64 hexadecimal digits"
            )
        keys[found[1]] = found[2]
    return keys


def _keys_of(path: Path) -> dict[str, str]:
    try:
        keys = parse_keys(path.expanduser().read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"serve.api_keys_file {path} cannot be read") from error
    if not keys:
        raise ConfigError(f"serve.api_keys_file {path} holds no key")
    return keys


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address.

    >>> is_loopback("localhost"), is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
