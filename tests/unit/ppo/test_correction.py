import copy
import math
import pickle

import pytest
import torch

from lmrrg.ppo.correction import Parity, importance_weights, parity
from lmrrg.ppo.errors import PPOError
from tests.support.ppo.batches import mask_of, poisoned, random_batch


def test_token_weights_are_truncated_ratios():
    mask = mask_of([2, 1])
    trainer = torch.tensor([[math.log(0.5), 0.0], [math.log(9.0), 0.0]])
    weights = importance_weights(trainer, torch.zeros(2, 2), mask, "token", 2.0)
    torch.testing.assert_close(weights, torch.tensor([[0.5, 1.0], [2.0, 0.0]]))


def test_sequence_weights_are_products():
    mask = mask_of([3, 2])
    trainer = torch.full((2, 3), math.log(0.5))
    weights = importance_weights(trainer, torch.zeros(2, 3), mask, "sequence", 2.0)
    torch.testing.assert_close(weights, torch.tensor([[0.125] * 3, [0.25, 0.25, 0.0]]))


def test_weights_make_the_estimate_unbiased():
    """The weighted mean under the engine's distribution is the mean under the trainer's."""
    generator = torch.Generator().manual_seed(0)
    trainer, engine = (
        torch.randn(5, generator=generator, dtype=torch.float64).log_softmax(0) for _ in range(2)
    )
    gain = torch.randn(5, generator=generator, dtype=torch.float64)
    weights = importance_weights(trainer[None], engine[None], mask_of([5]), "token", 1e9)
    assert float((engine.exp() * weights[0] * gain).sum()) == pytest.approx(
        float((trainer.exp() * gain).sum())
    )


@pytest.mark.parametrize("correction", ["token", "sequence"])
@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_padding_has_no_influence(correction, poison):
    batch = random_batch(1, [4, 0, 2], width=5)
    trainer, engine, mask = (
        batch["log_probs"].requires_grad_(),
        batch["old_log_probs"],
        batch["mask"],
    )
    clean = importance_weights(trainer, engine, mask, correction, 2.0)
    assert not clean.requires_grad
    assert torch.equal(
        clean, importance_weights(poisoned(trainer, mask, poison), engine, mask, correction, 2.0)
    )


def test_none_means_no_weights():
    batch = random_batch(1, [4])
    assert (
        importance_weights(batch["log_probs"], batch["old_log_probs"], batch["mask"], "none", 2.0)
        is None
    )


def test_parity_measures_valid_tokens_and_stops():
    mask = mask_of([2, 1])
    trainer = torch.tensor([[0.1, 0.3], [0.2, math.nan]])
    got = parity(trainer, torch.zeros(2, 2), mask)
    assert got.mean_abs == pytest.approx(0.2)
    assert got.max_abs == pytest.approx(0.3)
    got.require(0.21)
    with pytest.raises(PPOError, match="parity_broken") as stopped:
        got.require(0.19)
    assert stopped.value.code == "parity_broken"
    with pytest.raises(PPOError, match="parity_broken"):
        Parity(math.nan, math.nan).require(1.0)


def test_the_error_survives_the_way_between_processes():
    error = PPOError("parity_broken", "they differ")
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301 - made on the line above
        assert (twin.code, str(twin)) == ("parity_broken", "parity_broken: they differ")
