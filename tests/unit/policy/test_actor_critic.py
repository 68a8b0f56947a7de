import dataclasses

import pytest
import torch

from lmrrg.model.checkpoint import full_state, load_checkpoint
from lmrrg.model.decoder import adapters_off, add_lora
from lmrrg.policy.actor_critic import (
    ActorCritic,
    load_value_head,
    report_log_probs,
    save_value_head,
)
from lmrrg.policy.batches import Rollout
from lmrrg.ppo.errors import PPOError
from lmrrg.ppo.losses import policy_loss, value_loss
from lmrrg.vision.study_features import StudyFeatures
from tests.support.ppo.batches import mask_of

LENGTHS = [3, 1, 7, 5, 2, 6]


@pytest.fixture(scope="module")
def generator(tiny_checkpoint):
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture(scope="module")
def rollout(generator) -> Rollout:
    """Three studies with two reports each; the last study has a longer prompt."""
    random = torch.Generator().manual_seed(0)
    inputs = generator.inputs
    return Rollout(
        features=StudyFeatures(
            torch.randn(3, 1, inputs.patches, inputs.patch_width, generator=random),
            torch.zeros(3, 1, dtype=torch.long),
            torch.ones(3, 1, dtype=torch.bool),
        ),
        prompts=[[4, 5], [4, 5], [4, 5, 6]],
        study=torch.tensor([0, 0, 1, 1, 2, 2]),
        ids=torch.randint(4, 100, (6, 7), generator=random),
        mask=mask_of(LENGTHS),
    )


def test_log_probs_are_those_of_the_generator(generator, rollout):
    with torch.no_grad():
        forward = generator.report_logits(
            rollout.features.select(rollout.study),
            [rollout.prompts[i] for i in rollout.study],
            rollout.ids,
            rollout.mask,
        )
        expected = forward.logits.log_softmax(-1).gather(-1, rollout.ids[..., None])[..., 0]
        got = ActorCritic(generator)(rollout, entropy=True)
    torch.testing.assert_close(
        got.log_probs, torch.where(rollout.mask, expected, 0.0), rtol=0, atol=1e-5
    )
    entropy = torch.distributions.Categorical(logits=forward.logits).entropy()
    torch.testing.assert_close(
        got.entropy, torch.where(rollout.mask, entropy, 0.0), rtol=0, atol=1e-5
    )
    assert torch.equal(report_log_probs(generator, rollout).detach(), got.log_probs)


def test_values_start_at_zero_and_follow_the_hidden_states(generator, rollout):
    model = ActorCritic(generator)
    assert not model(rollout).values.any()
    torch.nn.init.ones_(model.value_head.weight)
    forward = generator.report_logits(
        rollout.features.select(rollout.study),
        [rollout.prompts[i] for i in rollout.study],
        rollout.ids,
        rollout.mask,
    )
    expected = torch.where(rollout.mask, forward.hidden.sum(-1), 0.0)
    torch.testing.assert_close(model(rollout).values, expected, rtol=1e-4, atol=1e-4)


def test_bfloat16_products_keep_float32_weights_and_nearly_the_log_probs(tiny_checkpoint, rollout):
    generator = load_checkpoint(tiny_checkpoint)
    exact, rough = (
        ActorCritic(generator, precision=precision)(rollout) for precision in ("fp32", "bf16")
    )
    assert not torch.equal(rough.log_probs, exact.log_probs)
    torch.testing.assert_close(rough.log_probs, exact.log_probs, rtol=0, atol=0.05)
    assert torch.equal(report_log_probs(generator, rollout, "bf16"), rough.log_probs)
    assert rough.log_probs.dtype == rough.values.dtype == torch.float32
    rough.log_probs.sum().backward()
    assert {p.dtype for p in generator.parameters()} == {torch.float32}
    assert generator.decoder.lm_head.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("critic", ["shared", "detached", "separate"])
def test_whom_the_value_loss_teaches(tiny_checkpoint, rollout, critic):
    model = ActorCritic(load_checkpoint(tiny_checkpoint), critic=critic)
    torch.nn.init.ones_(model.value_head.weight)
    model(rollout).values.sum().backward()
    assert model.value_head.weight.grad.abs().sum() > 0
    assert any(p.grad is not None for p in model.generator.parameters()) is (critic == "shared")
    if critic == "separate":
        assert any(p.grad is not None for p in model.critic.decoder.parameters())
        assert all(p.grad is None for p in model.critic.extractor.parameters())


