"""Describe one version of the weights: the message from the driver to the engines."""

from __future__ import annotations

from dataclasses import dataclass

import ray
from ray.exceptions import RayError

from actors.actor_pool import PeerLostError
from actors.weight_sync.host_memory import StoredState


@dataclass(frozen=True)
class SentDecoder:
    """The decoder that was sent from GPU to GPU."""

    checksum: int | None
    """Of what was sent; None when an engine was lost meanwhile."""
    whole: ray.ObjectRef
    """The whole model as a :class:`StoredState`, for an engine that received nothing."""
    whole_checksum: ray.ObjectRef

    def fetch_whole(self) -> tuple[StoredState, str]:
        """Wait for the whole model and its checksum.

        Raises:
            PeerLostError: ``weights_lost``, the policy rank that writes it is gone, or its node.
        """
        try:
            state, checksum = ray.get([self.whole, self.whole_checksum])
        except RayError as error:
            raise PeerLostError(
                "weights_lost", f"the policy cannot give its weights: {type(error).__name__}"
            ) from error
        return state, checksum


@dataclass(frozen=True)
class WeightUpdate:
    """One version of the weights of the whole model."""

    version: int
    """Grows with every update."""
    checksum: str
    """Of ``state``."""
    state: ray.ObjectRef
    """Of a :class:`StoredState`: all weights, or those beside a decoder that was sent."""
    sent: SentDecoder | None = None

    def arguments(self) -> dict[str, object]:
        """Return the keyword arguments of ``RolloutActor.update_weights``."""
        # Not the update as one argument: Ray resolves only references that are arguments, and
        # hands the actor the state itself.
        return {
            "state": self.state,
            "version": self.version,
            "checksum": self.checksum,
            "sent": self.sent,
        }
