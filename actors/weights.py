"""Weights on their way from the trainer to the engines: put once in the object store, versioned and checksummed."""

from __future__ import annotations

from dataclasses import dataclass

import ray
import torch

from lmrrg.model.checkpoint import state_checksum


@dataclass(frozen=True)
class WeightVersion:
    """One published state of the whole model.

    Every receiver reads the same object, which Ray moves to each node once. ``version`` grows with every update; a
    receiver refuses an older one, and any state whose tensors do not give ``checksum``.
    """

    version: int
    checksum: str
    state: ray.ObjectRef

    @classmethod
    def publish(cls, state: dict[str, torch.Tensor], version: int, checksum: str | None = None) -> WeightVersion:
        """Put a state of :func:`lmrrg.model.checkpoint.full_state` into the object store.

        ``checksum`` is the state's checksum where the caller has it already; else it is computed here.
        """
        return cls(version, checksum or state_checksum(state), ray.put(state))

    def arguments(self) -> dict[str, object]:
        """The keyword arguments of ``update_weights``; Ray hands the receiver the state itself."""
        return {"state": self.state, "version": self.version, "checksum": self.checksum}
