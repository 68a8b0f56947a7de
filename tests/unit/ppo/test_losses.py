import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmrrg.ppo.losses import (
    kl_loss,
    loss_shares,
    policy_loss,
    token_entropy,
    token_log_probs,
    value_loss,
)
from tests.support.ppo.batches import mask_of, poisoned, random_batch

INPUTS = ("log_probs", "old_log_probs", "advantages", "mask")
VALUE_INPUTS = ("values", "old_values", "returns", "mask")


def oracle_policy_loss(batch, clip: float, dual_clip: float | None) -> float:
    """The published formula, token by token."""
    total, count = 0.0, 0
    for row in range(batch["mask"].shape[0]):
        for t in range(int(batch["mask"][row].sum())):
            advantage = float(batch["advantages"][row, t])
            ratio = math.exp(
                float(batch["log_probs"][row, t]) - float(batch["old_log_probs"][row, t])
            )
            gain = min(ratio * advantage, min(max(ratio, 1 - clip), 1 + clip) * advantage)
            if dual_clip is not None and advantage < 0:
                gain = max(gain, dual_clip * advantage)
            total, count = total - gain, count + 1
    return total / count


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=5).filter(any),
    seed=st.integers(0, 9999),
    dual_clip=st.sampled_from([None, 1.05, 3.0]),
)
def test_policy_loss_equals_the_formula(lengths, seed, dual_clip):
    batch = {
        k: v.double() if v.is_floating_point() else v
        for k, v in random_batch(seed, lengths).items()
    }
    got = policy_loss(
        *(batch[k] for k in INPUTS), shares=1 / sum(lengths), clip=0.2, dual_clip=dual_clip
    )
    assert float(got.loss) == pytest.approx(oracle_policy_loss(batch, 0.2, dual_clip), abs=1e-9)


def test_value_loss_equals_the_formula():
    batch = random_batch(6, [4, 1, 3])
    expected = []
    for row, t in batch["mask"].nonzero().tolist():
        value, old, target = (float(batch[k][row, t]) for k in VALUE_INPUTS[:3])
        bounded = min(max(value, old - 0.2), old + 0.2)
        expected.append(max((value - target) ** 2, (bounded - target) ** 2) / 2)
    got = value_loss(*(batch[k] for k in VALUE_INPUTS), shares=1 / 8, clip=0.2)
    assert float(got) == pytest.approx(sum(expected) / 8, rel=1e-6)


def gradient(
    batch, poison: float | None, split: list[slice]
) -> tuple[float, torch.Tensor, torch.Tensor]:
    """Return loss and gradients of one minibatch that is run in the parts of ``split``."""
    mask, tokens = batch["mask"], float(batch["mask"].sum())
    inputs = {
        k: v if poison is None or k == "mask" else poisoned(v, mask, poison)
        for k, v in batch.items()
    }
    for name in ("log_probs", "values"):
        inputs[name] = inputs[name].clone().requires_grad_()
    total = 0.0
    for part in split:
        cut = {k: v[part] for k, v in inputs.items()}
        weights = torch.full_like(cut["advantages"], 0.7)
        loss = policy_loss(
            *(cut[k] for k in INPUTS), shares=1 / tokens, clip=0.2, dual_clip=3.0, weights=weights
        ).loss
        loss = loss + value_loss(*(cut[k] for k in VALUE_INPUTS), shares=1 / tokens, clip=0.2)
        loss.backward()
        total += float(loss.detach())
    return total, inputs["log_probs"].grad, inputs["values"].grad


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_poisoned_padding_changes_no_bit(poison):
    batch = random_batch(8, [5, 2, 7, 0], width=8)
    clean, dirty = gradient(batch, None, [slice(0, 4)]), gradient(batch, poison, [slice(0, 4)])
    assert clean[0] == dirty[0]
    assert all(torch.equal(a, b) for a, b in zip(clean[1:], dirty[1:], strict=True))
    assert math.isfinite(clean[0])
    assert clean[1][batch["mask"]].any()


@pytest.mark.parametrize(
    "split", [[(0, 1), (1, 4)], [(0, 3), (3, 4)], [(0, 1), (1, 2), (2, 3), (3, 4)]]
)
def test_microbatches_do_not_change_the_loss(split):
    batch = random_batch(8, [5, 2, 7, 1], width=8)
    whole = gradient(batch, None, [slice(0, 4)])
    parts = gradient(batch, None, [slice(*part) for part in split])
    assert parts[0] == pytest.approx(whole[0], rel=1e-6)
    assert all(
        torch.allclose(a, b, rtol=1e-6, atol=1e-9)
        for a, b in zip(parts[1:], whole[1:], strict=True)
    )


