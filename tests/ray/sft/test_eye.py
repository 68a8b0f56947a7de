"""Test the eye stage on a real Ray cluster."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lmrrg.cli.stage_results import eye_line
from lmrrg.config.model import ImageEncoderConfig
from lmrrg.config.tree import Config
from lmrrg.run.studies import prepare_studies, studies_of
from lmrrg.run.tracking import read_metrics
from lmrrg.vision.eye import Eye, read_eye_settings
from lmrrg.vision.files import load_features
from sft.errors import SFTError
from sft.eye import run_eye
from tests.ray.sft.rank_killer import rank_killed_after

pytestmark = pytest.mark.cluster

EPOCHS = 2


@pytest.fixture(scope="module")
def config(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Config:
    settings = {"epochs": EPOCHS, "minibatch": 4, "crop": 64, "cpus_per_worker": 0.5}
    return tiny_config.model_copy(
        update={
            "storage_path": tmp_path_factory.mktemp("eye"),
            "name": "phantoms",
            "eye": tiny_config.eye.model_copy(update=settings),
        }
    )


@pytest.fixture(scope="module")
def finished(config: Config, ray_cluster: Path) -> Config:
    assert run_eye(config) == config.run_dir / "eye" / "best"
    return config


def another(config: Config, name: str, **settings: object) -> Config:
    run = config.model_copy(update={"name": name, "eye": config.eye.model_copy(update=settings)})
    shutil.copytree(prepare_studies(config, progress=False).parent, run.run_dir, dirs_exist_ok=True)
    shutil.rmtree(run.run_dir / "eye", ignore_errors=True)
    shutil.rmtree(run.run_dir / "metrics", ignore_errors=True)
    return run


def weights(config: Config, kind: str = "last") -> dict[str, torch.Tensor]:
    return load_file(config.run_dir / "eye" / kind / "model.safetensors")


def test_it_learns_and_sft_can_read_it(finished: Config):
    lines = read_metrics(finished.run_dir, "eye")
    assert [line["epoch"] for line in lines if "epoch" in line] == [1, 2]
    assert all(line["train/studies_per_second"] > 0 for line in lines if "train/loss" in line)
    best = finished.run_dir / "eye" / "best"
    provenance = read_eye_settings(best)["provenance"]
    assert provenance["data_sha256"]
    assert provenance["validation"]["studies"] == len(studies_of(finished, "val"))
    assert eye_line(finished.run_dir).startswith(f"best epoch {provenance['epoch']}: average")
    encoder = ImageEncoderConfig(weights=str(best))
    val = studies_of(finished, "val")
    features = load_features(val, finished.data, progress=False, encoder=encoder)
    assert features.evidence.isfinite().all()


def test_frozen_blocks_keep_the_packaged_weights_and_the_others_move(finished: Config):
    start = Eye.new("efficientnet_lite0", finished.data.image_size).state_dict()
    frozen = tuple(f"backbone.blocks.{n}." for n in range(finished.eye.frozen_blocks))
    for name, value in weights(finished).items():
        if name.startswith(("backbone.stem.", *frozen)):
            assert torch.equal(value, start[name]), name
        elif name != "head.relevance.bias":  # has no gradient: the softmax over patches ignores it
            assert not torch.equal(value, start[name]), name


def test_one_rank_and_two_end_at_the_same_weights(finished: Config):
    """Ranks are a way to compute the same thing, once none of them cuts crops of its own."""
    whole = {"crop": finished.data.image_size, "rotation": 0.0, "brightness": 0.0}
    runs = [another(finished, f"ranks{n}", workers=n, **whole) for n in (1, 2)]
    for run in runs:
        run_eye(run)
    for name, value in weights(runs[0]).items():
        torch.testing.assert_close(value, weights(runs[1])[name], atol=1e-3, rtol=1e-2, msg=name)


def test_a_killed_rank_costs_nothing_but_time(finished: Config):
    run = another(finished, "killed")
    with rank_killed_after(1, run.run_dir / "eye" / "ray_train"):
        run_eye(run)
    for name, value in weights(finished).items():
        assert torch.equal(value, weights(run)[name]), name


def test_a_complete_eye_is_not_trained_again(finished: Config, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sft.eye._trainer", lambda *_: pytest.fail("trained again"))
    assert run_eye(finished) == finished.run_dir / "eye" / "best"


def test_other_settings_do_not_continue_an_eye(finished: Config):
    settings = finished.eye.model_copy(update={"learning_rate": 1e-5})
    changed = finished.model_copy(update={"eye": settings})
    with pytest.raises(SFTError, match=r"resume_mismatch: .* eye.learning_rate; .*eye.resume"):
        run_eye(changed)
