"""GRPO on the engine's log-probs: the trainer scores few reports, and notices stale weights."""

from __future__ import annotations

import pytest
import ray

from lmrrg.ppo.errors import PPOError
from lmrrg.run.studies import prepare_studies
from rl.trainer import CQRL, CQRLConfig
from tests.support.ppo.settings import ppo_config

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]


def test_old_log_probs_of_the_engine(tiny_config, tiny_checkpoint, tmp_path, monkeypatch):
    config = ppo_config(
        tiny_config,
        tmp_path,
        algorithm="grpo",
        old_log_probs="engine",
        reference_workers=2,
        iterations=4,
        value_warmup_iterations=0,
    )
    # By RadCliQ all reports of an untrained model are worth the same, and nothing would move.
    reward = config.reward.model_copy(update={"function": "tests.support.own.lab:vowels"})
    config = config.model_copy(update={"reward": reward})
    prepare_studies(config, progress=False)
    algorithm = CQRL(CQRLConfig.of(config, tiny_checkpoint))
    asked = []
    score = algorithm.crew.policy.log_probs
    monkeypatch.setattr(
        algorithm.crew.policy, "log_probs", lambda rollout: asked.append(rollout) or score(rollout)
    )
    first, second = (algorithm.train()["cqrl"] for _ in range(2))
    assert [len(ray.get(rollout)) for rollout in asked] == [4, 4]  # of sixteen reports
    for metrics in (first, second):
        assert metrics["parity"] < 1e-4
        assert (
            metrics["first_ratio_error"] < 1e-3
        )  # the old log-probs are of the same weights, computed elsewhere
        assert metrics["update_kl_per_token"] > 0
        assert metrics["entropy"] > 0
    assert abs(first["kl_per_sequence"]) < 1e-3 < abs(second["kl_per_sequence"])
    monkeypatch.setattr(algorithm.crew.rollouts, "load_weights", lambda update: 0.0)
    algorithm.train()
    with pytest.raises(PPOError, match="parity_broken"):
        algorithm.train()
    algorithm.stop()
