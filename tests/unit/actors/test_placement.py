"""Test that a cluster that is not there is named at once, with the remedy."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest
from ray.exceptions import AuthenticationError

from actors.placement import PlacementError, connect
from lmrrg.config.cluster import RayConfig


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("form", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}"])
def test_a_dead_address_is_refused_at_once(monkeypatch, form):
    address = form.format(port=free_port())
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("asked Ray"))
    monkeypatch.setenv("RAY_ADDRESS", address)
    started = time.monotonic()
    with pytest.raises(PlacementError) as caught:
        connect(RayConfig())
    assert caught.value.code == "cluster_unreachable"
    assert address in str(caught.value)
    assert "unset RAY_ADDRESS" in str(caught.value)
    assert time.monotonic() - started < 5


def test_what_ray_says_of_a_wrong_address_becomes_the_same_error(monkeypatch):
    def refuse(**_):
        raise ConnectionError("could not find any running Ray instance")

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", refuse)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(PlacementError, match="could not find any running"):
        connect(RayConfig())


@pytest.mark.parametrize("address", [None, "127.0.0.1:1"])
def test_a_token_that_does_not_fit_is_one_sentence(monkeypatch, address):
    def refuse(**_: Any) -> None:
        raise AuthenticationError("long text about tokens")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", refuse)
    monkeypatch.setattr("actors.placement.require_listener", lambda _: None)
    with pytest.raises(PlacementError) as caught:
        connect(RayConfig(address=address))
    assert caught.value.code == "cluster_token"
    assert "RAY_AUTH_TOKEN_PATH" in str(caught.value)
