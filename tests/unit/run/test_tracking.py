"""Metrics files survive a resume, hold numbers only, and a run's record says what was run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import wandb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config, TrackingConfig
from lmrrg.manifest import manifest_hash
from lmrrg.run.errors import TrackingError
from lmrrg.run.layout import RunLayout
from lmrrg.run.record import record_run
from lmrrg.run.tracking import RunTracker, read_metrics, require_wandb_key


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(name="toy", storage_path=tmp_path, tracking=TrackingConfig(wandb_mode="disabled"))


def test_every_line_is_on_disk_before_the_next_step(config: Config) -> None:
    with RunTracker(config.run_dir, "ppo", config) as tracker:
        tracker.log(0, {"reward": 0.5, "kl": np.float32(0.25)})
        assert len(RunLayout(config.run_dir).metrics("ppo").read_text().splitlines()) == 1
        tracker.log(1, {"reward": torch.tensor(1.5)})
    assert read_metrics(config.run_dir, "ppo") == [
        {"step": 0, "reward": 0.5, "kl": 0.25},
        {"step": 1, "reward": 1.5},
    ]


@settings(
    max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(first=st.integers(1, 12), checkpoint=st.integers(0, 12), second=st.integers(1, 12))
def test_resume_leaves_each_step_once_and_from_the_newer_process(
    config: Config, first: int, checkpoint: int, second: int
) -> None:
    RunLayout(config.run_dir).metrics("sft").unlink(missing_ok=True)
    resume_at = min(checkpoint, first)
    for process, steps in enumerate([range(first), range(resume_at, resume_at + second)]):
        with RunTracker(config.run_dir, "sft", config) as tracker:
            for step in steps:
                tracker.log(step, {"process": process})
    lines = read_metrics(config.run_dir, "sft")
    assert [line["step"] for line in lines] == list(range(resume_at + second))
    assert [line["process"] for line in lines] == [0] * resume_at + [1] * second


def test_one_step_may_be_logged_in_two_parts_but_never_goes_back(config: Config) -> None:
    with RunTracker(config.run_dir, "sft", config) as tracker:
        tracker.log(3, {"loss": 1.0})
        tracker.log(3, {"val_loss": 2.0})
        with pytest.raises(TrackingError) as caught:
            tracker.log(2, {"loss": 1.0})
    assert caught.value.code == "step_order"
    assert len(read_metrics(config.run_dir, "sft")) == 2


def test_not_finite_values_stay_valid_json_and_come_back_as_nan(config: Config) -> None:
    with RunTracker(config.run_dir, "ppo", config) as tracker:
        tracker.log(0, {"auc": math.nan, "ratio": math.inf})
    line = RunLayout(config.run_dir).metrics("ppo").read_text()
    record = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert record["auc"] is None
    assert all(
        math.isnan(value)
        for key, value in read_metrics(config.run_dir, "ppo")[0].items()
        if key != "step"
    )


@pytest.mark.parametrize(
    "metrics", [{"report": "lungs are clear"}, {"n": "3"}, {"step": 1.0}, {"x": [1.0]}]
)
def test_text_and_reserved_names_are_refused_and_nothing_is_written(
    config: Config, metrics: dict
) -> None:
    with (
        RunTracker(config.run_dir, "ppo", config) as tracker,
        pytest.raises(TrackingError) as caught,
    ):
        tracker.log(0, metrics)
    assert caught.value.code == "bad_metric"
    assert read_metrics(config.run_dir, "ppo") == []


def test_a_torn_last_line_is_dropped_and_a_damaged_line_is_an_error(config: Config) -> None:
    path = RunLayout(config.run_dir).metrics("ppo")
    path.parent.mkdir(parents=True)
    path.write_text('{"step": 0, "a": 1.0}\n{"step": 1, "a"')
    assert read_metrics(config.run_dir, "ppo") == [{"step": 0, "a": 1.0}]
    with RunTracker(config.run_dir, "ppo", config) as tracker:
        tracker.log(1, {"a": 2.0})
    assert [line["a"] for line in read_metrics(config.run_dir, "ppo")] == [1.0, 2.0]
    path.write_text('{"step": 0\n{"step": 1}\n')
    with pytest.raises(TrackingError, match="metrics_line"):
        read_metrics(config.run_dir, "ppo")


def test_offline_wandb_writes_a_run_folder_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nothing answers there
    monkeypatch.delenv("WANDB_MODE", raising=False)
    config = Config(name="toy", storage_path=tmp_path)
    with RunTracker(config.run_dir, "ppo", config) as tracker:
        tracker.log(0, {"reward": 0.5})
    assert list(config.run_dir.glob("wandb/offline-run-*/*.wandb"))
    assert read_metrics(config.run_dir, "ppo")[0]["reward"] == 0.5


class _Unreachable:
    """A W&B run whose service has gone."""

    def __init__(self, error: Exception):
        self.error = error

    def log(self, *args: object, **kwargs: object) -> None:
        raise self.error

    finish = log


@pytest.mark.parametrize("error", [wandb.errors.CommError("gone"), BrokenPipeError("gone")])
def test_a_lost_tracking_service_does_not_stop_the_run(
    config: Config, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = RunTracker(config.run_dir, "ppo", config)
    tracker._wandb = _Unreachable(error)
    tracker.log(0, {"reward": 0.5})
    tracker.log(1, {"reward": 0.6})
    tracker.finish()
    assert caplog.text.count("out of reach") == 1
    assert [line["reward"] for line in read_metrics(config.run_dir, "ppo")] == [0.5, 0.6]


def test_other_wandb_errors_are_raised(config: Config) -> None:
    tracker = RunTracker(config.run_dir, "ppo", config)
    tracker._wandb = _Unreachable(wandb.errors.UsageError("wrong use"))
    with pytest.raises(wandb.errors.UsageError):
        tracker.log(0, {"reward": 0.5})


def test_record_run_says_what_was_run_and_keeps_the_commands(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = tmp_path / "studies.jsonl"
    manifest.write_text('{"id": "a"}\n')
    first = json.loads(record_run(config, manifest).read_text())
    monkeypatch.chdir(tmp_path)
    relative = config.model_copy(update={"storage_path": Path(".")})
    again = json.loads(record_run(relative, manifest).read_text())
    monkeypatch.setattr("lmrrg.run.record._PROCESS_STARTED", "2030-01-01T00:00:00+00:00")
    second = json.loads(record_run(config, manifest).read_text())
    record_run(config, manifest)
    assert load_config(config.run_dir / "config.yaml") == config
    assert first["data_sha256"] == manifest_hash(manifest)
    assert first["seed"] == config.seed
    assert first["packages"]["numpy"] == np.__version__
    assert "pytest" in first["command"]
    assert again["history"] == first["history"]
    assert second["history"][0] == first["history"][0]
    assert len(second["history"]) == 2
    (config.run_dir / "run.json").write_text("{")
    with pytest.raises(TrackingError, match="run_record"):
        record_run(config, manifest)


@pytest.mark.parametrize(("mode", "is_refused"), [("online", True), ("offline", False)])
def test_online_tracking_without_a_key_is_refused_before_any_work(
    tmp_path, monkeypatch, mode, is_refused
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    tracking = TrackingConfig(wandb_mode=mode)
    if not is_refused:
        require_wandb_key(tracking)
        return
    with pytest.raises(TrackingError, match="wandb_mode=offline") as caught:
        require_wandb_key(tracking)
    assert caught.value.code == "wandb_key"
