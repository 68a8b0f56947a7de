from dataclasses import replace

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from lmrrg.config.tree import Config
from lmrrg.model.decoder import build_decoder
from lmrrg.model.generator import VISUAL_TOKENS, ReportGenerator
from lmrrg.model.prompts import prompt_ids, report_ids
from lmrrg.vision.study_features import StudyFeatures
from tests.conftest import SENTENCES
from tests.support.new_model import new_model

REPORTS = (SENTENCES[0], " ".join(SENTENCES[:3]), SENTENCES[6], " ".join(SENTENCES[3:5]))


@pytest.fixture
def prompts(model: ReportGenerator) -> list[list[int]]:
    """Return prompts of four different lengths."""
    config = model.config.model_copy(update={"use_indication": True})
    texts = ("", "Cough.", "Fever and cough for three days.", "Pain")
    return [prompt_ids(model.tokenizer, config, text) for text in texts]


def padded(
    model: ReportGenerator, rows: list[list[int]], extra: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return report ids with junk in the padding, and their mask."""
    width = max(map(len, rows)) + extra
    ids, mask = (
        torch.full((len(rows), width), -100),
        torch.zeros(len(rows), width, dtype=torch.bool),
    )
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), True
    return ids, mask


def targets(model: ReportGenerator) -> list[list[int]]:
    return [report_ids(model.tokenizer, text, 100) for text in REPORTS]


@pytest.mark.parametrize("same_prompts", [True, False])
def test_rows_depend_on_neither_padding_nor_batch(
    model: ReportGenerator, features: StudyFeatures, prompts: list[list[int]], same_prompts: bool
):
    if same_prompts:
        prompts = [prompts[0]] * 4
    rows = targets(model)
    with torch.no_grad():
        together = model.report_logits(features, prompts, *padded(model, rows, extra=3))
        for i, row in enumerate(rows):
            alone = model.report_logits(features.select([i]), [prompts[i]], *padded(model, [row]))
            torch.testing.assert_close(
                together.logits[i, : len(row)], alone.logits[0], atol=1e-5, rtol=1e-4
            )
            torch.testing.assert_close(
                together.hidden[i, : len(row)], alone.hidden[0], atol=1e-5, rtol=1e-4
            )
            torch.testing.assert_close(
                together.disease_logits[i], alone.disease_logits[0], atol=1e-5, rtol=1e-4
            )


def test_logits_are_those_of_the_plain_decoder_on_the_whole_sequence(
    model: ReportGenerator, features: StudyFeatures, prompts: list[list[int]]
):
    rows = targets(model)
    with torch.no_grad():
        got = model.report_logits(features, prompts, *padded(model, rows))
        starts = model.prompt_embeddings(model.visual(features).tokens, prompts)
        for i, row in enumerate(rows):
            words = model.decoder.get_input_embeddings()(torch.tensor(row))
            whole = model.decoder(inputs_embeds=torch.cat([starts[i], words])[None]).logits[0]
            expected = whole[len(starts[i]) - 1 : -1]
            torch.testing.assert_close(got.logits[i, : len(row)], expected, atol=1e-5, rtol=1e-4)


def test_hidden_states_are_those_behind_the_logits(
    model: ReportGenerator, features: StudyFeatures, prompts: list[list[int]]
):
    with torch.no_grad():
        out = model.report_logits(features, prompts, *padded(model, targets(model)))
        torch.testing.assert_close(model.decoder.lm_head(out.hidden), out.logits)


def test_a_token_is_predicted_without_seeing_it_or_what_follows(
    model: ReportGenerator, features: StudyFeatures, prompts: list[list[int]]
):
    ids, mask = padded(model, targets(model))
    changed = ids.clone()
    changed[1, 4] = (changed[1, 4] + 1) % len(model.tokenizer)
    with torch.no_grad():
        before = model.report_logits(features, prompts, ids, mask).logits
        after = model.report_logits(features, prompts, changed, mask).logits
    torch.testing.assert_close(before[1, :5], after[1, :5])
    assert (before[1, 5] - after[1, 5]).abs().max() > 1e-3


def test_the_image_reaches_every_predicted_token(
    model: ReportGenerator, features: StudyFeatures, prompts: list[list[int]]
):
    ids, mask = padded(model, targets(model))
    with torch.no_grad():
        seen = model.report_logits(features, prompts, ids, mask).logits
        other = model.report_logits(
            replace(features, patches=features.patches.flip(0)), prompts, ids, mask
        ).logits
    assert (seen - other).abs().amax(-1)[mask].min() > 1e-6


def test_poisoned_padding_changes_no_gradient(
    model: ReportGenerator, features: StudyFeatures, prompts: list[list[int]]
):
    def gradients(poison: bool) -> dict[str, torch.Tensor]:
        model.zero_grad()
        patches = features.patches.clone()
        ids, mask = padded(model, targets(model), extra=2)
        if poison:
            patches[~features.view_mask] = float("nan")
            ids = torch.where(mask, ids, 10**9)
        out = model.report_logits(replace(features, patches=patches), prompts, ids, mask)
        torch.nn.functional.cross_entropy(out.logits[mask], ids[mask]).backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    clean, poisoned = gradients(False), gradients(True)
    assert clean.keys() == poisoned.keys()
    for name in clean:
        torch.testing.assert_close(clean[name], poisoned[name], msg=name)


def test_prompt_embeddings_are_visual_tokens_then_text(
    model: ReportGenerator, prompts: list[list[int]]
):
    tokens = torch.randn(4, VISUAL_TOKENS, model.hidden_size)
    rows = model.prompt_embeddings(tokens, prompts)
    table = model.decoder.get_input_embeddings().weight
    for row, seen, ids in zip(rows, tokens, prompts, strict=True):
        assert torch.equal(row[:VISUAL_TOKENS], seen)
        assert torch.equal(row[VISUAL_TOKENS:], table[ids])


def test_visual_tokens_start_at_the_scale_of_the_words(
    tiny_config: Config, features: StudyFeatures
):
    new = new_model(tiny_config, list(REPORTS)).eval()
    with torch.no_grad():
        tokens = new.visual(features).tokens
    assert tokens.std() == pytest.approx(
        float(new.decoder.get_input_embeddings().weight.detach().std()), rel=0.1
    )


def test_the_seed_decides_the_weights_and_leaves_the_callers_generator_alone(tiny_config: Config):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one = new_model(tiny_config, list(REPORTS))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    two = new_model(tiny_config, list(REPORTS))
    other = new_model(tiny_config.model_copy(update={"seed": 8}), list(REPORTS))
    weights = [m.state_dict() for m in (one, two, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["projector.0.weight"], weights[2]["projector.0.weight"])


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_both_small_architectures(tiny_config: Config, features: StudyFeatures, architecture: str):
    decoder = tiny_config.model.decoder.model_copy(update={"architecture": architecture})
    config = tiny_config.model_copy(
        update={"model": tiny_config.model.model_copy(update={"decoder": decoder})}
    )
    new = new_model(config, list(REPORTS)).eval()
    assert new.decoder.config.model_type == architecture
    assert new.decoder.generation_config.eos_token_id == new.tokenizer.eos_token_id
    ids, mask = padded(new, targets(new))
    prompt = prompt_ids(new.tokenizer, config.model, "")
    with torch.no_grad():
        out = new.report_logits(features, [prompt] * 4, ids, mask)
    assert out.logits.shape == (4, ids.shape[1], len(new.tokenizer))
    assert out.logits[mask].isfinite().all()


def test_a_pretrained_decoder_of_another_family(
    tiny_config: Config, model: ReportGenerator, tmp_path, features
):
    """GPT-2: learned positions, tied head, and its own tokenizer, which gets a padding token."""
    size = {"n_embd": 64, "n_layer": 1, "n_head": 2, "n_positions": 512}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(model.tokenizer), **size)).save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    decoder = tiny_config.model.decoder.model_copy(update={"pretrained": str(tmp_path)})
    config = tiny_config.model_copy(
        update={"model": tiny_config.model.model_copy(update={"decoder": decoder})}
    )
    new = new_model(config, []).eval()
    prompts = [prompt_ids(new.tokenizer, config.model, "")] * 3 + [[5] * 20]
    rows = targets(new)
    with torch.no_grad():
        together = new.report_logits(features, prompts, *padded(new, rows))
        alone = new.report_logits(features.select([1]), prompts[1:2], *padded(new, rows[1:2]))
    torch.testing.assert_close(
        together.logits[1, : len(rows[1])], alone.logits[0], atol=1e-5, rtol=1e-4
    )


def test_lora_starts_as_the_base_model_and_trains_nothing_else(
    tiny_config: Config, model: ReportGenerator
):
    settings = tiny_config.model.decoder.model_copy(update={"lora_rank": 4})
    torch.manual_seed(0)
    plain = build_decoder(tiny_config.model.decoder, model.tokenizer).eval()
    torch.manual_seed(0)
    adapted = build_decoder(settings, model.tokenizer).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, adapted(ids).logits)
    trainable = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert trainable
    assert all("lora_" in name for name in trainable)
    assert (
        sum(adapted.get_parameter(n).numel() for n in trainable)
        < sum(p.numel() for p in plain.parameters()) / 3
    )
