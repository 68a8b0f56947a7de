"""The application that is deployed: what it is made from, and when replicas start anew."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import click
import pytest

from lmrrg.evaluation.systems import checkpoint_record
from lmrrg.model.checkpoint import save_checkpoint
from serve_app.app import app
from serve_app.reporter import model_info
from tests.support.engine_oracle import other_weights


@pytest.fixture
def no_environment(monkeypatch):
    for name in ("LMRRG_CHECKPOINT", "LMRRG_CONFIG", "LMRRG_API_KEYS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("serve_app.app.start_serve", lambda *_: True)  # no Ray in unit tests


@pytest.mark.usefixtures("no_environment")
def test_the_application_says_in_one_sentence_what_it_lacks(monkeypatch):
    with pytest.raises(click.ClickException, match="no model to serve: set LMRRG_CHECKPOINT"):
        app({})
    with pytest.raises(click.ClickException, match=r"missing_file: /nowhere has no config\.json"):
        app({"checkpoint": "/nowhere"})
    with pytest.raises(click.ClickException, match="unknown argument checkpont"):
        app({"checkpont": "/nowhere"})
    monkeypatch.setenv("LMRRG_CONFIG", "/nowhere.yaml")
    with pytest.raises(click.ClickException, match=r"config file /nowhere\.yaml does not exist"):
        app({})


@pytest.mark.usefixtures("no_environment")
def test_a_checkpoint_that_does_not_say_what_it_sees_is_not_deployed(tiny_checkpoint, tmp_path):
    copy = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    settings = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(
        json.dumps({k: v for k, v in settings.items() if k != "inputs"})
    )
    with pytest.raises(click.ClickException, match=r"bad_config.*inputs"):
        app({"checkpoint": str(copy)})


@pytest.mark.usefixtures("no_environment")
def test_where_the_checkpoint_comes_from(tiny_checkpoint, tmp_path, monkeypatch):
    """Check the order: the command's argument, then the environment, then the config file."""
    config = tmp_path / "serve.yaml"
    config.write_text(f"serve: {{checkpoint: {tiny_checkpoint}, max_upload_mb: 3}}\n")
    monkeypatch.setenv("LMRRG_CONFIG", str(config))
    assert served_by(app({})) == str(tiny_checkpoint)
    assert app({})._bound_deployment.init_args[0].serve.max_upload_mb == 3
    monkeypatch.setenv("LMRRG_CHECKPOINT", "/elsewhere")
    with pytest.raises(click.ClickException, match="/elsewhere"):
        app({})
    assert served_by(app({"checkpoint": str(tiny_checkpoint)})) == str(tiny_checkpoint)


def served_by(application: Any) -> str:
    """Return the checkpoint of an application."""
    return application._bound_deployment._deployment_config.user_config["checkpoint"]


@pytest.mark.usefixtures("no_environment")
def test_a_service_that_others_can_reach_needs_keys(tiny_checkpoint, tmp_path, monkeypatch):
    reachable = {"checkpoint": str(tiny_checkpoint), "host": "0.0.0.0"}
    with pytest.raises(click.ClickException, match=r"0\.0\.0\.0, so the service needs API keys"):
        app(reachable)
    monkeypatch.setenv("LMRRG_API_KEYS", "ward3 the key itself")
    with pytest.raises(click.ClickException, match="LMRRG_API_KEYS, line 1") as refused:
        app(reachable)
    assert "itself" not in str(refused.value)
    monkeypatch.setenv("LMRRG_API_KEYS", f"ward3 {'0' * 64}")
    app(reachable)


@pytest.mark.usefixtures("no_environment")
def test_only_other_weights_are_loaded_into_a_running_replica(tiny_checkpoint, tmp_path):
    """Ray Serve starts new replicas when the arguments of the deployment change."""

    def arguments(checkpoint: Path) -> Any:
        return app({"checkpoint": str(checkpoint)})._bound_deployment.init_args

    def version(checkpoint: Path) -> str:
        return app({"checkpoint": str(checkpoint)})._bound_deployment._version

    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    settings = json.loads((copy / "config.json").read_text())
    settings["provenance"] = {"stage": "later"}
    (copy / "config.json").write_text(json.dumps(settings))
    assert arguments(copy) == arguments(tiny_checkpoint)
    assert version(copy) == version(tiny_checkpoint)
    settings["inputs"]["max_views"] = 1
    (copy / "config.json").write_text(json.dumps(settings))
    assert arguments(copy) != arguments(tiny_checkpoint)
    assert version(copy) != version(tiny_checkpoint)


@pytest.mark.usefixtures("no_environment")
def test_other_weights_in_the_same_folder_are_noticed(tiny_checkpoint, tmp_path):
    def deployed() -> Any:
        return app({"checkpoint": str(copy)})._bound_deployment

    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    before, again = deployed(), deployed()
    save_checkpoint(other_weights(tiny_checkpoint, seed=3), copy, {"stage": "test"})
    after = deployed()
    told = [each._deployment_config.user_config for each in (before, again, after)]
    assert told[0] == told[1] != told[2]
    assert before._version == again._version == after._version, "no replica is started anew"


def test_a_version_names_the_weights_and_the_settings(tiny_checkpoint, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_checkpoint, copy)
    assert model_info(copy) == model_info(tiny_checkpoint), "not where it lies, but what it holds"
    evaluated = checkpoint_record(copy)["sha256"]
    assert model_info(copy).version == f"sha256:{evaluated[:16]}", "as results.json names it"
    weights = copy / "decoder" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert model_info(copy).version != model_info(tiny_checkpoint).version
