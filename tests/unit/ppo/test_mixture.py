"""Weights between the SFT model and the policy."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmrrg.config.tree import Config
from lmrrg.ppo.mixture import mix

START = {"visual.w": torch.tensor([[0.0, -2.0]]), "decoder.w": torch.tensor([4.0])}
POLICY = {"visual.w": torch.tensor([[1.0, -2.0]]), "decoder.w": torch.tensor([0.0])}


def test_a_quarter_of_the_policy():
    mixed = mix(START, POLICY, 0.25)
    assert mixed["visual.w"].tolist() == [[0.25, -2.0]]
    assert mixed["decoder.w"].tolist() == [3.0]


def test_the_ends_are_the_models_and_nothing_is_changed_in_place():
    before = {name: tensor.clone() for name, tensor in START.items()}
    assert all(torch.equal(tensor, START[name]) for name, tensor in mix(START, POLICY, 0.0).items())
    assert all(
        torch.equal(tensor, POLICY[name]) for name, tensor in mix(START, POLICY, 1.0).items()
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in START.items())


@given(st.floats(0, 1), st.floats(-10, 10, width=32), st.floats(-10, 10, width=32))
def test_a_mixture_lies_between(share, a, b):
    (mixed,) = mix({"w": torch.tensor([a])}, {"w": torch.tensor([b])}, share)["w"].tolist()
    assert min(a, b) - 1e-5 <= mixed <= max(a, b) + 1e-5


def test_a_policy_without_a_weight_is_refused():
    with pytest.raises(KeyError, match="decoder"):
        mix(START, {"visual.w": POLICY["visual.w"]}, 0.5)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 2.0])
def test_shares_lie_between_the_models(share):
    with pytest.raises(ValueError, match="between 0 and 1"):
        Config.model_validate({"ppo": {"mixtures": [0.5, share]}})
