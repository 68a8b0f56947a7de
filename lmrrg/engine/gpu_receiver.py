"""Receive the decoder from the policy's GPU, with a checksum of what arrived.

This is the other end of :mod:`actors.weight_sync.gpu_sender`: vLLM's own transfer backends, which
add up checksums here. vLLM imports this module in each of its worker processes, by the name of
:class:`TransferWorker`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from vllm.distributed.weight_transfer import WeightTransferEngineFactory
from vllm.distributed.weight_transfer.ipc_engine import IPCWeightTransferEngine
from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferEngine

from lmrrg.model.checkpoint import add_sums, tensor_sum


class _Checked:
    """Add up the checksums of the tensors on their way into the model."""

    model: Any
    _sums: list[Tensor] | None = None

    def start_weight_update(self) -> None:
        self._sums = []
        super().start_weight_update()  # type: ignore[misc]

    def receive_weights(self, update_info: Any) -> None:
        load = self.model.load_weights

        def checked(weights: Iterable[tuple[str, Tensor]]) -> Any:
            weights = list(weights)
            assert self._sums is not None
            # Added up only in `take_checksum`: vLLM loads on more than one stream.
            self._sums += [tensor_sum(name, tensor) for name, tensor in weights]
            return load(weights)

        self.model.load_weights = checked
        try:
            super().receive_weights(update_info)  # type: ignore[misc]
        finally:
            del self.model.load_weights

    def take_checksum(self) -> int | None:
        """Return the checksum of the update received since the last call; None without one."""
        sums = self._sums
        self._sums = None
        return None if sums is None else add_sums(sums)


class _CheckedNCCL(_Checked, NCCLWeightTransferEngine):
    pass


class _CheckedIPC(_Checked, IPCWeightTransferEngine):
    pass


def backend(name: str) -> str:
    """Return vLLM's name of our checked form of its backend ``nccl`` or ``ipc``."""
    return f"checked_{name}"


WeightTransferEngineFactory.register_engine(backend("nccl"), _CheckedNCCL)
WeightTransferEngineFactory.register_engine(backend("ipc"), _CheckedIPC)


class TransferWorker:
    """The methods that vLLM's worker gains (``worker_extension_cls``)."""

    weight_transfer_engine: Any

    def take_received_checksum(self) -> int | None:
        """Return :meth:`_Checked.take_checksum` of this worker."""
        return self.weight_transfer_engine.take_checksum()
