"""DeepSpeed around the objective."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch.distributed as dist
from torch import nn

from actors.deepspeed_setup import zero_settings
from lmrrg.config.sft import SFTConfig
from sft.objective import parameter_groups


def make_engine(module: nn.Module, config: SFTConfig) -> Any:
    """A DeepSpeed engine with AdamW at the configured ZeRO stage; joins the process group that Ray Train opened."""
    # DeepSpeed reads its accelerator when it is imported, so not before the environment of the rank is known.
    import deepspeed
    from deepspeed.ops import __compatible_ops__

    if not config.gpus_per_worker:
        __compatible_ops__["deepspeed_shm_comm"] = False  # else a C++ build at first use
    backend = "nccl" if config.gpus_per_worker else "gloo"
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
    groups = parameter_groups(module, config.weight_decay)
    engine, *_ = deepspeed.initialize(
        model=module, model_parameters=groups, config=_settings(config)
    )
    return engine


def gathered(module: nn.Module, config: SFTConfig) -> AbstractContextManager[None]:
    """Inside, every parameter is whole on every rank, at ZeRO-3 too."""
    if config.zero_stage < 3:
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(list(module.parameters()), modifier_rank=None)


def _settings(config: SFTConfig) -> dict[str, Any]:
    workers = dist.get_world_size()
    adam = {
        "lr": config.learning_rate,
        "betas": [0.9, 0.98],
        "torch_adam": True,
    }  # torch's: no C++ build
    return {
        "train_batch_size": config.minibatch,
        "train_micro_batch_size_per_gpu": config.microbatch,
        "gradient_accumulation_steps": config.minibatch // (config.microbatch * workers),
        "gradient_clipping": config.gradient_clip,
        "optimizer": {"type": "AdamW", "params": adam},
        "zero_optimization": zero_settings(config.zero_stage),
        "steps_per_print": 10**9,
    }
