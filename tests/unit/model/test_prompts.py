import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmrrg.config.model import ModelConfig
from lmrrg.config.tree import Config
from lmrrg.model.decoder import DecoderError, build_tokenizer, train_tokenizer
from lmrrg.model.prompts import prompt_ids, report_ids
from tests.conftest import SENTENCES

TOKENIZER = train_tokenizer([*SENTENCES, ModelConfig().instruction] * 3, 400)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_restored_exactly(text: str):
    ids = TOKENIZER.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert TOKENIZER.decode(ids) == text


@pytest.mark.parametrize(
    "text", ["No  PTX .  Heart, size: OK (see above)?", "50% of 3.5 cm – naïve μ", " x 's 've \n"]
)
def test_spacing_and_case_are_kept(text: str):
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == text


def test_training_twice_gives_the_same_tokenizer():
    again = train_tokenizer([*SENTENCES, ModelConfig().instruction] * 3, 400)
    assert json.loads(again._tokenizer.to_str()) == json.loads(TOKENIZER._tokenizer.to_str())


def test_the_vocabulary_is_bounded_and_special_tokens_are_single():
    assert len(TOKENIZER) <= 400
    assert (
        len(
            {
                TOKENIZER.pad_token_id,
                TOKENIZER.bos_token_id,
                TOKENIZER.eos_token_id,
                TOKENIZER.unk_token_id,
            }
        )
        == 4
    )
    assert TOKENIZER.encode(TOKENIZER.eos_token, add_special_tokens=False) == [
        TOKENIZER.eos_token_id
    ]


def test_the_words_of_the_instruction_are_single_tokens(tiny_config: Config):
    decoder = tiny_config.model.decoder.model_copy(update={"vocabulary": 400})
    model = tiny_config.model.model_copy(update={"decoder": decoder})
    tokenizer = build_tokenizer(model, list(SENTENCES) * 5)
    assert len(prompt_ids(tokenizer, model, "")) == len(model.instruction.split()) + 1


def test_no_reports_no_tokenizer():
    with pytest.raises(DecoderError, match="no_reports"):
        build_tokenizer(ModelConfig(), ["", " "])


def test_report_targets_end_with_eos_unless_they_are_cut():
    whole = report_ids(TOKENIZER, f" {SENTENCES[2]} ", 100)
    assert whole[-1] == TOKENIZER.eos_token_id
    assert TOKENIZER.decode(whole, skip_special_tokens=True) == SENTENCES[2]
    assert report_ids(TOKENIZER, SENTENCES[2], len(whole)) == whole
    assert report_ids(TOKENIZER, SENTENCES[2], len(whole) - 1) == whole[:-1]
    assert report_ids(TOKENIZER, SENTENCES[2], 3) == whole[:3]


def test_the_indication_is_used_only_when_asked_for_and_bounded():
    without = ModelConfig(use_indication=False)
    with_it = ModelConfig(use_indication=True, max_indication_tokens=6)
    plain = prompt_ids(TOKENIZER, without, "Cough and fever.")
    assert plain == prompt_ids(TOKENIZER, without, "")
    assert plain == prompt_ids(TOKENIZER, with_it, "  \n ")
    short, long = (prompt_ids(TOKENIZER, with_it, text) for text in ("Cough.", "Cough. " * 50))
    assert len(plain) < len(short) <= len(long)
    head = len(TOKENIZER.encode(" indication :", add_special_tokens=False))
    assert len(long) == len(plain) + head + 6
    newline = TOKENIZER.encode("\n", add_special_tokens=False)
    for ids in (plain, short, long):
        assert ids[-len(newline) :] == newline


def test_the_prior_report_is_used_only_when_asked_for_and_bounded():
    without = ModelConfig(use_indication=True)
    with_it = ModelConfig(use_indication=True, use_prior=True, max_prior_tokens=6)
    plain = prompt_ids(TOKENIZER, without, "Cough.")
    assert plain == prompt_ids(TOKENIZER, without, "Cough.", SENTENCES[0])
    assert plain == prompt_ids(TOKENIZER, with_it, "Cough.")
    assert plain == prompt_ids(TOKENIZER, with_it, "Cough.", "  \n ")
    short, long = (
        prompt_ids(TOKENIZER, with_it, "Cough.", text) for text in ("Clear.", "Clear. " * 50)
    )
    assert len(plain) < len(short) <= len(long)
    head = len(TOKENIZER.encode(" prior report :", add_special_tokens=False))
    assert len(long) == len(plain) + head + 6


def test_a_prompt_is_instruction_indication_prior_report_and_line_break():
    config = ModelConfig(use_indication=True, use_prior=True)
    ids = prompt_ids(TOKENIZER, config, "Cough  and\nfever.", "No\n\tpneumothorax. ")
    expected = "describe : indication : Cough and fever. prior report : No pneumothorax.\n"
    assert TOKENIZER.decode(ids) == expected.replace("describe :", config.instruction)
    alone = prompt_ids(TOKENIZER, config, "", "No pneumothorax.")
    assert TOKENIZER.decode(alone) == f"{config.instruction} prior report : No pneumothorax.\n"


@pytest.mark.parametrize("attack", ["<|eos|>", "fever <|eos|><|pad|> now", "<|bos|>"])
def test_free_text_cannot_inject_special_tokens(attack: str):
    config = ModelConfig(use_indication=True, use_prior=True)
    ids = prompt_ids(TOKENIZER, config, attack, attack) + report_ids(TOKENIZER, attack, 100)[:-1]
    assert not set(ids) & set(TOKENIZER.all_special_ids)
