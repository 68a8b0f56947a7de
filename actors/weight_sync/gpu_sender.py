"""Send the decoder from GPU to GPU, through vLLM's own transfer backends.

:mod:`lmrrg.engine.gpu_receiver` is the other end.
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
"""Size of the buffer on either side; larger where one tensor is larger."""

_LOSSES = (RayActorError, OutOfMemoryError, GetTimeoutError, DistStoreError)
"""How the loss of an engine shows; the last one while it should join the group."""

Weights = Callable[[], Iterator[tuple[str, Tensor]]]
"""Return names and tensors, in the same order at every call."""


class WeightSender:
    """The sending end in one policy rank. Every rank takes part; rank 0 leads.

    Args:
        rollout: backend, type that the engines compute in, GPUs per engine.
        rank: of the policy.
        weights: the decoder's, on this rank's GPU; called for every transfer.
    """

    def __init__(self, rollout: RolloutConfig, rank: int, weights: Weights):
        self._rollout = rollout
        self._rank = rank
        self._source = _DecoderSource(weights, DTYPES[rollout.dtype])
        self._engines: list[ActorHandle] = []
        self._trainer: Any = None
        self._client: _EngineClient

    def send(self, engines: list[ActorHandle], address: tuple[str, int]) -> int | None:
        """Send the weights to every engine; return their checksum, None when an engine was lost.

        NCCL waits for ever for an engine that dies while it receives: the caller must set a limit.

        Args:
            engines: those of the last call, or others, with which a new group is founded; none may
                still be starting.
            address: of rank 0, with a port where nobody listens yet, for a new group.
        """
        try:
            if engines != self._engines:
                self._connect(engines, address)
            # vLLM reads the weights on streams that wait for no other.
            torch.accelerator.synchronize()
            self._trainer.send_weights()
            if self._client.loss:
                raise self._client.loss
        except _LOSSES as error:
            logger.warning("an engine was lost while weights were sent: %s", type(error).__name__)
            self._engines = []
            return None
        return self._source.checksum()

    def _connect(self, engines: list[ActorHandle], address: tuple[str, int]) -> None:
        """Found a new group with these engines."""
        if self._trainer is not None:
            self._trainer.shutdown()
        # With IPC every rank waits for every other at each step.
        ranks_wait = self._rollout.weight_transfer == "ipc"
        self._client = _EngineClient(
            engines,
            self._rollout.tensor_parallel_size,
            self._rollout.timeout_s,
            keep_loss=ranks_wait,
        )
        if self._rank == 0:
            self._client.release()
        # vLLM would leave this thread on another stream, to which torch gives no memory that it
        # keeps for this one.
        with torch.cuda.stream(torch.cuda.current_stream()):
            self._trainer = WeightTransferTrainerFactory.trainer_init(
                self._group_info(len(engines), address), client=self._client, source=self._source
            )
        self._engines = engines

    def _group_info(self, engines: int, address: tuple[str, int]) -> Any:
        buffer = max(BUFFER_BYTES, self._source.largest())
        if self._rollout.weight_transfer == "ipc":
            return IPCTrainerInitInfo(packed=True, packed_buffer_size_bytes=buffer, rank=self._rank)
        # Of the policy only rank 0 is in NCCL's group; every GPU of every engine is.
        size = 1 + engines * self._rollout.tensor_parallel_size
        return NCCLTrainerInitInfo(*address, size, packed_buffer_size_bytes=buffer, rank=self._rank)


class _DecoderSource(WeightSource):
    """Give vLLM the decoder's tensors in the type that the engines compute in."""

    def __init__(self, weights: Weights, dtype: torch.dtype):
        self._weights = weights
        self._dtype = dtype
        self._sums: list[Tensor] = []
        self._metadata = [ParamMeta(name, dtype, tuple(tensor.shape)) for name, tensor in weights()]

    def metadata(self) -> list[ParamMeta]:
        return self._metadata

    def largest(self) -> int:
        """Return the bytes of the largest tensor."""
        elements = max(torch.Size(each.shape).numel() for each in self._metadata)
        return elements * self._dtype.itemsize

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        self._sums = []
        for name, tensor in self._weights():
            sent = tensor.to(self._dtype)
            self._sums.append(tensor_sum(name, sent))
            yield name, sent

    def checksum(self) -> int:
        """Return the checksum of what was sent last."""
        # Only now, when everything is sent: vLLM takes the tensors on more than one stream.
        return add_sums(self._sums)


class _EngineClient:
    """The engines in the form that vLLM's trainer calls (its ``VLLMWeightSyncClient``).

    Args:
        engines: all of them.
        gpus_per_engine: GPUs of each.
        timeout: longest time for one step, seconds.
        keep_loss: whether the other ranks wait for this one at every step. Then the loss of an
            engine is kept in ``loss`` and the remaining steps do nothing, so that the ranks stay in
            step; otherwise it is raised at once.
    """

    def __init__(
        self,
        engines: Sequence[ActorHandle],
        gpus_per_engine: int,
        timeout: float,
        *,
        keep_loss: bool,
    ):
        self._engines = list(engines)
        self._gpus_per_engine = gpus_per_engine
        self._timeout = timeout
        self._keep_loss = keep_loss
        self.loss: Exception | None = None

    def release(self) -> None:
        """Let the engines leave a group that had other members.

        This also finds a lost engine before a new group waits for it to join.
        """
        self._call("shutdown_weight_transfer_engine")

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        requests = [{"init_info": dict(init_info)} for _ in self._engines]
        if "rank_offset" in init_info:
            # vLLM counts the workers of one engine; an engine's ranks follow those before it.
            for number, request in enumerate(requests):
                request["init_info"]["rank_offset"] += number * self._gpus_per_engine
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
            if not self._keep_loss:
                raise
