"""PPO with matrix products in bfloat16: weights stay float32, policy and reference agree."""

from __future__ import annotations

import pytest
import ray
import torch

from lmrrg.config.tree import Config
from lmrrg.run.studies import prepare_studies
from rl.trainer import CQRL, CQRLConfig
from tests.support.ppo.settings import ppo_config

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]


def test_two_iterations_in_bfloat16(tiny_config, tiny_checkpoint, tmp_path):
    config = ppo_config(
        tiny_config, tmp_path, precision="bf16", zero_stage=2, parity_tolerance=0.1, iterations=2
    )
    rollout = config.rollout.model_copy(update={"dtype": "bfloat16"})
    config = Config.model_validate(config.model_dump() | {"rollout": rollout.model_dump()})
    prepare_studies(config, progress=False)
    algorithm = CQRL(CQRLConfig.of(config, tiny_checkpoint))
    first, second = (algorithm.train()["cqrl"] for _ in range(2))
    state = ray.get(algorithm.crew.policy.state()[0]).tensors()
    algorithm.stop()
    assert {tensor.dtype for tensor in state.values() if tensor.is_floating_point()} == {
        torch.float32
    }
    for metrics in (first, second):
        assert 1e-4 < metrics["parity"] < 0.1, "vLLM and torch round differently, but not much"
        assert metrics["first_ratio_error"] < 0.02
    assert abs(first["kl_per_sequence"]) < 1e-3, "policy and reference round alike"
    assert first["update_kl_per_token"] == pytest.approx(0, abs=1e-3), (
        "the first iteration moves the critic alone"
    )
    assert second["update_kl_per_token"] > 1e-4
