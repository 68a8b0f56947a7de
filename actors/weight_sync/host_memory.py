"""Weights on their way from the trainer to the engines: through memory that both map, or through Ray's object store."""

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
from ray.exceptions import RayError
from torch import Tensor

from actors.actor_pool import PeerLostError
from lmrrg.model.checkpoint import state_checksum

_ALIGNMENT = 64


@dataclass(frozen=True)
class TensorPlace:
    """Where the bytes of a tensor lie in a buffer."""

    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def end(self) -> int:
        """First byte behind it."""
        return self.offset + self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))

    def tensor(self, buffer: Tensor) -> Tensor:
        """The tensor as a view of the buffer (bytes)."""
        return buffer[self.offset : self.end].view(self.dtype).view(self.shape)


@dataclass(frozen=True)
class StoredState:
    """A state of :func:`lmrrg.model.checkpoint.full_state` in one buffer: memory of this node, or bytes [n]."""

    places: dict[str, TensorPlace]
    buffer: str | np.ndarray
    """Name under which the processes of the node find it, or the bytes themselves, as Ray stores them."""

    def tensors(self) -> dict[str, Tensor]:
        """The state as views of the buffer, which must not be written to.

        Raises:
            PeerLostError: the process that wrote it is gone, or on another node.
        """
        try:
            buffer = _mapped(self.buffer) if isinstance(self.buffer, str) else _bytes(self.buffer)
        except OSError as error:
            raise PeerLostError(
                "weights_lost", f"the policy rank that published the weights is gone: {error}"
            ) from error
        return {name: place.tensor(buffer) for name, place in self.places.items()}


class WeightBuffers:
    """Two buffers that take one state after the other, so that the last one stays whole while the next is written.

    They are anonymous memory, which the kernel frees when the last process that maps it ends, however it ends; their
    pages stay in place from one state to the next, while every object of Ray's store would get new ones, at several
    times the cost of the copy (ours).
    """

    def __init__(self) -> None:
        self._files: list[tuple[int, Tensor]] = []
        self._turn = 0

    def write(self, state: Mapping[str, Tensor], *, shared: bool) -> tuple[StoredState, str]:
        """Copy a state into the older buffer; the state and its checksum.

        ``shared``: readers are on this node and get the buffer's name; else they get its bytes.
        """
        places = _layout(state)
        size = max(place.end for place in places.values())
        while len(self._files) < 2:
            self._files.append(_anonymous(size))
        self._turn = 1 - self._turn
        file, buffer = self._files[self._turn]
        copies = {name: place.tensor(buffer) for name, place in places.items()}
        for name, copy in copies.items():
            copy.copy_(state[name])
        name = f"/proc/{os.getpid()}/fd/{file}"
        return StoredState(places, name if shared else buffer.numpy()), state_checksum(copies)


def stored(state: Mapping[str, Tensor]) -> ray.ObjectRef:
    """Put a state into the object store, for :meth:`actors.rollout.RolloutPool.sync`."""
    return ray.put(WeightBuffers().write(state, shared=False)[0])


@dataclass(frozen=True)
class Transferred:
    """What went to the engines another way: the decoder (:meth:`actors.policy.PolicyGroup.transfer`)."""

    checksum: int | None
    """Of what was sent; None when it did not arrive."""
    state: ray.ObjectRef
    """The whole :class:`StoredState`, for an engine that was not there."""
    state_checksum: ray.ObjectRef

    def whole(self) -> tuple[StoredState, str]:
        """The whole state and its checksum.

        Raises:
            PeerLostError: a policy rank is gone before it was written, or the node where it lay.
        """
        try:
            state, checksum = ray.get([self.state, self.state_checksum])
        except RayError as error:
            raise PeerLostError(
                "weights_lost", f"the policy cannot give its weights: {type(error).__name__}"
            ) from error
        return state, checksum


@dataclass(frozen=True)
class WeightVersion:
    """One published state of the whole model.

    ``version`` grows with every update; a receiver refuses an older one, and any state whose tensors do not give
    ``checksum``.
    """

    version: int
    checksum: str
    state: ray.ObjectRef
    """Of a :class:`StoredState`; without decoder where that was transferred."""
    transferred: Transferred | None = None

    def arguments(self) -> dict[str, object]:
        """The keyword arguments of ``update_weights``; Ray hands the receiver the state itself."""
        return {
            "state": self.state,
            "version": self.version,
            "checksum": self.checksum,
            "transferred": self.transferred,
        }


def _layout(state: Mapping[str, Tensor]) -> dict[str, TensorPlace]:
    places, offset = {}, 0
    for name, tensor in state.items():
        places[name] = TensorPlace(offset, tensor.dtype, tuple(tensor.shape))
        offset = -(-places[name].end // _ALIGNMENT) * _ALIGNMENT
    return places


def _anonymous(size: int) -> tuple[int, Tensor]:
    file = os.memfd_create("lmrrg-weights")
    os.ftruncate(file, size)
    return file, _bytes(mmap.mmap(file, size))


@lru_cache(maxsize=2)
def _mapped(name: str) -> Tensor:
    """Kept for the next but one state: it will be in the same pages."""
    with open(name, "rb") as file:
        return _bytes(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))


def _bytes(memory: mmap.mmap | np.ndarray) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return torch.frombuffer(memory, dtype=torch.uint8)
