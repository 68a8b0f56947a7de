"""Weights on their way from GPU to GPU, through vLLM's own transfer backends (:mod:`lmrrg.engine.gpu_receiver`).

The decoder travels so; the small rest, and whatever an engine needs that was not there, goes through
:mod:`actors.weight_sync.host_memory`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
import torch
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayActorError
from torch import Tensor
from torch.distributed import DistStoreError
from vllm.distributed.weight_transfer import WeightTransferTrainerFactory
from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource
from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo
from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

from lmrrg.config.rollout import RolloutConfig
from lmrrg.engine.vllm_settings import DTYPES
from lmrrg.model.checkpoint import add_sums, tensor_sum

logger = logging.getLogger(__name__)

BUFFER_BYTES = 256 << 20
"""What is sent at once, on either side; more where one tensor is larger."""

_LOSSES = (RayActorError, OutOfMemoryError, GetTimeoutError, DistStoreError)
"""How the loss of an engine shows; the last one when it was to join."""

Weights = Callable[[], Iterator[tuple[str, Tensor]]]
"""Names and tensors, in the same order whenever it is called."""


class WeightSender:
    """One policy rank's end. Every rank takes part; rank 0 leads.

    Args:
        rollout: which backend, the type that the engines compute in, GPUs per engine.
        rank: of the policy.
        weights: the decoder's, on this rank's GPU; called for every transfer.
    """

    def __init__(self, rollout: RolloutConfig, rank: int, weights: Weights):
        self._rollout, self._rank = rollout, rank
        self._source = _DecoderSource(weights, DTYPES[rollout.dtype])
        self._engines: list[ActorHandle] = []
        self._trainer: Any = None
        self._client: _Engines

    def send(self, engines: list[ActorHandle], address: tuple[str, int]) -> int | None:
        """Send the weights to every engine: their checksum; None when an engine was lost.

        NCCL waits for ever for an engine that dies while it receives: the caller has to set a limit.

        Args:
            engines: as before, or others, with which a new group is founded; none that is still starting.
            address: for a new group, of rank 0, with a port where nobody listens yet.
        """
        try:
            if engines != self._engines:
                self._connect(engines, address)
            torch.accelerator.synchronize()  # vLLM reads the weights on streams that wait for no other
            self._trainer.send_weights()
            if self._client.loss:
                raise self._client.loss
        except _LOSSES as error:
            logger.warning("an engine was lost while weights were sent: %s", type(error).__name__)
            self._engines = []
            return None
        return self._source.checksum()

    def _connect(self, engines: list[ActorHandle], address: tuple[str, int]) -> None:
        if self._trainer is not None:
            self._trainer.shutdown()
        per_engine = self._rollout.tensor_parallel_size
        buffer = max(BUFFER_BYTES, self._source.largest())
        if self._rollout.weight_transfer == "nccl":
            size = 1 + len(engines) * per_engine
            info: Any = NCCLTrainerInitInfo(
                *address, size, packed_buffer_size_bytes=buffer, rank=self._rank
            )
        else:
            info = IPCTrainerInitInfo(packed=True, packed_buffer_size_bytes=buffer, rank=self._rank)
        # With IPC every rank waits for every other at each step.
        together = self._rollout.weight_transfer == "ipc"
        self._client = _Engines(engines, per_engine, self._rollout.timeout_s, together=together)
        if self._rank == 0:
            self._client.release()
        # vLLM would leave this thread on another stream, to which torch gives no memory that it keeps for this one.
        with torch.cuda.stream(torch.cuda.current_stream()):
            self._trainer = WeightTransferTrainerFactory.trainer_init(
                info, client=self._client, source=self._source
            )
        self._engines = engines


class _DecoderSource(WeightSource):
    """What is sent, in the type that the engines compute in."""

    def __init__(self, weights: Weights, dtype: torch.dtype):
        self._weights, self._dtype = weights, dtype
        self._sums: list[Tensor] = []
        self._metadata = [ParamMeta(name, dtype, tuple(tensor.shape)) for name, tensor in weights()]

    def metadata(self) -> list[ParamMeta]:
        return self._metadata

    def largest(self) -> int:
        """Bytes of the largest tensor."""
        return max(torch.Size(each.shape).numel() for each in self._metadata) * self._dtype.itemsize

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        self._sums = []
        for name, tensor in self._weights():
            sent = tensor.to(self._dtype)
            self._sums.append(tensor_sum(name, sent))
            yield name, sent

    def checksum(self) -> int:
        """Of the last round, when all of it was sent: vLLM asks for the tensors on more than one stream."""
        return add_sums(self._sums)


class _Engines:
    """The engines as vLLM's trainer wants them (its ``VLLMWeightSyncClient``).

    Args:
        engines: all of them.
        per_engine: GPUs of each.
        timeout: longest time for one step, seconds.
        together: other ranks wait for this one at every step: a loss is only kept in ``loss`` and what follows does
            nothing, while else it is raised too.
    """

    def __init__(
        self, engines: Sequence[ActorHandle], per_engine: int, timeout: float, *, together: bool
    ):
        self._engines, self._per_engine, self._timeout, self._together = (
            list(engines),
            per_engine,
            timeout,
            together,
        )
        self.loss: Exception | None = None

    def release(self) -> None:
        """Let them leave a group that had other members; shows who is gone before a new one is waited for."""
        self._call("shutdown_weight_transfer_engine")

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        requests = [{"init_info": dict(init_info)} for _ in self._engines]
        if "rank_offset" in init_info:
            # vLLM counts the workers of one engine alone; an engine's ranks follow those of the engines before it.
            for place, request in enumerate(requests):
                request["init_info"]["rank_offset"] += place * self._per_engine
        self._call("init_weight_transfer_engine", requests)

    def start_weight_update(self) -> None:
        self._call("start_weight_update")

    def update_weights(self, update_info: Any) -> None:
        self._call("update_weights", [{"update_info": update_info}] * len(self._engines))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._call("finish_weight_update")

    def _call(self, step: str, requests: Sequence[Any] | None = None) -> None:
        if self.loss:
            return
        requests = requests or [None] * len(self._engines)
        calls = [
            engine.transfer.remote(step, request)
            for engine, request in zip(self._engines, requests, strict=True)
        ]
        try:
            ray.get(calls, timeout=self._timeout)
        except _LOSSES as error:
            self.loss = error
            if not self._together:
                raise
