"""Test what the eye stage does before and between its steps, without a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lmrrg.config.loading import load_config
from lmrrg.config.sft import EyeConfig
from lmrrg.errors import CodedError
from lmrrg.vision.eye import Eye
from sft.eye import check_eye_settings, main
from sft.eye_worker import eye_optimizer, freeze_blocks, minibatches, weight_mean


@pytest.mark.parametrize(
    ("overrides", "code"),
    [
        ([], "no_eye_stage"),
        (["eye.epochs=1", "model.image_encoder=tests.support.own.lab:eye"], "no_eye_stage"),
        (
            [
                "eye.epochs=1",
                "model.image_encoder.name=huggingface",
                "model.image_encoder.weights=not/there",
            ],
            "no_eye_stage",
        ),
        (["eye.epochs=1", "data.image_size=225"], "image_size"),
        (["eye.epochs=1", "model.image_encoder.weights=not/there"], None),
    ],
)
def test_settings_without_a_stage_that_can_run(overrides: list[str], code: str | None):
    config = load_config(None, overrides)
    if code is None:
        check_eye_settings(config)  # the weights are what the stage makes
        return
    with pytest.raises(CodedError, match=code):
        check_eye_settings(config)


def test_the_command_says_so_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    settings = tmp_path / "settings.yaml"
    settings.write_text("name: x\n")
    assert main(["--config", str(settings)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("eye: no_eye_stage: eye.epochs is 0")
    assert len(error.splitlines()) == 1


def test_a_crop_larger_than_the_square_is_refused():
    with pytest.raises(ValueError, match=r"eye\.crop 256 must not exceed data\.image_size 224"):
        load_config(None, ["eye.epochs=1", "eye.crop=256", "data.image_size=224"])


def test_an_epoch_visits_every_study_in_an_order_of_its_own():
    batches = minibatches(10, 4, seed=7, epoch=0)
    assert [len(batch) for batch in batches] == [4, 4, 4]
    seen = [study for batch in batches for study in batch]
    assert sorted(seen[:10]) == list(range(10))
    assert seen[10:] == seen[:2], "filled up with the first ones"
    assert batches == minibatches(10, 4, seed=7, epoch=0)
    assert batches != minibatches(10, 4, seed=7, epoch=1)


def test_the_mean_of_the_weights_forgets_fast_at_first():
    eye = Eye.new("efficientnet_lite0", 32)
    mean = weight_mean(eye, 0.5)
    bias = eye.head.evidence.bias
    expected = None
    for step, value in enumerate((1.0, 2.0, 4.0, 8.0)):
        with torch.no_grad():
            bias.fill_(value)
        mean.update_parameters(eye)
        kept = min(0.5, (1 + step) / (10 + step))
        expected = value if expected is None else kept * expected + (1 - kept) * value
        assert mean.module.head.evidence.bias[0].item() == pytest.approx(expected)


def test_without_a_mean_the_last_weights_are_kept():
    eye = Eye.new("efficientnet_lite0", 32)
    mean = weight_mean(eye, 0.0)
    for value in (1.0, 5.0):
        with torch.no_grad():
            eye.head.evidence.bias.fill_(value)
        mean.update_parameters(eye)
    assert mean.module.head.evidence.bias[0].item() == 5.0


def test_only_what_is_not_frozen_is_trained_and_the_head_is_faster():
    eye = Eye.new("efficientnet_lite0", 32)
    freeze_blocks(eye, 16)
    groups = eye_optimizer(eye, EyeConfig()).param_groups
    assert {group["peak"] for group in groups} == {1e-3}, "the whole backbone is frozen"
    eye = Eye.new("efficientnet_lite0", 32)
    freeze_blocks(eye, 15)
    groups = eye_optimizer(eye, EyeConfig()).param_groups
    trained = {id(p) for group in groups if group["peak"] == 8e-5 for p in group["params"]}
    assert trained == {id(p) for p in eye.backbone.blocks[15].parameters()}
