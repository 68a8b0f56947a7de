"""Test the order of a weight sync on the driver, and what an engine does with an update."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from actors.weight_sync.engine_side import load_update
from actors.weight_sync.sync import WeightSync
from actors.weight_sync.update import WeightUpdate
from lmrrg.engine.interfaces import EngineError


class Actors:
    """A policy and a pool of engines that only note their calls."""

    def __init__(self, *, gpu: bool, sent: int | None = 5):
        self.uses_gpu_transfer = gpu
        self.calls: list[tuple[Any, ...]] = []
        self.sent = sent
        self.update: WeightUpdate | None = None

    def state(self, policy_fraction: float = 1.0, *, decoder: bool = True) -> tuple[str, str]:
        self.calls.append(("state", policy_fraction, decoder))
        return "state", "checksum"

    def begin_state(self) -> tuple[str, str]:
        self.calls.append(("begin_state",))
        return "whole", "whole checksum"

    def send_decoder(self, engines: list[str]) -> int | None:
        self.calls.append(("send_decoder", *engines))
        return self.sent

    def start(self) -> None:
        self.calls.append(("start",))

    def actors(self) -> list[str]:
        return ["engine"]

    def renew(self, reason: str) -> None:
        self.calls.append(("renew",))

    def load_weights(self, update: WeightUpdate) -> float:
        self.update = update
        return 0.5


def synced(actors: Actors, fraction: float = 1.0) -> Actors:
    assert WeightSync(actors, actors).sync(3, fraction) == 0.5  # type: ignore[arg-type]
    assert actors.update is not None
    assert (actors.update.version, actors.update.checksum) == (3, "checksum")
    return actors


@pytest.mark.parametrize(("gpu", "fraction"), [(False, 1.0), (False, 0.25), (True, 0.25)])
def test_host_memory_takes_the_whole_state_and_every_mixture(gpu: bool, fraction: float):
    actors = synced(Actors(gpu=gpu), fraction)
    assert actors.calls == [("state", fraction, True)]
    assert actors.update.sent is None


def test_a_gpu_transfer_waits_for_starting_engines_and_sends_the_rest_after_the_decoder():
    actors = synced(Actors(gpu=True))
    assert actors.calls == [
        ("start",),
        ("send_decoder", "engine"),
        ("state", 1.0, False),
        ("begin_state",),
    ]
    assert actors.update.sent.checksum == 5
    assert actors.update.sent.whole == "whole"


def test_all_engines_are_replaced_when_one_was_lost_during_the_transfer():
    actors = synced(Actors(gpu=True, sent=None))
    assert ("renew",) in actors.calls
    assert actors.calls.index(("renew",)) < actors.calls.index(("state", 1.0, False))


class Engine:
    """An engine at version 1 that notes what it loads."""

    version = 1

    def __init__(self, received: int | None = None):
        self._received = received
        self.loaded: list[tuple[Any, ...]] = []

    def received(self) -> int | None:
        return self._received

    def update_weights(self, *arguments: Any, **named: Any) -> None:
        self.loaded.append((*arguments, named))


STATE = SimpleNamespace(tensors=lambda: "rest")
SENT = SimpleNamespace(
    checksum=5,
    fetch_whole=lambda: (SimpleNamespace(tensors=lambda: "whole"), "whole checksum"),
)


def test_an_engine_does_not_load_its_own_version_again():
    engine = Engine()
    load_update(engine, STATE, 1, "checksum")  # type: ignore[arg-type]
    assert engine.loaded == []


def test_an_engine_loads_what_came_through_host_memory():
    engine = Engine()
    load_update(engine, STATE, 2, "checksum")  # type: ignore[arg-type]
    assert engine.loaded == [("rest", 2, "checksum", {})]


def test_an_engine_that_received_the_decoder_loads_the_rest():
    engine = Engine(received=5)
    load_update(engine, STATE, 2, "checksum", SENT)  # type: ignore[arg-type]
    assert engine.loaded == [("rest", 2, "checksum", {"decoder_received": True})]


def test_an_engine_that_received_nothing_loads_the_whole_model():
    engine = Engine(received=None)
    load_update(engine, STATE, 2, "checksum", SENT)  # type: ignore[arg-type]
    assert engine.loaded == [("whole", 2, "whole checksum", {})]


def test_an_engine_refuses_a_decoder_that_was_damaged_on_its_way():
    engine = Engine(received=4)
    with pytest.raises(EngineError, match="checksum: the decoder of version 2 was damaged"):
        load_update(engine, STATE, 2, "checksum", SENT)  # type: ignore[arg-type]
    assert engine.loaded == []
