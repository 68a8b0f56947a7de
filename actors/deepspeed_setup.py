"""Start DeepSpeed in a rank of the policy or of supervised fine-tuning, and step its optimizer.

A rank goes through these functions in this order:

1. :func:`deepspeed_environment` gives the variables that its process is started with.
2. :func:`join_process_group` connects it with the other ranks, after :func:`set_rendezvous` where
   nobody has opened the process group yet.
3. :func:`wrap` puts the model and a new optimizer into a DeepSpeed engine.
4. :func:`step_optimizer` ends every minibatch, and :func:`gathered` holds the weights of ZeRO-3
   whole while they are read.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

# DeepSpeed chooses its accelerator when it is imported. Every function imports it late, so that the
# environment of the rank is complete by then and the driver never pays for the import.


def deepspeed_environment(threads: int, gpus: float) -> dict[str, str]:
    """Return the environment variables of a rank's process.

    Args:
        threads: torch threads of the rank.
        gpus: GPUs of the rank; 0 computes on CPU.
    """
    # Inductor would compile C++ at first use, for minutes, on a machine that may have no compiler.
    env = {"TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": str(threads)}
    if gpus:
        return env
    # Without its name DeepSpeed probes for an accelerator. Ray lets a process that asked for no GPU
    # see all GPUs of the node.
    return env | {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}


def set_rendezvous(rank: int, workers: int, master: tuple[str, int]) -> None:
    """Set the variables by which torch finds the ranks of a new process group.

    Args:
        rank: this rank.
        workers: number of ranks.
        master: address and free port on the node of rank 0.
    """
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(workers),
        # Ray shows a rank its own GPUs alone, so its device is always the first one.
        "LOCAL_RANK": "0",
        "MASTER_ADDR": master[0],
        "MASTER_PORT": str(master[1]),
    }


def join_process_group(gpus: float) -> None:
    """Join the process group of all ranks, or use the one that Ray Train has opened.

    Args:
        gpus: GPUs of this rank; with 0 the ranks communicate over gloo, else over NCCL.
    """
    import deepspeed
    from deepspeed.ops import __compatible_ops__

    if not gpus:
        # DeepSpeed would compile this C++ extension for shared memory at first use.
        __compatible_ops__["deepspeed_shm_comm"] = False
    backend = "nccl" if gpus else "gloo"
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)


def wrap(
    module: nn.Module, parameter_groups: list[dict[str, Any]], settings: dict[str, Any]
) -> Any:
    """Return a DeepSpeed engine around ``module`` with a new optimizer.

    Args:
        module: the model with its losses.
        parameter_groups: what the optimizer moves, in torch's form.
        settings: from :func:`deepspeed_settings`.
    """
    import deepspeed

    engine, *_ = deepspeed.initialize(
        model=module, model_parameters=parameter_groups, config=settings
    )
    return engine


def deepspeed_settings(
    *,
    workers: int,
    minibatch: int,
    microbatch: int,
    learning_rate: float,
    betas: tuple[float, float],
    gradient_clip: float,
    zero_stage: int,
) -> dict[str, Any]:
    """Return DeepSpeed's settings for AdamW at a ZeRO stage.

    Args:
        workers: number of ranks.
        minibatch: examples per optimizer step, over all ranks.
        microbatch: examples that one rank runs at once.
        learning_rate: of the first step; both trainers set their own at every step.
        betas: of AdamW.
        gradient_clip: largest gradient norm.
        zero_stage: 0 to 3.
    """
    adam = {
        "lr": learning_rate,
        "betas": list(betas),
        # torch's own AdamW: DeepSpeed's fused one is compiled at first use.
        "torch_adam": True,
    }
    return {
        "train_micro_batch_size_per_gpu": microbatch,
        # DeepSpeed only checks that the numbers fit together. How many microbatches a minibatch has
        # is set at each of them, by `set_gradient_accumulation_boundary`.
        "gradient_accumulation_steps": minibatch // (microbatch * workers),
        "gradient_clipping": gradient_clip,
        "zero_optimization": {
            "stage": zero_stage,
            # DeepSpeed's default, 5e8 elements, takes 2 GB of every GPU whatever the model's size.
            "reduce_bucket_size": 50_000_000,
        },
        "optimizer": {"type": "AdamW", "params": adam},
        "steps_per_print": 1 << 30,  # never
        "wall_clock_breakdown": False,
    }


def step_optimizer(engine: Any, zero_stage: int) -> float:
    """Step the optimizer after the last microbatch of a minibatch.

    Returns:
        The L2 norm of the gradients over all parameters, before clipping.
    """
    if zero_stage > 0:
        engine.step()
        return float(engine.get_global_grad_norm())
    # Without ZeRO in float32 DeepSpeed clips but keeps no norm, and the step clears the gradients.
    norm = _gradient_norm(engine)
    engine.step()
    return norm


def gathered(module: nn.Module, zero_stage: int) -> AbstractContextManager[None]:
    """Hold every parameter whole on every rank inside the block; only ZeRO-3 spreads them."""
    if zero_stage < 3:
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(list(module.parameters()))


def _gradient_norm(module: nn.Module) -> float:
    gradients = [each.grad for each in module.parameters() if each.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients))
