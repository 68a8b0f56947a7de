"""A lab's own reward, metric and encoder, named as ``module:function`` in the settings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click import ClickException

from lmrrg.cli.main import main
from lmrrg.config.base import ConfigError
from lmrrg.config.loading import load_config
from lmrrg.config.model import ImageEncoderConfig
from lmrrg.config.reward import RewardConfig
from lmrrg.config.tree import Config
from lmrrg.errors import CodedError
from lmrrg.manifest import write_studies
from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.reward import RadCliQReward
from lmrrg.model.checkpoint import (
    CheckpointError,
    checkpoint_encoder,
    load_checkpoint,
    save_checkpoint,
)
from lmrrg.own_code import load_own
from lmrrg.policy.start_checks import check_own_code
from lmrrg.studies import Study, StudyImage
from lmrrg.vision.cache import FeatureError
from lmrrg.vision.files import load_features
from rl.ppo import run_ppo
from serve_app.app import app
from sft.train import main as sft_main
from tests.support.new_model import new_model
from tests.support.own.lab import shared_words

LAB = "tests.support.own.lab"
OWN = ImageEncoderConfig(name=f"{LAB}:MeanOfCells")


def test_an_own_reward_takes_the_place_of_radcliq() -> None:
    plain = {"repetition_penalty": 0, "no_eos_penalty": 0}
    own = RadCliQReward(RewardConfig(function=f"{LAB}:shared_words", **plain))
    reports = ["The lungs are clear.", "Effusion.", "", "Clear."]
    references = ["The lungs are clear.", "The lungs are clear.", "Clear.", ""]
    scores = own.score(reports, references, None, [True] * 4)
    assert scores.reward[:3].tolist() == [1.0, 0.0, -3.0]
    assert scores.valid.tolist() == [True, True, True, False]
    radcliq = RadCliQReward(RewardConfig(**plain)).score(reports, references, None, [True] * 4)
    np.testing.assert_array_equal(scores.radcliq_v1, radcliq.radcliq_v1)


def test_the_penalties_and_the_clip_stay() -> None:
    settings = RewardConfig(function=f"{LAB}:shared_words", clip_high=0.5, no_eos_penalty=0.25)
    scores = RadCliQReward(settings).score(["Clear lungs."], ["Clear lungs."], None, [False])
    assert scores.reward.tolist() == [0.25]


def test_an_own_reward_must_give_a_number_for_each_report() -> None:
    reward = RadCliQReward(RewardConfig(function=f"{LAB}:one_too_few"))
    with pytest.raises(MetricError, match=r"own_code.*one_too_few gives values of shape \(1,\)"):
        reward.score(["a", "b"], ["a", "b"], None, [True] * 2)


def own_eye(config: Config) -> Config:
    model = config.model.model_copy(update={"image_encoder": OWN})
    return config.model_copy(update={"model": model})


def test_a_model_with_an_own_encoder_is_built_saved_and_read(
    tiny_config: Config, tiny_studies: list[Study], tmp_path: Path
) -> None:
    config = own_eye(tiny_config)
    model = new_model(config, ["The lungs are clear."]).eval()
    side = config.data.image_size // 16
    assert (model.inputs.patches, model.inputs.patch_width) == (side**2, 4)
    features = load_features(tiny_studies[:2], config.data, progress=False, encoder=OWN)
    save_checkpoint(model, tmp_path / "model", {})
    read = load_checkpoint(tmp_path / "model")
    assert read.config.image_encoder == OWN
    with torch.no_grad():
        expected = model.visual(features).disease_logits
        assert torch.equal(read.visual(features).disease_logits, expected)
    with pytest.raises(FeatureError, match="feature_shape"):
        model.visual(load_features(tiny_studies[:1], config.data, progress=False))


def test_another_version_of_an_own_encoder_is_refused(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(new_model(own_eye(tiny_config), ["Clear."]), tmp_path / "model", {})
    config = (tmp_path / "model" / "config.json").read_text()
    (tmp_path / "model" / "config.json").write_text(config.replace("cells-1", "cells-2"))
    with pytest.raises(CheckpointError, match=r"mean-of-cells-2, this is mean-of-cells-1"):
        checkpoint_encoder(tmp_path / "model", OWN)


def test_patches_that_form_no_square_are_refused(
    tiny_config: Config, tiny_studies: list[Study]
) -> None:
    eye = ImageEncoderConfig(name=f"{LAB}:ThreePatches")
    with pytest.raises(FeatureError, match=r"own_code.*form no square"):
        load_features(tiny_studies[:1], tiny_config.data, progress=False, encoder=eye)


def test_a_module_of_the_working_directory_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", ["/nowhere"])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_lab_of_a_test.py").write_text("def score(reports, references): return [7.0]\n")
    assert load_own("my_lab_of_a_test:score", "reward.function")([], []) == [7.0]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no_such_lab:score", "neither installed nor in the working directory"),
        (f"{LAB}:no_such_function", "no_such_function, which is no function of"),
        ("tests.support.no_such_room.lab:score", "module tests.support.no_such_room, which"),
        ("os:abort", "a module of Python itself"),
        ("broken_lab:score", "cannot be imported: ZeroDivisionError"),
    ],
)
def test_a_wrong_name_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken_lab.py").write_text("1 / 0\n")
    with pytest.raises(CodedError, match=f"^own_code: reward.function .*{why}") as caught:
        load_own(name, "reward.function")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "override",
    [
        "reward.function=no_such_lab:score",
        "evaluation.extra_metrics=[no_such_lab:score]",
        "model.image_encoder=no_such_lab:build",
    ],
)
def test_a_wrong_name_ends_a_run_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str
) -> None:
    key = override.partition("=")[0]
    with pytest.raises(CodedError, match=f"own_code: {key} names the module no_such_lab"):
        check_own_code(load_config(None, [override]))
    storage = [f"storage_path={tmp_path}", f"data.cache_dir={tmp_path / 'cache'}"]
    assert sft_main([override, *storage]) == 2
    assert f"own_code: {key}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert main(["doctor", "--config", "configs/demo.yaml", override, *storage]) == 1
    assert f"own_code: {key}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["my_lab.rewards", "my-lab:score", ":score", "a:b:c"])
def test_what_is_no_name_is_refused_with_the_settings(name: str) -> None:
    with pytest.raises(ConfigError, match=r"reward.function"):
        load_config(None, [f"reward.function={name!r}"])


def test_the_example_of_a_reward_counts_shared_words() -> None:
    assert shared_words(["a b c"], ["a d"]) == [0.5]


STRANGER = "code_of_a_stranger"


@pytest.fixture
def strangers_checkpoint(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Return a checkpoint whose encoder is a module here that leaves a file when it is imported."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{STRANGER}.py").write_text(
        f"import pathlib\npathlib.Path('it_ran').touch()\nfrom {LAB} import MeanOfCells as build\n"
    )
    save_checkpoint(new_model(own_eye(tiny_config), ["Clear."]), tmp_path / "model", {})
    config = tmp_path / "model" / "config.json"
    config.write_text(config.read_text().replace(OWN.name, f"{STRANGER}:build"))
    return tmp_path / "model"


def test_no_command_runs_the_code_that_a_checkpoint_names(
    strangers_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    films = tmp_path / "films"
    films.mkdir()
    (films / "a.png").write_bytes(b"never read")
    manifest = tmp_path / "studies.jsonl"
    film = StudyImage(films / "a.png", "PA")
    write_studies(manifest, [Study("a", "p", (film,), findings="Clear.", split="test")])
    of_model = ["--checkpoint", str(strangers_checkpoint)]
    commands = [
        ["generate", *of_model, "--images", str(films), "--out", str(tmp_path / "r.jsonl")],
        ["evaluate", *of_model, "--studies", str(manifest), "--out", str(tmp_path / "r.json")],
    ]
    for command in commands:
        assert main(command) == 2
        error = capsys.readouterr().err
        assert "own_code_refused" in error
        assert f"set model.image_encoder={STRANGER}:build" in error
    load_checkpoint(strangers_checkpoint)
    assert main(["export", *of_model, "--out", str(tmp_path / "out")]) == 0
    with pytest.raises(ClickException, match="own_code_refused"):
        app({"checkpoint": str(strangers_checkpoint)})
    with pytest.raises(CheckpointError, match="own_code_refused"):
        run_ppo(load_config(None, [f"storage_path={tmp_path}"]), strangers_checkpoint)
    assert not (tmp_path / "it_ran").exists()


def test_settings_that_name_another_function_allow_nothing(strangers_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="own_code_refused"):
        checkpoint_encoder(strangers_checkpoint, OWN)
    assert not Path("it_ran").exists()


def test_ones_own_settings_allow_the_function_that_they_name(strangers_checkpoint: Path) -> None:
    own = ImageEncoderConfig(name=f"{STRANGER}:build")
    assert checkpoint_encoder(strangers_checkpoint, own) == own
    assert Path("it_ran").exists()