def test_before_the_first_update():
    """At ratio 1 nothing is clipped, the divergence is 0, the gradient is the policy gradient."""
    batch = random_batch(2, [3, 5])
    log_probs = batch["old_log_probs"].clone().requires_grad_()
    got = policy_loss(
        log_probs,
        batch["old_log_probs"],
        batch["advantages"],
        batch["mask"],
        shares=1 / 8,
        clip=0.2,
    )
    got.loss.backward()
    assert (float(got.clipped), float(got.approx_kl), float(got.ratio_error)) == (0, 0, 0)
    expected = torch.where(batch["mask"], -batch["advantages"] / 8, 0.0)
    torch.testing.assert_close(log_probs.grad, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("advantage", "ratio", "flows"),
    [(1, 1.5, False), (1, 0.5, True), (-1, 0.5, False), (-1, 1.5, True)],
)
def test_clip_stops_the_gradient_only_where_the_policy_already_moved_far_enough(
    advantage, ratio, flows
):
    log_probs = torch.tensor([[math.log(ratio)]], requires_grad=True)
    mask, one = mask_of([1]), torch.tensor([[float(advantage)]])
    got = policy_loss(log_probs, torch.zeros(1, 1), one, mask, shares=1, clip=0.2)
    got.loss.backward()
    assert bool(log_probs.grad.any()) is flows
    assert float(got.clipped) == (0 if flows else 1)


def test_dual_clip_bounds_the_loss_of_bad_tokens():
    mask, old = mask_of([1]), torch.zeros(1, 1)
    far = torch.full((1, 1), 5.0, requires_grad=True)
    got = policy_loss(far, old, torch.tensor([[-2.0]]), mask, shares=1, clip=0.2, dual_clip=3.0)
    assert got.loss.item() == pytest.approx(6.0)
    got.loss.backward()
    assert not far.grad.any()


def test_a_huge_ratio_keeps_a_finite_gradient():
    far = torch.tensor([[500.0, -500.0]], requires_grad=True)
    policy_loss(
        far, torch.zeros(1, 2), torch.ones(1, 2), mask_of([2]), shares=1 / 2, clip=0.2
    ).loss.backward()
    assert torch.isfinite(far.grad).all()


def test_token_log_probs_and_entropy():
    logits = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([[0, 6, 2], [3, 3, 1]])
    expected = logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    torch.testing.assert_close(token_log_probs(logits, ids), expected)
    torch.testing.assert_close(
        token_entropy(logits), torch.distributions.Categorical(logits=logits).entropy()
    )


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        ("token", [[1 / 5, 0, 0, 0], [1 / 5, 1 / 5, 1 / 5, 1 / 5], [0, 0, 0, 0]]),
        ("sequence", [[1 / 2, 0, 0, 0], [1 / 8, 1 / 8, 1 / 8, 1 / 8], [0, 0, 0, 0]]),
        ("constant", [[1 / 20, 0, 0, 0], [1 / 20, 1 / 20, 1 / 20, 1 / 20], [0, 0, 0, 0]]),
    ],
)
def test_shares_of_tokens(aggregation, expected):
    """Three reports of 1, 4 and 0 tokens: the last could not be scored and counts as no report."""
    torch.testing.assert_close(
        loss_shares(mask_of([1, 4, 0]), aggregation, longest=10), torch.tensor(expected)
    )


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_gradient_of_the_kl_loss_over_all_tokens_of_a_small_categorical(estimator):
    """The expected gradient of the samples is that of KL(pi || ref), or of KL(ref || pi)."""
    logits = torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([-0.4, 0.1, 0.2], dtype=torch.float64).log_softmax(0)
    log_probs = logits.log_softmax(0)
    loss = kl_loss(
        log_probs[:, None],
        reference[:, None],
        torch.ones(3, 1, dtype=torch.bool),
        shares=log_probs.detach().exp()[:, None],
        estimator=estimator,
    )
    (got,) = torch.autograd.grad(loss, logits, retain_graph=True)
    pairs = {"k2": (log_probs, reference), "k3": (reference, log_probs)}[estimator]
    exact = (pairs[0].exp() * (pairs[0] - pairs[1])).sum()
    (expected,) = torch.autograd.grad(exact, logits)
    torch.testing.assert_close(got, expected)
