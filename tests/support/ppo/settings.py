"""Settings of the PPO cluster tests: the tiny network, two ranks, batches of sixteen reports."""

from __future__ import annotations

from pathlib import Path

from lmrrg.config.tree import Config

TINY_PPO = {
    "studies_per_iteration": 8,
    "samples_per_study": 2,
    "minibatch": 8,
    "microbatch": 4,
    "workers": 2,
    "cpus_per_worker": 0.5,
    "learning_rate": 1e-3,
    "value_warmup_iterations": 1,
    "eval_every": 2,
    "eval_studies": 4,
}


def ppo_config(base: Config, folder: Path, **ppo: object) -> Config:
    """``base`` with the run folder ``folder`` and settings of its ``ppo`` branch."""
    tree = base.model_dump()
    tree["storage_path"] = folder
    tree["ppo"] |= TINY_PPO | ppo
    return Config.model_validate(tree)
