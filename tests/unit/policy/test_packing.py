import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from lmrrg.policy import packing
from lmrrg.policy.packing import Packed, pack, packed_attention
from lmrrg.ppo.errors import PPOError
from tests.support.ppo.batches import mask_of

WIDTH, VOCABULARY = 32, 40


@pytest.fixture(
    scope="module", params=[4, 2], ids=["every head its own keys", "two heads share keys"]
)
def decoder(request) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=request.param,
        intermediate_size=48,
        max_position_embeddings=64,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config).eval()


def logits_of(decoder: LlamaForCausalLM, packed: Packed) -> torch.Tensor:
    with packed_attention(decoder):
        return decoder(
            inputs_embeds=packed.embeddings,
            position_ids=packed.positions,
            layout=packed.layout,
            logits_to_keep=packed.predicts,
            use_cache=False,
        ).logits[0]


def one_by_one(decoder: LlamaForCausalLM, prompts, ids, lengths, group) -> torch.Tensor:
    """The oracle: each report alone behind its prompt, no padding, no mask."""
    rows = []
    for row, length in enumerate(lengths):
        if length:
            prompt = prompts[group[row]]
            inputs = torch.cat([prompt, decoder.get_input_embeddings()(ids[row, :length])])[None]
            rows.append(decoder(inputs_embeds=inputs).logits[0, len(prompt) - 1 : -1])
    return torch.cat(rows)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_packed_reports_equal_separate_ones(decoder, data):
    prompt_lengths = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    lengths = data.draw(st.lists(st.integers(0, 7), min_size=1, max_size=6).filter(any))
    group = data.draw(
        st.lists(
            st.integers(0, len(prompt_lengths) - 1), min_size=len(lengths), max_size=len(lengths)
        )
    )
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    prompts = [torch.randn(length, WIDTH, generator=generator) for length in prompt_lengths]
    ids = torch.randint(VOCABULARY, (len(lengths), max(lengths)), generator=generator)
    packed = pack(
        prompts, decoder.get_input_embeddings()(ids), mask_of(lengths), torch.tensor(group)
    )
    with torch.no_grad():
        torch.testing.assert_close(
            logits_of(decoder, packed),
            one_by_one(decoder, prompts, ids, lengths, group),
            rtol=1e-4,
            atol=2e-5,
        )


@pytest.mark.parametrize("scaling", [None, 0.3])
def test_the_formula_on_cpu_is_torchs_attention_elsewhere(scaling):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, length, 8, generator=generator) for length in (5, 9, 9))
    visible = torch.rand(2, 1, 5, 9, generator=generator) < 0.5
    visible[..., 0] = True
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=visible, scale=scaling
    )
    torch.testing.assert_close(packing._mixed(query, key, value, visible, scaling), expected)


def test_a_report_never_sees_its_neighbour(decoder):
    """Changing one sample of a study changes no logit of the other one."""
    prompts = [torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(1))]
    ids = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    mask, group = mask_of([4, 4]), torch.tensor([0, 0])
    before = logits_of(decoder, pack(prompts, decoder.get_input_embeddings()(ids), mask, group))
    ids[0] = torch.tensor([9, 10, 11, 12])
    after = logits_of(decoder, pack(prompts, decoder.get_input_embeddings()(ids), mask, group))
    assert torch.equal(before[4:], after[4:])
    assert not torch.equal(before[:4], after[:4])


def test_no_position_is_padding():
    tokens = torch.zeros(3, 4, WIDTH)
    prompts = [torch.zeros(2, WIDTH), torch.zeros(5, WIDTH)]
    packed = pack(prompts, tokens, mask_of([4, 1, 2]), torch.tensor([1, 0, 1]))
    assert packed.embeddings.shape == (1, 2 + 5 + 3 + 0 + 1, WIDTH)
    assert packed.positions.tolist() == [[0, 1, 0, 1, 2, 3, 4, 5, 6, 7, 5]]


@pytest.mark.parametrize("special", [{"sliding_window": 4}, {"softcap": 30.0}])
def test_another_kind_of_attention_is_refused(decoder, special):
    packed = pack(
        [torch.zeros(3, WIDTH)], torch.zeros(1, 4, WIDTH), mask_of([4]), torch.tensor([0])
    )
    with packed_attention(decoder), pytest.raises(PPOError) as refused:
        decoder(
            inputs_embeds=packed.embeddings,
            position_ids=packed.positions,
            layout=packed.layout,
            **special,
        )
    assert refused.value.code == "decoder_attention"
    assert decoder.config._attn_implementation == "sdpa"


def test_gradient_reaches_prompts_and_tokens_but_not_the_padding(decoder):
    prompts = [torch.randn(3, WIDTH, requires_grad=True)]
    tokens = torch.randn(2, 5, WIDTH, requires_grad=True)
    packed = pack(prompts, tokens, mask_of([5, 2]), torch.tensor([0, 0]))
    logits_of(decoder, packed).sum().backward()
    assert prompts[0].grad.abs().sum() > 0
    assert tokens.grad[0, :4].abs().sum(-1).gt(0).all()
    assert not tokens.grad[1, 1:].any()  # the last token of a report is input to nothing
