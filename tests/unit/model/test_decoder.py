"""Test pretrained decoders: defects and short attention are refused before any training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM

from lmrrg.config.tree import Config
from lmrrg.model.decoder import DecoderError, build_tokenizer, coded_loading, load_decoder
from tests.conftest import SENTENCES
from tests.support.new_model import new_model


def pretrained(config: Config, folder: Path) -> Config:
    decoder = config.model.decoder.model_copy(update={"pretrained": str(folder)})
    return config.model_copy(update={"model": config.model.model_copy(update={"decoder": decoder})})


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def without_a_layer(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if ".layers.1." not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (without_a_layer, "bad_weights"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"torn"), "bad_weights"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            "pretrained_missing",
        ),
        (lambda folder: edit(folder / "config.json", model_type="unheard-of"), "bad_config"),
    ],
)
def test_a_damaged_decoder_is_an_error_with_a_code(
    tiny_checkpoint: Path, tmp_path: Path, damage, code: str
):
    folder = shutil.copytree(tiny_checkpoint / "decoder", tmp_path / "decoder")
    damage(folder)
    with pytest.raises(DecoderError) as caught:
        load_decoder(folder)
    assert caught.value.code == code


def test_a_damaged_tokenizer_is_an_error_with_a_code(
    tiny_config: Config, tiny_checkpoint: Path, tmp_path: Path
):
    folder = shutil.copytree(tiny_checkpoint / "decoder", tmp_path / "decoder")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(DecoderError, match="bad_config"):
        build_tokenizer(pretrained(tiny_config, folder).model, list(SENTENCES))


def test_a_window_shorter_than_prompt_and_report_is_refused(
    tiny_config: Config, tiny_checkpoint: Path, tmp_path: Path
):
    tokenizer = build_tokenizer(tiny_config.model, list(SENTENCES))
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
    }
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    tokenizer.save_pretrained(tmp_path)
    positions = tiny_config.model.decoder.max_positions
    for window, refused in ((16, True), (positions, False)):
        MistralForCausalLM(MistralConfig(**sizes, **heads, sliding_window=window)).save_pretrained(
            tmp_path
        )
        if refused:
            with pytest.raises(DecoderError, match=r"decoder_attention: .* 16 tokens"):
                new_model(pretrained(tiny_config, tmp_path), [])
        else:
            new_model(pretrained(tiny_config, tmp_path), [])


def test_a_decoder_with_too_few_positions_is_refused(tiny_config: Config, tmp_path: Path):
    tokenizer = build_tokenizer(tiny_config.model, list(SENTENCES))
    tokenizer.save_pretrained(tmp_path)
    sizes = {
        "vocab_size": len(tokenizer),
        "n_embd": 64,
        "n_layer": 1,
        "n_head": 2,
        "n_positions": 64,
    }
    GPT2LMHeadModel(GPT2Config(**sizes)).save_pretrained(tmp_path)
    with pytest.raises(DecoderError, match="max_positions: the decoder has 64 positions"):
        new_model(pretrained(tiny_config, tmp_path), [])


def test_a_missing_package_is_one_sentence():
    """As transformers says it: some lines, of which the first sentence is the cause."""
    said = "\nGGUF needs the gguf package. See the instructions on\nhttps://example.org .\n"
    with pytest.raises(DecoderError) as caught, coded_loading("the tokenizer of x"):
        raise ImportError(said)
    assert caught.value.code == "package_missing"
    message = str(caught.value)
    assert "cannot load the tokenizer of x: GGUF needs the gguf package; install" in message
    assert "\n" not in message
