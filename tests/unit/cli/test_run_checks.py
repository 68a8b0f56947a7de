"""``lmrrg doctor --config`` says before a run starts what the run would stumble over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import Gemma2Config, LlamaConfig, MistralConfig, PreTrainedConfig

from lmrrg.cli.main import main
from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config
from lmrrg.model.decoder import train_tokenizer
from lmrrg.run.layout import RunLayout
from lmrrg.run.record import record_run
from lmrrg.run.studies import prepare_studies
from sft.fingerprint import write_mark
from sft.train import plan_run
from tests.support.trees import picture, table


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file with the settings of a small run in ``tmp_path``."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    path = tmp_path / "run.yaml"
    path.write_text(
        f"name: run\nstorage_path: {tmp_path}/runs\n"
        "data:\n"
        f"  cache_dir: {tmp_path}/cache\n"
        "  phantom: {train: 4, val: 2, test: 2, image_size: 64}\n"
    )
    return path


def problems(settings: Path, capsys: pytest.CaptureFixture[str], *overrides: str) -> dict[str, str]:
    """Return what the doctor calls a problem, by the name of the check."""
    code = main(["doctor", "--json", "--config", str(settings), *overrides])
    checks = json.loads(capsys.readouterr().out)
    found = {check["name"]: check["detail"] for check in checks if check["level"] != "ok"}
    assert code == (1 if found else 0)
    return found


def decoder(folder: Path, config: PreTrainedConfig, **changed: int) -> str:
    """Save settings and tokenizer of a decoder without weights; return its folder."""
    tokenizer = train_tokenizer(["the lungs are clear"], 270)
    tokenizer.save_pretrained(folder)
    config.update({"vocab_size": len(tokenizer), "max_position_embeddings": 512, **changed})
    config.save_pretrained(folder)
    return f"model.decoder.pretrained={folder}"


def test_a_run_that_can_start_has_no_problem_and_writes_nothing(settings, capsys):
    assert problems(settings, capsys) == {}
    assert list(settings.parent.iterdir()) == [settings]


@pytest.mark.parametrize(
    ("overrides", "name", "code"),
    [
        (["ppo.iterations=2"], "PPO settings", "no_policy_update"),
        (["model.evidence_words=true"], "evidence", "no_evidence"),
        (["storage_path=/proc/nothing"], "storage", "not_writable"),
        (["ray.checkpoint_storage=nowhere://bucket"], "checkpoint store", "checkpoint_store"),
        (["ray.address=127.0.0.1:9"], "cluster", "cluster_unreachable"),
        (["model.decoder.pretrained=./nowhere"], "decoder", "pretrained_missing"),
        (["model.image_encoder.weights=./nowhere"], "image encoder", "encoder_weights"),
        (["data.image_size=250"], "image encoder", "image_size"),
        (["model.text_encoder=nowhere"], "decoder", "text_encoder_missing"),
        (["model.regions_file=nowhere.yaml"], "decoder", "regions_missing"),
        (["eye.epochs=1", "data.image_size=250"], "eye", "image_size"),
        (["data.source=jsonl", "data.path=nowhere.jsonl"], "studies", "manifest_missing"),
    ],
)
def test_each_problem_is_one_line_with_its_code(settings, capsys, overrides, name, code):
    found = problems(settings, capsys, *overrides)
    assert list(found) == [name], "one cause is told once"
    assert found[name].startswith(f"{code}: ")


def test_settings_without_a_file_are_refused(capsys):
    assert main(["doctor", "seed=8"]) == 2
    assert capsys.readouterr().err == "lmrrg doctor: seed=8 goes with --config FILE\n"


def test_tracking_without_a_key(settings, capsys, monkeypatch):
    monkeypatch.setattr("lmrrg.run.tracking.wandb.login", lambda prompt: False)
    found = problems(settings, capsys, "tracking.wandb_mode=online")
    assert found["tracking"].startswith("wandb_key: ")


def test_decoders_that_a_stage_refuses(settings, capsys, tmp_path):
    capped = decoder(tmp_path / "capped", Gemma2Config(sliding_window=512))
    found = problems(settings, capsys, capped)
    assert found.keys() == {"decoder in PPO"}
    assert "decoder_attention: " in found["decoder in PPO"]
    small = decoder(tmp_path / "small", LlamaConfig(), vocab_size=20)
    assert "embedding" in problems(settings, capsys, small)["decoder"]
    window = decoder(tmp_path / "window", MistralConfig(), sliding_window=64)
    assert "attention sees 64 tokens" in problems(settings, capsys, window)["decoder"]


def test_a_prompt_that_leaves_no_room_for_the_report(settings, capsys, tmp_path):
    plain = decoder(tmp_path / "plain", LlamaConfig())
    instruction = f"model.instruction={'describe ' * 99}"
    found = problems(settings, capsys, plain, instruction, "data.max_report_tokens=256")
    assert found["decoder"].startswith("prompt_too_long: ")


def test_image_files_that_are_not_there(settings, capsys, tmp_path):
    rows = [[str(i), str(i), f"{i}.png", "The heart is enlarged."] for i in range(40)]
    path = table(tmp_path / "in" / "a.csv", ["study_id", "patient_id", "image", "findings"], rows)
    source = ["data.source=csv", f"data.path={path}", "data.ids=published"]
    found = problems(settings, capsys, *source)
    assert found["studies"].startswith("no_studies: ")
    assert "no image file" in found["studies"]
    for row in rows[1:]:
        picture(tmp_path / "in" / row[2])
    assert main(["doctor", "--config", str(settings), *source]) == 0
    assert "left out: 1 no image file" in capsys.readouterr().out


def begun(settings: Path) -> Config:
    """Begin the SFT of a run, as far as its record goes."""
    config = load_config(settings)
    manifest = prepare_studies(config, progress=False)
    write_mark(config, "sft", plan_run(config, manifest).fingerprint)
    record_run(config, manifest)
    return config


def test_settings_that_contradict_a_run_are_named(settings, capsys):
    config = begun(settings)
    assert problems(settings, capsys) == {}
    found = problems(settings, capsys, "seed=8")
    assert "resume_mismatch: " in found["studies"]
    assert "other values of seed" in found["studies"]
    found = problems(settings, capsys, "sft.epochs=3")
    assert list(found) == ["SFT"]
    assert "other values of sft.epochs" in found["SFT"]
    assert RunLayout(config.run_dir).studies.is_file()


def test_evidence_may_come_from_an_eye_that_the_run_trains_first(settings, capsys, tmp_path):
    eye = ["model.evidence_words=true", f"model.image_encoder.weights={tmp_path}/eye"]
    assert "evidence" not in problems(settings, capsys, *eye, "eye.epochs=2")
    assert "evidence" in problems(settings, capsys, *eye)
