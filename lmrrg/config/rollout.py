"""The settings of sampling reports."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from lmrrg.config.base import Settings


class RolloutConfig(Settings):
    """Sampling with vLLM, in PPO, evaluation and serving alike."""

    engines: PositiveInt = Field(1, description="vLLM actors")
    cpus_per_engine: PositiveFloat = Field(1, description="CPUs asked for each engine")
    gpus_per_engine: NonNegativeFloat = Field(0, description="GPUs asked for each engine")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="compute type of the engine"
    )
    kv_cache_mb: PositiveInt = Field(
        192,
        description="size of the KV cache on CPU, and on a GPU of which the engine has a part, MB",
    )
    gpu_memory: float = Field(
        0.8, gt=0, le=1, description="share of its GPUs' memory that an engine fills alone"
    )
    tensor_parallel_size: PositiveInt = Field(
        1, description="GPUs that one engine spreads the decoder over"
    )
    weight_transfer: Literal["memory", "nccl", "ipc"] = Field(
        "memory",
        description="how the decoder's new weights reach the engines: through host memory; or from GPU to GPU with "
        "vLLM's backends, nccl for engines with GPUs of their own, ipc for engines that share a policy rank's GPU",
    )
    max_sequences: PositiveInt = Field(64, description="sequences decoded at once")
    max_new_tokens: PositiveInt = Field(100, description="longest report, tokens with EOS")
    temperature: PositiveFloat = Field(
        1.0, description="sampling temperature; PPO takes 1 alone, at which its log-probs are"
    )
    start_timeout_s: PositiveFloat = Field(
        1200, description="an engine that starts longer is replaced, seconds"
    )
    timeout_s: PositiveFloat = Field(
        300, description="an engine that takes longer is replaced, seconds"
    )