@pytest.mark.parametrize("trainable", ["decoder", "all"])
def test_who_learns(tiny_checkpoint, rollout, trainable):
    model = ActorCritic(load_checkpoint(tiny_checkpoint), trainable)
    output = model(rollout)
    (output.log_probs.sum() + output.values.sum()).backward()
    assert any(p.grad is not None for p in model.generator.projector.parameters()) is (
        trainable == "all"
    )
    assert model.generator.decoder.get_input_embeddings().weight.grad.abs().sum() > 0
    assert model.value_head.weight.grad is not None


def test_with_adapters_nothing_else_of_the_decoder_learns(tiny_checkpoint, rollout):
    plain = load_checkpoint(tiny_checkpoint)
    generator = load_checkpoint(tiny_checkpoint)
    add_lora(generator.decoder, 2)
    model = ActorCritic(generator)
    assert torch.equal(model(rollout).log_probs, ActorCritic(plain)(rollout).log_probs)
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(".lora_" in name or name.startswith("value_head.") for name in learning)
    assert any(".lora_" in name for name in learning)
    assert full_state(generator).keys() == full_state(plain).keys()


def test_without_its_adapters_the_policy_is_the_model_it_came_from(tiny_checkpoint, rollout):
    plain = ActorCritic(load_checkpoint(tiny_checkpoint))(rollout).log_probs
    generator = load_checkpoint(tiny_checkpoint)
    add_lora(generator.decoder, 2)
    model = ActorCritic(generator)
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.add_(0.1)
    moved = model(rollout).log_probs
    with adapters_off(generator.decoder):
        assert torch.equal(model(rollout).log_probs, plain)
    assert torch.equal(model(rollout).log_probs, moved)
    assert not torch.equal(moved, plain)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == learning, (
        "nothing was frozen by it"
    )


def test_warm_up_moves_only_the_head(tiny_checkpoint, rollout):
    model = ActorCritic(load_checkpoint(tiny_checkpoint))
    model(rollout, value_only=True).values.sum().backward()
    assert all(p.grad is None for p in model.generator.parameters())
    assert model.value_head.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("critic", ["shared", "detached", "separate"])
def test_every_weight_is_in_exactly_one_optimizer_group(tiny_checkpoint, critic):
    model = ActorCritic(load_checkpoint(tiny_checkpoint), "all", critic)
    groups = model.parameter_groups((1e-5, 1e-3, 1e-4))
    assert [group["lr"] for group in groups] == [1e-5, 1e-3, 1e-4][: len(groups)]
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_ids_in_the_padding_change_no_bit(tiny_checkpoint, rollout):
    """Whole path: loss and every gradient of the model."""
    results = []
    for junk in (0, 99):
        model = ActorCritic(load_checkpoint(tiny_checkpoint))
        output = model(
            dataclasses.replace(rollout, ids=torch.where(rollout.mask, rollout.ids, junk))
        )
        mask, zeros = rollout.mask, torch.zeros(rollout.ids.shape)
        advantages = torch.linspace(-1, 1, zeros.numel()).view(zeros.shape)
        loss = policy_loss(
            output.log_probs, output.log_probs.detach(), advantages, mask, shares=1 / 24, clip=0.2
        ).loss
        loss = loss + value_loss(output.values, zeros, advantages, mask, shares=1 / 24, clip=0.2)
        loss.backward()
        results.append((loss.detach(), [p.grad for p in model.parameters() if p.grad is not None]))
    assert torch.equal(results[0][0], results[1][0])
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))


def test_value_head_file(generator, tmp_path):
    model, other = ActorCritic(generator), ActorCritic(generator)
    torch.nn.init.normal_(model.value_head.weight)
    save_value_head(model.value_head, tmp_path)
    load_value_head(other.value_head, tmp_path)
    assert torch.equal(model.value_head.weight, other.value_head.weight)
    with pytest.raises(PPOError, match="value_head_missing"):
        load_value_head(other.value_head, tmp_path / "nowhere")
