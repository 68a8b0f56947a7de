"""Settings of sampling reports."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from lmrrg.config.base import FREE, Settings


class RolloutConfig(Settings):
    """Sampling with vLLM, in PPO, evaluation and serving."""

    engines: PositiveInt = Field(1, description="vLLM engines", json_schema_extra=FREE)
    cpus_per_engine: PositiveFloat = Field(
        1, description="CPUs reserved for each engine", json_schema_extra=FREE
    )
    gpus_per_engine: NonNegativeFloat = Field(
        0, description="GPUs reserved for each engine", json_schema_extra=FREE
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="number format in which the engine computes"
    )
    kv_cache_mb: PositiveInt = Field(
        192,
        description="size of the KV cache of an engine on CPU, or with a fraction of a GPU, MB",
        json_schema_extra=FREE,
    )
    gpu_memory: float = Field(
        0.8,
        gt=0,
        le=1,
        description="fraction of the GPU memory that an engine uses where it has whole GPUs",
        json_schema_extra=FREE,
    )
    tensor_parallel_size: PositiveInt = Field(
        1, description="GPUs over which one engine splits the decoder", json_schema_extra=FREE
    )
    weight_transfer: Literal["memory", "nccl", "ipc"] = Field(
        "memory",
        description="how new decoder weights reach the engines: through host memory, or from GPU "
        "to GPU with vLLM's backends: nccl (engines with GPUs of their own) or ipc (engines that "
        "share the GPU of a policy rank)",
        json_schema_extra=FREE,
    )
    max_sequences: PositiveInt = Field(64, description="reports that one engine decodes at once")
    max_new_tokens: PositiveInt = Field(
        100, description="longest generated report, tokens with the end token"
    )
    temperature: PositiveFloat = Field(
        1.0,
        description="sampling temperature; PPO requires 1, for which its log-probabilities hold",
    )
    start_timeout_s: PositiveFloat = Field(
        1200,
        description="time after which a starting engine is replaced, seconds",
        json_schema_extra=FREE,
    )
    timeout_s: PositiveFloat = Field(
        300,
        description="time after which an engine that does not answer is replaced, seconds",
        json_schema_extra=FREE,
    )
