"""Start vLLM on this machine: environment, memory, weight transfer."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch

from lmrrg.config.rollout import RolloutConfig
from lmrrg.engine.interfaces import EngineError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

CPU_BLOCK = 32
"""Tokens in a block of the KV cache on CPU."""

PREFILL_TOKENS = 4096
"""Fewest prompt tokens that the decoder computes at once."""


def engine_environment(threads: int, *, gpu: bool) -> dict[str, str]:
    """Return the environment variables of a process with an engine, to be set before vLLM's import.

    Args:
        threads: torch threads.
        gpu: whether that process gets a GPU, which the process that asks cannot see.
    """
    env = {
        # The engine runs in this process, where its weights can be replaced.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # vLLM's set-up of logging closes every handler of the process: Ray Serve's log files would
        # end there.
        "VLLM_CONFIGURE_LOGGING": "0",
        # Its start alone logs twenty warnings about tuning.
        "VLLM_LOGGING_LEVEL": "ERROR",
        # Otherwise every engine of a machine binds itself to core 0.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(threads),
    }
    # On CPU torch would compile C++ kernels at first use.
    return env if gpu else {**env, "TORCHDYNAMO_DISABLE": "1"}


def start_vllm(decoder: Path, rollout: RolloutConfig, max_length: int, seed: int) -> Any:
    """Start vLLM on a decoder directory.

    Args:
        decoder: a Hugging Face model directory.
        rollout: type, memory, GPUs, sequences at once, weight transfer.
        max_length: longest prompt plus report, tokens.
        seed: of the engine.
    """
    from vllm import LLM

    logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"])
    return LLM(
        model=str(decoder),
        dtype=rollout.dtype,
        enforce_eager=True,
        enable_prompt_embeds=True,
        tensor_parallel_size=rollout.tensor_parallel_size,
        # Not Ray's executor, which vLLM would choose inside an actor: it wants bundles of its own.
        distributed_executor_backend="uni" if rollout.tensor_parallel_size == 1 else "mp",
        max_num_seqs=rollout.max_sequences,
        max_model_len=max_length,
        # On CPU a request with a seed fails when its prompt is computed in parts, so prompts are
        # never split.
        enable_chunked_prefill=False,
        max_num_batched_tokens=max(max_length, PREFILL_TOKENS),
        logprobs_mode="raw_logprobs",
        use_tqdm_on_load=False,
        seed=seed,
        **_memory(rollout),
        **_transfer(rollout),
    )


def _memory(rollout: RolloutConfig) -> dict[str, Any]:
    """Return vLLM's settings of the memory that an engine takes beside its weights."""
    fixed = {"kv_cache_memory_bytes": rollout.kv_cache_mb << 20}
    if not torch.cuda.is_available():
        # Without a fixed size vLLM takes most of the machine's memory. Blocks of 128 tokens, its
        # default on CPU, would stay mostly empty with prompts and reports of our lengths.
        return {**fixed, "block_size": CPU_BLOCK}
    if rollout.gpus_per_engine < 1:
        # vLLM finds a size by measuring, which fails while others on the GPU take and free memory.
        # The fraction is only what must be free when it starts.
        return {**fixed, "gpu_memory_utilization": 0.01}
    return {"gpu_memory_utilization": rollout.gpu_memory}


def _transfer(rollout: RolloutConfig) -> dict[str, Any]:
    """Return vLLM's settings of the way in which new weights come."""
    if rollout.weight_transfer == "memory":
        return {}
    from vllm.config import WeightTransferConfig

    from lmrrg.engine.gpu_receiver import TransferWorker, backend

    return {
        "weight_transfer_config": WeightTransferConfig(backend=backend(rollout.weight_transfer)),
        "worker_extension_cls": f"{TransferWorker.__module__}.{TransferWorker.__qualname__}",
    }


def require_device() -> None:
    """Fail fast when vLLM has no device to run on.

    Raises:
        EngineError: ``no_gpu``, vLLM is built for GPUs and this process sees none.
    """
    from vllm.platforms import current_platform

    if current_platform.is_unspecified():
        raise EngineError(
            "no_gpu",
            "vLLM is built for GPUs and this process has none: set rollout.gpus_per_engine, or "
            "take one of configs/layouts; for a machine without GPUs run scripts/setup.sh cpu",
        )
