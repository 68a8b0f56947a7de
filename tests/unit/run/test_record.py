"""Which SFT model belongs to a run."""

from __future__ import annotations

from pathlib import Path

from lmrrg.run.layout import RunLayout
from lmrrg.run.record import record_ppo_start, sft_of_run


def test_one_sft_model_serves_several_runs(tmp_path: Path):
    own = RunLayout(tmp_path / "first").best("sft")
    own.mkdir(parents=True)
    second = tmp_path / "second"
    assert sft_of_run(second) == RunLayout(second).best("sft"), "before any PPO"
    record_ppo_start(second, own)
    assert sft_of_run(second) == own


def test_a_run_that_was_moved_takes_its_own_model_along(tmp_path: Path):
    record_ppo_start(tmp_path / "run", tmp_path / "elsewhere" / "sft" / "best")
    assert sft_of_run(tmp_path / "run") == RunLayout(tmp_path / "run").best("sft")
