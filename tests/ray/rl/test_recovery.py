"""A run that loses a policy rank and then its machine continues from the last state."""

from __future__ import annotations

import os
import signal

import pytest
import ray

from lmrrg.run.tracking import read_metrics
from rl.ppo import run_ppo
from rl.recovery import Preempted
from rl.trainer import CQRL
from tests.support.ppo.settings import ppo_config

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]


def test_a_dead_rank_is_replaced_and_a_preempted_run_continues(
    tiny_config, tiny_checkpoint, tmp_path, monkeypatch
):
    config = ppo_config(tiny_config, tmp_path, iterations=4, checkpoint_every=1)
    accidents = [1, 2]  # iterations done when the rank dies, and when the machine is about to go
    train = CQRL.training_step

    def with_accidents(algorithm: CQRL) -> dict[str, float]:
        if accidents and algorithm.iterations_done == accidents[0]:
            if accidents.pop(0) == 1:
                ray.kill(algorithm.crew.policy._workers[1])
            else:
                os.kill(os.getpid(), signal.SIGTERM)
        return train(algorithm)

    monkeypatch.setattr(CQRL, "training_step", with_accidents)
    with pytest.raises(Preempted, match="after iteration 3"):
        run_ppo(config, tiny_checkpoint)
    lines = read_metrics(config.run_dir, "ppo")
    assert [line["step"] for line in lines] == [0, 1, 2, 3]
    assert [line.get("restarts") for line in lines[1:]] == [0, 1, 1]
    assert lines[2]["recovery_s"] > 0 == lines[1]["recovery_s"] == lines[3]["recovery_s"]
    run_ppo(config, tiny_checkpoint)
    assert [line["step"] for line in read_metrics(config.run_dir, "ppo")] == [0, 1, 2, 3, 4]
    assert (
        len(list((config.run_dir / "ppo" / "state").glob("iteration-*")))
        == config.ppo.keep_checkpoints
    )
