import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lmrrg.config.tree import Config
from lmrrg.model import checkpoint as module
from lmrrg.model.checkpoint import (
    CheckpointError,
    add_sums,
    full_state,
    load_checkpoint,
    load_full_state,
    save_checkpoint,
    state_checksum,
    tensor_sum,
)
from lmrrg.model.generator import ReportGenerator
from lmrrg.vision.study_features import StudyFeatures
from tests.conftest import SENTENCES
from tests.support.new_model import new_model


def logits(model: ReportGenerator, features: StudyFeatures) -> torch.Tensor:
    ids = torch.arange(5, 15).expand(len(features), -1)
    with torch.no_grad():
        return (
            model.eval().report_logits(features, [[5, 6, 7]] * len(features), ids, ids > 0).logits
        )


def with_decoder(config: Config, **changes) -> Config:
    decoder = config.model.decoder.model_copy(update=changes)
    return config.model_copy(update={"model": config.model.model_copy(update={"decoder": decoder})})


def test_a_saved_model_is_read_unchanged(
    model: ReportGenerator, features: StudyFeatures, tmp_path: Path
):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    model.extractor.calibrate(features)
    save_checkpoint(model, tmp_path / "m", {"step": 3})
    again = load_checkpoint(tmp_path / "m")
    assert not again.training
    assert again.config == model.config
    assert again.inputs == model.inputs
    assert again.tokenizer.get_vocab() == model.tokenizer.get_vocab()
    assert torch.equal(logits(again, features), logits(model, features))
    assert state_checksum(full_state(again)) == state_checksum(full_state(model))


def test_the_layout_is_the_documented_one(tiny_checkpoint: Path):
    settings = json.loads((tiny_checkpoint / "config.json").read_text())
    assert settings["architecture"] == "LMRRG"
    assert settings["provenance"] == {"stage": "test"}
    assert not any(
        name.startswith("decoder.") for name in load_file(tiny_checkpoint / "model.safetensors")
    )
    decoder = AutoModelForCausalLM.from_pretrained(tiny_checkpoint / "decoder")
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint / "decoder")
    assert decoder.config.architectures == ["LlamaForCausalLM"]
    assert (
        decoder.generation_config.eos_token_id
        == decoder.config.eos_token_id
        == tokenizer.eos_token_id
    )
    assert decoder.config.head_dim >= 32


def test_a_model_that_was_read_is_saved_as_one_that_was_made(tiny_checkpoint: Path, tmp_path: Path):
    save_checkpoint(load_checkpoint(tiny_checkpoint), tmp_path / "again", {"stage": "test"})
    for path in tiny_checkpoint.rglob("*.json"):
        assert (
            path.read_bytes()
            == (tmp_path / "again" / path.relative_to(tiny_checkpoint)).read_bytes()
        )


def test_saving_over_a_checkpoint_replaces_all_of_it(model: ReportGenerator, tmp_path: Path):
    save_checkpoint(model, tmp_path / "m", {"step": 1})
    (tmp_path / "m" / "stale").write_text("")
    save_checkpoint(model, tmp_path / "m", {"step": 2})
    assert json.loads((tmp_path / "m/config.json").read_text())["provenance"] == {"step": 2}
    assert not (tmp_path / "m" / "stale").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_an_interrupted_save_keeps_the_old_checkpoint(
    model: ReportGenerator, tmp_path: Path, monkeypatch
):
    save_checkpoint(model, tmp_path / "m", {"step": 1})
    monkeypatch.setattr(
        type(model.tokenizer),
        "save_pretrained",
        lambda *_: (_ for _ in ()).throw(OSError("disk full")),
    )
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(model, tmp_path / "m", {"step": 2})
    assert load_checkpoint(tmp_path / "m") is not None
    assert json.loads((tmp_path / "m/config.json").read_text())["provenance"] == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def edit_tensors(path: Path, change) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


