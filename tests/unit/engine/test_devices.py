"""Test what an engine asks of its machine, with and without a GPU."""

from __future__ import annotations

import pytest
import torch
import vllm.platforms
from vllm.platforms.interface import UnspecifiedPlatform

from lmrrg.config.tree import Config
from lmrrg.engine.interfaces import EngineError
from lmrrg.engine.vllm_settings import _memory, require_device


@pytest.mark.parametrize(
    ("has_gpu", "gpus", "expected"),
    [
        (False, 0, {"kv_cache_memory_bytes": 64 << 20, "block_size": 32}),
        (True, 0.3, {"kv_cache_memory_bytes": 64 << 20, "gpu_memory_utilization": 0.01}),
        (True, 1, {"gpu_memory_utilization": 0.7}),
    ],
)
def test_an_engine_measures_memory_only_where_nobody_else_takes_any(
    monkeypatch, has_gpu, gpus, expected
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    settings = {"kv_cache_mb": 64, "gpu_memory": 0.7, "gpus_per_engine": gpus}
    assert _memory(Config.model_validate({"rollout": settings}).rollout) == expected


def test_a_gpu_build_without_a_gpu_says_what_to_set(monkeypatch):
    require_device()
    monkeypatch.setattr(vllm.platforms, "_current_platform", UnspecifiedPlatform())
    with pytest.raises(EngineError, match=r"no_gpu: .*rollout\.gpus_per_engine"):
        require_device()


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [
        ({}, 1e-3),
        ({"rollout": {"gpus_per_engine": 0.3}}, 1e-2),
        ({"rollout": {"gpus_per_engine": 1, "dtype": "bfloat16"}}, 0.2),
        ({"rollout": {"dtype": "bfloat16"}, "ppo": {"parity_tolerance": 0.05}}, 0.05),
    ],
)
def test_parity_is_asked_for_as_closely_as_the_engine_computes(settings, tolerance):
    assert Config.model_validate(settings).parity_tolerance == tolerance
