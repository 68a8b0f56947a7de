"""Test the driver of SFT: what it refuses before training, and its command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config
from lmrrg.run.layout import RunLayout
from lmrrg.run.studies import prepare_studies
from sft import train
from sft.errors import SFTError
from sft.fingerprint import check_mark, write_mark
from sft.train import main, plan_run


def test_the_command_refuses_a_wrong_setting_in_one_sentence(capsys: pytest.CaptureFixture[str]):
    assert main(["sft.epoch=3"]) == 2
    error = capsys.readouterr().err
    assert "sft.epoch is not a setting" in error
    assert "Traceback" not in error


def test_a_run_folder_that_cannot_be_made_ends_with_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "file").write_text("")
    assert main([f"storage_path={tmp_path}/file", "name=demo"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"sft: not_writable: {tmp_path}/file/demo cannot be written")
    assert len(error.splitlines()) == 1


@pytest.fixture
def run(tmp_path: Path) -> Config:
    """Return the settings of a run whose phantoms are drawn."""
    overrides = ["train=4", "val=2", "test=2", "image_size=64"]
    config = load_config(
        None,
        [
            f"storage_path={tmp_path}",
            f"data.cache_dir={tmp_path}/cache",
            *(f"data.phantom.{one}" for one in overrides),
        ],
    )
    prepare_studies(config, progress=False)
    return config


def test_a_run_of_other_settings_is_refused_by_their_names(run: Config):
    manifest = RunLayout(run.run_dir).studies
    write_mark(run, "sft", plan_run(run, manifest).fingerprint)
    check_mark(run, "sft", plan_run(run, manifest).fingerprint)
    other = run.model_copy(update={"sft": run.sft.model_copy(update={"learning_rate": 0.5})})
    with pytest.raises(SFTError, match=r"resume_mismatch: .* other values of sft.learning_rate;"):
        check_mark(other, "sft", plan_run(other, manifest).fingerprint)


def test_ranks_get_absolute_paths(run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A rank has a working directory of its own: a relative folder of weights is not there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    monkeypatch.setattr(train, "FeatureFiles", lambda *_, **__: None)
    plan = plan_run(run, RunLayout(run.run_dir).studies)
    decoder = run.model.decoder.model_copy(update={"pretrained": "weights"})
    model = run.model.model_copy(update={"decoder": decoder})
    job = train._job(run.model_copy(update={"model": model}), plan)
    assert job.config.model.decoder.pretrained == str(tmp_path / "weights")


@pytest.mark.parametrize(
    ("override", "code"),
    [
        ("ppo.value_warmup_iterations=40", "no_policy_update"),
        ("rollout.temperature=0.7", "sampling_temperature"),
        ("seed=7", None),
    ],
)
def test_what_ppo_will_refuse_is_said_when_sft_starts(
    override: str, code: str | None, caplog: pytest.LogCaptureFixture
):
    train._warn_of_ppo(load_config(None, [override]))
    assert f"PPO will refuse this: {code}" in caplog.text if code else caplog.text == ""