DAMAGES = {
    "visual weight missing": lambda d: edit_tensors(
        d / "model.safetensors", lambda t: t.pop("projector.0.weight")
    ),
    "projector missing": lambda d: edit_tensors(
        d / "model.safetensors", lambda t: [t.pop(n) for n in list(t) if n.startswith("projector")]
    ),
    "queries missing": lambda d: edit_tensors(
        d / "model.safetensors", lambda t: t.pop("extractor.query_vectors")
    ),
    "visual weight unexpected": lambda d: edit_tensors(
        d / "model.safetensors", lambda t: t.update(x=torch.ones(1))
    ),
    "visual weight reshaped": lambda d: edit_tensors(
        d / "model.safetensors", lambda t: t.update({"projector.0.weight": torch.ones(2, 2)})
    ),
    "decoder weight missing": lambda d: edit_tensors(
        d / "decoder/model.safetensors", lambda t: t.pop("model.layers.1.mlp.up_proj.weight")
    ),
    "head missing": lambda d: edit_tensors(
        d / "decoder/model.safetensors", lambda t: t.pop("lm_head.weight")
    ),
    "decoder weight unexpected": lambda d: edit_tensors(
        d / "decoder/model.safetensors",
        lambda t: t.update({"model.layers.7.mlp.up_proj.weight": torch.ones(2, 2)}),
    ),
    "decoder weight reshaped": lambda d: edit_tensors(
        d / "decoder/model.safetensors", lambda t: t.update({"model.norm.weight": torch.ones(3)})
    ),
    "weights cut": lambda d: (d / "model.safetensors").write_bytes(
        (d / "model.safetensors").read_bytes()[:999]
    ),
    "decoder weights cut": lambda d: (d / "decoder/model.safetensors").write_bytes(
        (d / "decoder/model.safetensors").read_bytes()[:-9]
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_wrong_weights_are_refused(tiny_checkpoint: Path, tmp_path: Path, damage: str):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_checkpoint, copy)
    DAMAGES[damage](copy)
    with pytest.raises(CheckpointError, match="bad_weights"):
        load_checkpoint(copy)


def edit_config(path: Path, **changes) -> None:
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, **changes}))


def edit_inputs(path: Path, **changes) -> None:
    edit_config(path, inputs={**json.loads(path.read_text())["inputs"], **changes})


def test_the_directory_exists_while_a_model_is_replaced(
    model: ReportGenerator, tmp_path: Path, monkeypatch
):
    directory, looked = tmp_path / "m", []
    save_checkpoint(model, directory, {"step": 1})
    rename = os.replace

    def watched(old: Path, new: Path) -> None:
        looked.append(directory.exists())
        rename(old, new)

    monkeypatch.setattr(os, "replace", watched)
    save_checkpoint(model, directory, {"step": 2})
    assert all(looked)
    assert json.loads((directory / "config.json").read_text())["provenance"] == {"step": 2}
    monkeypatch.setattr("lmrrg.files._exchange", lambda *_: False)  # as on NFS
    save_checkpoint(model, directory, {"step": 3})
    assert json.loads((directory / "config.json").read_text())["provenance"] == {"step": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda d: shutil.rmtree(d / "decoder"), "missing_file"),
        (lambda d: (d / "model.safetensors").unlink(), "missing_file"),
        (lambda d: (d / "config.json").write_text("{"), "bad_config"),
        (lambda d: edit_config(d / "config.json", architecture="Other"), "bad_config"),
        (lambda d: edit_config(d / "config.json", format=99), "bad_config"),
        (lambda d: edit_config(d / "config.json", model={"colour": "blue"}), "bad_config"),
        (lambda d: edit_config(d / "config.json", inputs={}), "bad_config"),
        (lambda d: edit_inputs(d / "config.json", patches="64"), "bad_config"),
        (lambda d: edit_inputs(d / "config.json", max_views=-1), "bad_config"),
        (lambda d: edit_inputs(d / "config.json", encoder_version="another encoder"), "bad_config"),
        (lambda d: (d / "decoder" / "tokenizer.json").write_text("{"), "bad_config"),
        (lambda d: (d / "decoder" / "tokenizer.json").unlink(), "bad_config"),
        (
            lambda d: edit_config(d / "decoder" / "config.json", model_type="unheard-of"),
            "bad_config",
        ),
    ],
)
def test_a_folder_that_is_no_checkpoint_is_refused(
    tiny_checkpoint: Path, tmp_path: Path, damage, code: str
):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_checkpoint, copy)
    damage(copy)
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(copy)
    assert error.value.code == code


def test_lora_is_merged_into_the_checkpoint(
    tiny_config: Config, features: StudyFeatures, tmp_path: Path
):
    model = new_model(with_decoder(tiny_config, lora_rank=3), list(SENTENCES))
    with torch.no_grad():
        for name, parameter in model.decoder.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.1)
    before = logits(model, features)
    save_checkpoint(model, tmp_path / "m", {})
    again = load_checkpoint(tmp_path / "m")
    assert not any("lora" in name for name in again.state_dict())
    torch.testing.assert_close(logits(again, features), before, atol=1e-5, rtol=1e-4)
    assert full_state(again).keys() == full_state(model).keys()


def test_a_tied_head_is_in_the_state_and_survives(
    tiny_config: Config, features: StudyFeatures, tmp_path: Path
):
    model = new_model(tiny_config, list(SENTENCES))
    model.decoder.config.tie_word_embeddings = True
    model.decoder.tie_weights()
    assert model.decoder.lm_head.weight is model.decoder.get_input_embeddings().weight
    save_checkpoint(model, tmp_path / "m", {})
    again = load_checkpoint(tmp_path / "m")
    assert torch.equal(logits(again, features), logits(model, features))
    assert "decoder.lm_head.weight" in full_state(again)
    assert state_checksum(full_state(again)) == state_checksum(full_state(model))


