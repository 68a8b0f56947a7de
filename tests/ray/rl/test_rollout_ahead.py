"""Reports sampled one iteration ahead: the lag is bounded, a resumed run has the same reports."""

from __future__ import annotations

import pytest

from lmrrg.ppo.errors import PPOError
from lmrrg.run.studies import prepare_studies
from rl.trainer import CQRL, CQRLConfig
from tests.support.ppo.settings import ppo_config

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]


def test_one_iteration_ahead(tiny_config, tiny_checkpoint, tmp_path):
    config = ppo_config(
        tiny_config, tmp_path, iterations=4, value_warmup_iterations=0, rollout_ahead=True
    )
    prepare_studies(config, progress=False)
    algorithm = CQRL(CQRLConfig.of(config, tiny_checkpoint))
    straight = [algorithm.train()["cqrl"] for _ in range(3)]
    algorithm.save_checkpoint(str(tmp_path / "state"))
    straight.append(algorithm.train()["cqrl"])
    assert [metrics["rollout_lag"] for metrics in straight] == [0, 1, 1, 1]
    assert [metrics["weights_version"] for metrics in straight] == [0, 1, 2, 3]
    assert all(
        metrics["parity"] < 1e-4 and metrics["first_ratio_error"] <= 1e-4 for metrics in straight
    )
    assert straight[0]["importance_weight"] == pytest.approx(1, abs=1e-4)
    assert abs(straight[3]["importance_weight"] - 1) > 1e-4  # of older weights, and corrected for
    with pytest.raises(PPOError) as refused:
        algorithm.load_checkpoint(str(tmp_path / "state"))
    assert refused.value.code == "trained_further"
    algorithm.stop()
    resumed = CQRL(CQRLConfig.of(config, tiny_checkpoint))
    resumed.load_checkpoint(str(tmp_path / "state"))
    again = resumed.train()["cqrl"]
    resumed.stop()
    for name in straight[3].keys() - {key for key in again if key.endswith("_s")}:
        assert again[name] == pytest.approx(straight[3][name], rel=1e-5, abs=1e-6, nan_ok=True), (
            name
        )
