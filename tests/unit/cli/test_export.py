"""``lmrrg export``: the folder of a model for others."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from lmrrg.cli.main import main
from lmrrg.config.tree import Config
from lmrrg.files import directory_hash
from lmrrg.model.checkpoint import load_checkpoint, save_checkpoint
from lmrrg.run.studies import studies_of
from serve_app.reporter import model_info
from tests.support.evaluated_run import finished_run
from tests.support.new_model import new_model


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return finished_run(tmp_path_factory.getbasetemp())


def export(checkpoint: Path, out: Path, *more: str) -> str:
    assert main(["export", "--checkpoint", str(checkpoint), "--out", str(out), *more]) == 0
    return (out / "README.md").read_text(encoding="utf-8")


def test_the_card_has_data_results_limits_and_notice(run: Config, tmp_path: Path) -> None:
    card = export(run.run_dir / "ppo" / "best", tmp_path / "my-model")
    header = yaml.safe_load(card.split("---")[1])
    assert header["library_name"] == "lmrrg"
    results = json.loads((run.run_dir / "evaluation" / "results.json").read_text())
    (ppo,) = [system for system in results["systems"] if system["name"] == "ppo"]
    radcliq = ppo["metrics"]["radcliq_v1"]
    shown = f"{radcliq['value']:.3f} [{radcliq['low']:.3f}, {radcliq['high']:.3f}]"
    assert shown.replace("-", "\N{MINUS SIGN}") in card
    for part in ("# my-model", "52 studies kept", "## Limits", "research", "| stage | ppo |"):
        assert part in card
    assert "look through it for names" in card
    assert model_info(run.run_dir / "ppo" / "best").version in card
    assert not any(study.findings in card for study in studies_of(run, "test"))
    assert str(run.run_dir) not in card


def test_the_folder_loads_as_it_is_and_its_decoder_alone(run: Config, tmp_path: Path) -> None:
    checkpoint = run.run_dir / "ppo" / "best"
    before = directory_hash(checkpoint)
    out = tmp_path / "model"
    out.mkdir()
    export(checkpoint, out)
    assert directory_hash(checkpoint) == before
    model = load_checkpoint(out)
    decoder = AutoModelForCausalLM.from_pretrained(out / "decoder", local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(out / "decoder", local_files_only=True)
    ids = tokenizer("The lungs are clear.", return_tensors="pt").input_ids
    with torch.no_grad():
        assert torch.equal(decoder(ids).logits, model.decoder(ids).logits)


def test_the_example_is_ten_lines_of_python(run: Config, tmp_path: Path) -> None:
    card = export(run.run_dir / "sft" / "best", tmp_path / "model")
    (example,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    ast.parse(example)
    assert len([line for line in example.splitlines() if line]) <= 10


def test_a_model_that_was_not_evaluated_says_so(
    run: Config, tiny_config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "elsewhere" / "model"
    save_checkpoint(new_model(tiny_config, ["The lungs are clear."]), other, {})
    card = export(other, tmp_path / "alone")
    assert "Not recorded" in card
    assert "was not evaluated" in card
    assert "give --run" in capsys.readouterr().out
    # The run's evaluation is of other weights.
    card = export(other, tmp_path / "of_run", "--run", str(run.run_dir))
    assert "52 studies kept" in card
    assert "was not evaluated" in card


def test_a_folder_with_files_is_not_touched(
    tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["export", "--checkpoint", str(tiny_checkpoint), "--out", str(tmp_path)]) == 2
    assert "bad_output" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
