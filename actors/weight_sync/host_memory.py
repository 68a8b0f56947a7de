"""Carry weights in host memory: mapped by both sides on one node, else in Ray's object store."""

from __future__ import annotations

import mmap
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import ray
import torch
from torch import Tensor

from actors.actor_pool import PeerLostError
from lmrrg.model.checkpoint import state_checksum

_ALIGNMENT = 64
"""Bytes: a cache line, and more than any type of a tensor needs."""


@dataclass(frozen=True)
class TensorSlot:
    """The bytes of one tensor in a buffer."""

    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def end(self) -> int:
        """Return the first byte after it."""
        return self.offset + self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))

    def tensor(self, buffer: Tensor) -> Tensor:
        """Return the tensor as a view of the buffer, uint8 [n]."""
        return buffer[self.offset : self.end].view(self.dtype).view(self.shape)


@dataclass(frozen=True)
class StoredState:
    """A state of :func:`lmrrg.model.checkpoint.full_state` in one buffer."""

    slots: dict[str, TensorSlot]
    buffer: str | np.ndarray
    """A file name that the processes of this node can map, or the bytes themselves, uint8 [n]."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the state as views of the buffer, which must not be written to.

        Raises:
            PeerLostError: ``weights_lost``, the process that wrote it is gone, or elsewhere.
        """
        try:
            buffer = _mapped(self.buffer) if isinstance(self.buffer, str) else _bytes(self.buffer)
        except OSError as error:
            raise PeerLostError(
                "weights_lost", f"the policy rank that published the weights is gone: {error}"
            ) from error
        return {name: slot.tensor(buffer) for name, slot in self.slots.items()}


class WeightBuffers:
    """Two buffers that take turns: a state stays whole while the next one is written.

    They are anonymous memory. The kernel frees it when the last process that maps it ends, however
    it ends. Its pages stay in place from one state to the next; every object in Ray's store would
    get new ones, at several times the cost of the copy (ours).
    """

    def __init__(self) -> None:
        self._files: list[tuple[int, Tensor]] = []
        self._turn = 0

    def write(self, state: Mapping[str, Tensor], *, shared: bool) -> tuple[StoredState, str]:
        """Copy a state into the older buffer; return where it is, and its checksum.

        Valid until the second-next call, since two buffers alternate.

        Args:
            state: names and tensors; always the same names and shapes.
            shared: whether readers are on this node and get the buffer's name; otherwise they get
                its bytes.
        """
        slots = _slots(state)
        size = max(slot.end for slot in slots.values())
        while len(self._files) < 2:
            self._files.append(_anonymous(size))
        self._turn = 1 - self._turn
        file, buffer = self._files[self._turn]
        copies = {name: slot.tensor(buffer) for name, slot in slots.items()}
        for name, copy in copies.items():
            copy.copy_(state[name])
        # Another process opens the memory through this process's table of files.
        path = f"/proc/{os.getpid()}/fd/{file}"
        return StoredState(slots, path if shared else buffer.numpy()), state_checksum(copies)


def stored(state: Mapping[str, Tensor]) -> ray.ObjectRef:
    """Put a state into Ray's object store; return the reference for a ``WeightUpdate``."""
    return ray.put(WeightBuffers().write(state, shared=False)[0])


def _slots(state: Mapping[str, Tensor]) -> dict[str, TensorSlot]:
    slots: dict[str, TensorSlot] = {}
    offset = 0
    for name, tensor in state.items():
        slot = TensorSlot(offset, tensor.dtype, tuple(tensor.shape))
        slots[name] = slot
        offset = -(-slot.end // _ALIGNMENT) * _ALIGNMENT
    return slots


def _anonymous(size: int) -> tuple[int, Tensor]:
    file = os.memfd_create("lmrrg-weights")
    os.ftruncate(file, size)
    return file, _bytes(mmap.mmap(file, size))


@lru_cache(maxsize=2)
def _mapped(name: str) -> Tensor:
    # Cached for both buffers: the second-next state will be in the same pages.
    with open(name, "rb") as file:
        return _bytes(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))


def _bytes(memory: mmap.mmap | np.ndarray) -> Tensor:
    with warnings.catch_warnings():
        # A reader maps the memory read-only, and nothing writes to a state.
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return torch.frombuffer(memory, dtype=torch.uint8)
