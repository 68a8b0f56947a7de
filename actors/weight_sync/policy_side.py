"""Give out the weights of one policy rank: into host memory, or from its GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ray.actor import ActorHandle
from torch import Tensor

from actors.weight_sync.host_memory import StoredState, WeightBuffers
from lmrrg.config.rollout import RolloutConfig
from lmrrg.model.decoder import decoder_weights
from lmrrg.model.generator import ReportGenerator

if TYPE_CHECKING:
    from actors.weight_sync.gpu_sender import WeightSender


class PolicyWeights:
    """The sending end of :class:`actors.weight_sync.sync.WeightSync` in one policy rank.

    The caller holds the weights gathered (ZeRO-3) during every call.

    Args:
        rollout: how the decoder travels.
        rank: of the policy.
        model: the policy; read at every call.
    """

    def __init__(self, rollout: RolloutConfig, rank: int, model: ReportGenerator):
        self._rollout = rollout
        self._rank = rank
        self._model = model
        # Two pairs: the small rest beside a decoder that was sent must not take the place of the
        # whole model, which replaced engines may still read.
        self._whole = WeightBuffers()
        self._rest = WeightBuffers()
        self._sender: WeightSender | None = None

    def write(
        self, state: Mapping[str, Tensor], *, whole: bool, same_node: bool
    ) -> tuple[StoredState, str]:
        """Copy a state into host memory; return where it is, and its checksum.

        Args:
            state: from :func:`lmrrg.model.checkpoint.full_state`.
            whole: whether it holds the decoder.
            same_node: whether all readers are on this node.
        """
        buffers = self._whole if whole else self._rest
        return buffers.write(state, shared=same_node)

    def send_decoder(self, engines: list[ActorHandle], address: tuple[str, int]) -> int | None:
        """Send the decoder from GPU to GPU.

        See :meth:`actors.weight_sync.gpu_sender.WeightSender.send`.
        """
        # Imported late: it needs vLLM, which costs every other run seconds and memory.
        from actors.weight_sync.gpu_sender import WeightSender

        if self._sender is None:
            self._sender = WeightSender(self._rollout, self._rank, self._decoder)
        return self._sender.send(engines, address)

    def _decoder(self) -> Iterator[tuple[str, Tensor]]:
        return decoder_weights(self._model.decoder)
