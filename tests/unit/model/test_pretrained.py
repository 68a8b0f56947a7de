"""What the settings of a pretrained decoder tell before anything is loaded."""

from __future__ import annotations

import pytest
from transformers import BloomConfig, Gemma2Config, LlamaConfig, Qwen2Config, T5Config

from lmrrg.config.model import DecoderConfig, ModelConfig
from lmrrg.model.decoder import DecoderError, train_tokenizer
from lmrrg.model.pretrained import check_pretrained, load_settings, ppo_obstacle, require_folder


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        (Gemma2Config(), "softcapping"),
        (BloomConfig(), "ALiBi"),
        (LlamaConfig(), None),
        (Qwen2Config(), None),
        (Gemma2Config(attn_logit_softcapping=None), None),
    ],
)
def test_ppo_needs_plain_attention(settings, word):
    obstacle = ppo_obstacle(settings)
    assert obstacle is None if word is None else word in obstacle


@pytest.mark.parametrize(
    "name", ["./weights", "/no/such/folder", "~/no_such", "a/b/c", "kept/gone"]
)
def test_a_path_that_is_not_there_is_refused_without_asking_the_hub(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept").mkdir()
    monkeypatch.setattr(
        "transformers.AutoConfig.from_pretrained", lambda *_, **__: pytest.fail("asked the hub")
    )
    with pytest.raises(DecoderError) as caught:
        load_settings(name)
    assert caught.value.code == "pretrained_missing"
    assert name in str(caught.value)


def test_a_name_of_the_hub_is_left_to_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    require_folder("owner/name")
    require_folder("gpt2")


@pytest.mark.parametrize(
    ("vocabulary", "positions", "code"),
    [(300, 64, "max_positions"), (20, 512, "bad_config"), (300, 512, None)],
)
def test_a_decoder_that_cannot_work_is_refused_by_its_settings(
    tmp_path, vocabulary, positions, code
):
    folder = tmp_path / "decoder"
    tokenizer = train_tokenizer(["the lungs are clear"], 270)
    tokenizer.save_pretrained(folder)
    LlamaConfig(vocab_size=vocabulary, max_position_embeddings=positions).save_pretrained(folder)
    config = ModelConfig(decoder=DecoderConfig(pretrained=str(folder), max_positions=256))
    if code is None:
        check_pretrained(config)
        return
    with pytest.raises(DecoderError) as caught:
        check_pretrained(config)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("settings", "code"), [(BloomConfig(), "decoder_attention"), (T5Config(), "bad_config")]
)
def test_what_training_cannot_load_is_refused_by_its_type(tmp_path, settings, code):
    settings.save_pretrained(tmp_path)
    config = ModelConfig(decoder=DecoderConfig(pretrained=str(tmp_path)))
    with pytest.raises(DecoderError, match="take Llama, Qwen, Mistral") as caught:
        check_pretrained(config)
    assert caught.value.code == code
