"""Test states in host memory: exact, readable by other processes, gone with their owner."""

from __future__ import annotations

from multiprocessing import get_context
from multiprocessing.connection import Connection

import pytest
import torch

from actors.actor_pool import PeerLostError
from actors.weight_sync.host_memory import WeightBuffers, _mapped
from lmrrg.model.checkpoint import state_checksum


def some_state(seed: int) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {
        "matrix": torch.randn(33, 7, generator=random),
        "transposed": torch.randn(5, 9, generator=random).t(),
        "half": torch.randn(11, generator=random).bfloat16(),
        "count": torch.tensor(seed),
        "flags": torch.rand(3, generator=random) > 0.5,
    }


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(
        a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a
    )


@pytest.mark.parametrize("shared", [True, False])
def test_a_state_arrives_bit_for_bit(shared):
    state = some_state(1)
    stored, checksum = WeightBuffers().write(state, shared=shared)
    arrived = stored.tensors()
    assert same(arrived, state)
    assert checksum == state_checksum(arrived) == state_checksum(state)


def test_the_last_state_outlives_the_next_one_but_no_more():
    buffers, states = WeightBuffers(), [some_state(seed) for seed in range(3)]
    (first, checksum), (second, _) = (buffers.write(state, shared=True) for state in states[:2])
    assert same(first.tensors(), states[0])
    assert same(second.tensors(), states[1])
    buffers.write(states[2], shared=True)
    assert same(second.tensors(), states[1])
    assert state_checksum(first.tensors()) != checksum, "a reader two states behind must notice"


def _own_a_state(pipe: Connection) -> None:
    buffers = WeightBuffers()
    pipe.send(buffers.write(some_state(4), shared=True))
    pipe.recv()


def test_another_process_reads_the_memory_until_its_owner_is_gone():
    context = get_context("spawn")
    here, there = context.Pipe()
    owner = context.Process(target=_own_a_state, args=(there,), daemon=True)
    owner.start()
    stored, checksum = here.recv()
    assert isinstance(stored.buffer, str), "a name, no bytes"
    assert state_checksum(stored.tensors()) == checksum
    owner.kill()
    owner.join()
    _mapped.cache_clear()
    with pytest.raises(PeerLostError, match="No such file"):
        stored.tensors()
