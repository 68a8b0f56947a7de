"""Run vLLM's GPU backends for weights on CPU, as far as a machine without a GPU can.

Real: every process and every call between them, vLLM's trainer and worker ends, its rendezvous and
its packing. Pretended: NCCL's communicator (the store of the rendezvous carries the bytes), CUDA
IPC (a file that both map), streams (whether the one that computes was waited for, and which one the
thread is on).
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch

from actors.policy_worker import PolicyWorker
from actors.rollout import RolloutActor


class _Communicator:
    """NCCL's communicator, over the store that the group met at."""

    def __init__(self, group: Any, device: Any):
        self._group = group
        # As vllm.utils.torch_utils.current_stream does, which the communicator asks for one.
        _STREAMS.current = "vLLM's"

    def broadcast(self, tensor: torch.Tensor, src: int, stream: Any = None) -> None:
        assert self._group.rank != src or not _STREAMS.busy, (
            "the weights are sent before they are computed"
        )
        sent = self._group.broadcast_obj(tensor if self._group.rank == src else None, src)
        tensor.copy_(sent)

    def destroy(self) -> None:
        pass


class _Torch:
    """torch with files in place of CUDA memory."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def empty(*shape: Any, **options: Any) -> torch.Tensor:
        if options.get("device") != "cuda":
            return torch.empty(*shape, **options)
        path = tempfile.mktemp(dir="/dev/shm")
        tensor = torch.from_file(path, shared=True, size=shape[0], dtype=options["dtype"])
        _FILES[tensor.data_ptr()] = path
        return tensor


_FILES: dict[int, str] = {}
_STREAMS = SimpleNamespace(current="default", busy=False)


def _export(tensor: torch.Tensor) -> tuple[None, tuple[Any, ...]]:
    return None, (_FILES[tensor.data_ptr()], len(tensor), 2, 3, 4, 5, "device")


def _rebuild(path: str, size: int, *_: Any) -> torch.Tensor:
    return torch.from_file(path, shared=True, size=size, dtype=torch.uint8)


def _collect() -> None:
    """Delete the files; their readers have mapped them by now."""
    while _FILES:
        os.unlink(_FILES.popitem()[1])


@contextlib.contextmanager
def _on(stream: Any) -> Iterator[None]:
    before = _STREAMS.current
    _STREAMS.current = stream
    yield
    _STREAMS.current = before


def pretend() -> None:
    """Replace the GPU's parts in this process, from now on."""
    from vllm.distributed.device_communicators import pynccl
    from vllm.distributed.weight_transfer import packed_tensor

    stream = SimpleNamespace(synchronize=lambda: None)
    pynccl.PyNcclCommunicator = _Communicator
    packed_tensor._get_streams = lambda device, count: (stream,) * count
    packed_tensor.torch = _Torch()
    packed_tensor.reduce_tensor = _export
    torch.multiprocessing.reductions.rebuild_cuda_tensor = _rebuild
    torch.accelerator.current_device_index = lambda: 0
    torch.accelerator.synchronize = lambda: setattr(_STREAMS, "busy", False)
    torch.cuda.synchronize = lambda: None
    torch.cuda.stream = _on
    torch.cuda.current_stream = lambda: stream
    torch.cuda.get_device_properties = lambda _: SimpleNamespace(uuid="GPU-pretended")
    torch.cuda.ipc_collect = _collect


class PretendingEngine(RolloutActor):
    """An engine that receives."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        pretend()


class PretendingRank(PolicyWorker):
    """A policy rank that sends."""

    def send_decoder(self, *arguments: Any) -> int | None:
        pretend()
        _STREAMS.current = "default"
        _STREAMS.busy = True
        sent = super().send_decoder(*arguments)
        assert _STREAMS.current == "default", (
            "DeepSpeed computes on another stream than it began with"
        )
        return sent
