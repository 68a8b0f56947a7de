"""Test how ranks are set up for DeepSpeed, without starting it."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn

from actors.deepspeed_setup import (
    deepspeed_environment,
    deepspeed_settings,
    gathered,
    set_rendezvous,
    step_optimizer,
)


def test_only_a_rank_on_cpu_names_its_accelerator_and_hides_the_gpus():
    assert deepspeed_environment(2, gpus=1) == {
        "TORCHDYNAMO_DISABLE": "1",
        "OMP_NUM_THREADS": "2",
    }
    on_cpu = deepspeed_environment(2, gpus=0)
    assert on_cpu["DS_ACCELERATOR"] == "cpu"
    assert on_cpu["CUDA_VISIBLE_DEVICES"] == ""


def test_microbatches_and_ranks_make_up_the_minibatch():
    settings = deepspeed_settings(
        workers=4,
        minibatch=64,
        microbatch=8,
        learning_rate=1e-3,
        betas=(0.9, 0.98),
        gradient_clip=1.0,
        zero_stage=2,
    )
    assert settings["gradient_accumulation_steps"] == 2
    assert settings["zero_optimization"]["stage"] == 2
    assert settings["optimizer"]["params"]["torch_adam"], "no C++ build"


def test_the_ranks_meet_at_the_given_address(monkeypatch: pytest.MonkeyPatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "before")
    set_rendezvous(1, 2, ("10.0.0.1", 5000))
    assert os.environ["RANK"] == "1"
    assert os.environ["WORLD_SIZE"] == "2"
    assert os.environ["MASTER_ADDR"] == "10.0.0.1"
    assert os.environ["MASTER_PORT"] == "5000"


class Engine(nn.Linear):
    """A module whose step clears the gradients, as DeepSpeed's does."""

    def step(self) -> None:
        self.zero_grad()

    def get_global_grad_norm(self) -> torch.Tensor:
        return torch.tensor(7.0)


def test_the_norm_is_taken_before_the_step_without_zero_and_from_deepspeed_with_it():
    engine = Engine(2, 1, bias=False)
    engine.weight.grad = torch.tensor([[3.0, 4.0]])
    assert step_optimizer(engine, zero_stage=0) == 5
    assert engine.weight.grad is None, "the step was taken"
    assert step_optimizer(engine, zero_stage=1) == 7


def test_weights_that_are_whole_need_no_deepspeed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "deepspeed", None)
    with gathered(nn.Linear(1, 1), zero_stage=2):
        pass
