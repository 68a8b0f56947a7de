import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmrrg.config.sft import SFTConfig
from lmrrg.model.classifier import (
    BLANK,
    UNLABELLED,
    DiseaseClassifier,
    binary_targets,
    disease_loss,
    label_targets,
    positive_weights,
)
from lmrrg.studies import LABELS, Study

POLICIES = list(itertools.product(("positive", "negative", "ignore"), ("negative", "ignore")))
VALUES = (1, 0, -1, BLANK, UNLABELLED)


def policy(uncertain: str, blank: str) -> SFTConfig:
    return SFTConfig(uncertain_policy=uncertain, blank_policy=blank)


def expected_target(value: int, uncertain: str, blank: str) -> float | None:
    """Return the target by the policies, word for word; None: not part of the loss."""
    if value == -1:
        return {"positive": 1.0, "negative": 0.0, "ignore": None}[uncertain]
    if value == BLANK:
        return {"negative": 0.0, "ignore": None}[blank]
    return None if value == UNLABELLED else float(value)


@pytest.mark.parametrize(("uncertain", "blank"), POLICIES)
def test_every_label_value_under_every_policy(uncertain: str, blank: str):
    targets, counted = binary_targets(torch.tensor([VALUES]), policy(uncertain, blank))
    for value, target, used in zip(VALUES, targets[0], counted[0], strict=True):
        expected = expected_target(value, uncertain, blank)
        assert bool(used) == (expected is not None)
        if expected is not None:
            assert float(target) == expected


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(VALUES), min_size=14, max_size=14),
    st.sampled_from(POLICIES),
    st.integers(0, 99),
)
def test_loss_against_a_slow_oracle(values: list[int], policies: tuple[str, str], seed: int):
    random = torch.Generator().manual_seed(seed)
    logits, weight = torch.randn(1, 14, generator=random), 1 + torch.rand(14, generator=random)
    expected = 0.0
    for value, logit, w in zip(values, logits[0].double(), weight.double(), strict=True):
        target = expected_target(value, *policies)
        if target is not None:
            p = torch.sigmoid(logit)
            expected -= float(w * p.log() if target else (1 - p).log())
    loss = disease_loss(logits, torch.tensor([values]), policy(*policies), weight)
    assert float(loss) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_class_that_does_not_count_gets_no_gradient_even_from_infinite_logits():
    logits = torch.zeros(1, 14, requires_grad=True)
    labels = torch.full((1, 14), UNLABELLED)
    labels[0, 3] = 1
    poisoned = torch.where(labels == UNLABELLED, torch.inf, logits)
    disease_loss(poisoned, labels, policy("positive", "negative")).backward()
    assert logits.grad is not None
    assert logits.grad.nonzero().tolist() == [[0, 3]]


def test_targets_of_studies():
    labelled = Study("a", "a", (), labels={"Edema": 1, "Fracture": -1, "Cardiomegaly": 0})
    targets = label_targets(
        [labelled, Study("b", "b", (), labels=None), Study("c", "c", (), labels={})]
    )
    assert targets.shape == (3, 14)
    assert targets[0, LABELS.index("Edema")] == 1
    assert targets[0, LABELS.index("Fracture")] == -1
    assert targets[0, LABELS.index("Cardiomegaly")] == 0
    assert (targets[0] == BLANK).sum() == 11
    assert (targets[1] == UNLABELLED).all()
    assert (targets[2] == BLANK).all()


def test_positive_weights_balance_a_class():
    labels = torch.zeros(10, 14, dtype=torch.long)
    labels[:2, 0] = 1
    labels[:1, 1] = 1
    labels[:9, 2] = 1
    weights = positive_weights(labels, SFTConfig())
    assert weights[0] == pytest.approx(4.0)
    assert weights[1] == pytest.approx(8.0)  # 9, held at the largest
    assert weights[2] == 1
    assert weights[3] == 1  # never positive


def test_a_head_can_read_one_region():
    """One class's evidence in one region decides its logit, and no other's."""
    torch.manual_seed(0)
    head = DiseaseClassifier(8)
    regions, overall = torch.randn(2, 29, 8), torch.randn(2, 8)
    before = head(regions, overall)
    with torch.no_grad():
        head.evidence.weight[4] += 1
    changed = (head(regions, overall) - before).abs() > 1e-6
    assert changed.any(0).nonzero().flatten().tolist() == [4]