def test_a_state_moves_all_weights_to_another_model(
    model: ReportGenerator, features: StudyFeatures, tiny_config: Config
):
    other = new_model(
        tiny_config.model_copy(update={"seed": 1}),
        [f"{a} {b}" for a in SENTENCES for b in SENTENCES],
    )
    state = full_state(model)
    assert (logits(other, features) - logits(model, features)).abs().max() > 1e-3
    load_full_state(other, state, decoder=False)
    assert not torch.equal(other.decoder.lm_head.weight, model.decoder.lm_head.weight)
    assert torch.equal(other.visual(features).tokens, model.visual(features).tokens)
    load_full_state(other, state)
    assert torch.equal(logits(other, features), logits(model, features))


def test_a_state_is_a_copy(model: ReportGenerator):
    state = full_state(model)
    checksum = state_checksum(state)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert state_checksum(state) == checksum
    assert state_checksum(full_state(model)) != checksum


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.pop("visual.projector.0.weight"),
        lambda s: s.pop("decoder.lm_head.weight"),
        lambda s: s.update({"visual.extra": torch.ones(1)}),
        lambda s: s.update({"extra": torch.ones(1)}),
        lambda s: s.update({"decoder.lm_head.weight": torch.ones(2, 2)}),
    ],
)
def test_a_state_that_does_not_fit_is_refused(model: ReportGenerator, change):
    state = full_state(model)
    change(state)
    with pytest.raises(CheckpointError, match="bad_weights"):
        load_full_state(model, state)


def test_the_checksum_sees_every_difference_but_not_the_order():
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(1.0, dtype=torch.bfloat16)}
    base = state_checksum(state)
    assert state_checksum(dict(reversed(state.items()))) == base
    nudged = state["a"].clone()
    nudged[1, 1] += 1e-6
    others = [
        {**state, "a": nudged},
        {**state, "a": state["a"].reshape(3, 2)},
        {**state, "b": state["b"].float()},
        {"a": state["b"], "b": state["a"]},
        {"a": state["a"]},
        {**state, "a": state["a"].t().contiguous().t() + 1},
    ]
    sums = [state_checksum(other) for other in others]
    assert base not in sums
    assert len(set(sums)) == len(sums)
    assert (
        state_checksum({**state, "a": state["a"].t().contiguous().t()}) == base
    )  # strides are no difference


@given(
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8]),
    shape=st.lists(st.integers(1, 7), max_size=3),
    seed=st.integers(0, 99),
)
def test_the_tensor_checksum_notices_every_difference(dtype, shape, seed):
    random = torch.Generator().manual_seed(seed)
    tensor = torch.randint(0, 200, shape, generator=random).to(dtype)
    other = torch.randint(0, 200, shape, generator=random).to(dtype)
    sums = [tensor_sum("a", tensor), tensor_sum("b", other)]
    base = add_sums(sums)
    assert add_sums(reversed(sums)) == base
    assert add_sums([tensor_sum("a", tensor.clone()), sums[1]]) == base
    assert add_sums([tensor_sum("a", tensor)]) != base
    if not torch.equal(tensor, other):
        assert add_sums([tensor_sum("a", other), tensor_sum("b", tensor)]) != base
        assert add_sums([tensor_sum("a", other), sums[1]]) != base
    flat = tensor.reshape(-1)
    moved = flat.roll(1).reshape(shape)
    if not torch.equal(moved, tensor):
        assert add_sums([tensor_sum("a", moved), sums[1]]) != base


def test_the_tensor_checksum_notices_what_plain_sums_miss():
    line, square = torch.tensor([2, 4, 3]), torch.tensor([[1, 2], [3, 4]])
    assert tensor_sum("a", line) != tensor_sum("a", line.roll(1))
    assert tensor_sum("a", square) != tensor_sum("a", square + torch.tensor([[1, -1], [-1, 1]]))


def test_the_tensor_checksum_of_a_large_tensor_needs_little_memory(monkeypatch):
    tensor = torch.randint(0, 200, (64, 96)).to(torch.bfloat16)
    whole = tensor_sum("a", tensor)
    monkeypatch.setattr(module, "_SUMMED", 7 * 96)
    with torch.profiler.profile(profile_memory=True) as profile:
        assert tensor_sum("a", tensor) == whole
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest <= 7 * 96 * 8 < tensor.nbytes


def test_a_state_without_decoder_keeps_its_embedding(model: ReportGenerator):
    whole, rest = full_state(model), full_state(model, decoder=False)
    assert {n for n in whole if n.startswith("visual.")} | {
        "decoder.model.embed_tokens.weight"
    } == set(rest)
    assert all(torch.equal(tensor, whole[name]) for name, tensor in rest.items())


def test_nothing_is_pickled(tiny_checkpoint: Path):
    assert {p.suffix for p in tiny_checkpoint.rglob("*") if p.is_file()} <= {
        ".json",
        ".safetensors",
        ".jinja",
    }
    assert module.FORMAT == 1
