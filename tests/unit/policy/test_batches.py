import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lmrrg.policy.batches import (
    Experience,
    packed_positions,
    rank_microbatches,
    shuffled_minibatches,
)
from tests.support.ppo.batches import random_rollout as rollout


def test_a_selection_keeps_reports_with_their_studies():
    whole = rollout(5, 2)
    rows = torch.tensor([9, 2, 3])
    part = whole.select(rows)
    assert part.ids.shape[1] == int(whole.lengths[rows].max())
    for place, row in enumerate(rows.tolist()):
        study = int(whole.study[row])
        assert part.prompts[int(part.study[place])] == [study]
        assert part.features.patches[part.study[place]].unique().tolist() == [study]
        assert torch.equal(part.ids[place][part.mask[place]], whole.ids[row][whole.mask[row]])


def test_an_experience_is_cut_like_its_rollout():
    whole = rollout(4, 2)
    numbers = torch.arange(whole.ids.numel()).view(whole.ids.shape).float()
    experience = Experience(whole, whole.mask, *[numbers + i for i in range(4)], weights=numbers)
    rows = torch.tensor([5, 0])
    part = experience.select(rows)
    width = part.rollout.ids.shape[1]
    assert torch.equal(part.advantages, numbers[rows, :width] + 2)
    assert torch.equal(part.weights, numbers[rows, :width])
    assert part.loss_mask.shape == part.rollout.ids.shape


@settings(max_examples=50, deadline=None)
@given(
    studies=st.integers(1, 9), samples=st.integers(1, 4), size=st.integers(1, 6),
    ranks=st.sampled_from([1, 2]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_ranks_share_all_rows_once(studies, samples, size, ranks, seed):
    whole = rollout(studies, samples * ranks, seed)
    rows = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed))
    shares = [rank_microbatches(whole, rows, size, rank, ranks) for rank in range(ranks)]
    assert sorted(torch.cat([row for share in shares for row in share]).tolist()) == list(
        range(len(whole))
    )
    assert len({len(share) for share in shares}) == 1
    assert all(len(micro) <= size for share in shares for micro in share)


@settings(max_examples=50, deadline=None)
@given(
    studies=st.integers(1, 9), samples=st.integers(1, 4), tokens=st.integers(1, 400),
    ranks=st.sampled_from([1, 2, 3]),
    seed=st.integers(0, 99),
)  # fmt: skip
@example(
    studies=2, samples=2, tokens=72, ranks=2, seed=1
)  # the next rows come in order, not one from each rank
def test_a_token_budget_holds_and_is_used(studies, samples, tokens, ranks, seed):
    whole = rollout(studies, samples * ranks, seed)
    rows = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed))
    shares = [
        rank_microbatches(whole, rows, 1, rank, ranks, tokens=tokens) for rank in range(ranks)
    ]
    assert sorted(row for share in shares for micro in share for row in micro.tolist()) == list(
        range(len(whole))
    )
    assert len({len(share) for share in shares}) == 1, "collective operations need equal numbers"
    for step in zip(*shares, strict=True):
        assert all(len(micro) == 1 or packed_positions(whole, micro) <= tokens for micro in step)
    for now, later in itertools.pairwise(zip(*shares, strict=True)):
        together = torch.cat([*now, torch.cat(later)[:ranks]])
        shared = together.tensor_split(ranks)
        assert max(packed_positions(whole, micro) for micro in shared) > tokens, (
            "one more each would have fit"
        )


def test_positions_are_those_of_the_forward():
    """Two studies, with reports of 3 and 5 tokens, and of 2 and 1.

    The row is [30 visual tokens][prompt of 1][2 + 4 inputs] ...
    """
    whole = rollout(2, 2)
    mask = torch.zeros_like(whole.mask)
    for row, length in enumerate([3, 5, 2, 1]):
        mask[row, :length] = True
    whole = replace(whole, mask=mask)
    assert packed_positions(whole, torch.arange(4)) == 2 * (30 + 1) + (2 + 4) + (1 + 0)
    assert packed_positions(whole, torch.tensor([2])) == 30 + 1 + 1


def test_microbatches_save_padding():
    whole = rollout(32, 1, width=60)
    rows = torch.arange(32)

    def padded(parts: list[torch.Tensor]) -> int:
        return sum(len(part) * int(whole.lengths[part].max()) for part in parts)

    assert padded(rank_microbatches(whole, rows, 4)) < 0.75 * padded(list(rows.split(4)))


def test_minibatches_are_a_seeded_permutation_that_keeps_studies_together():
    whole = rollout(8, 4)
    first = shuffled_minibatches(whole, 8, seed=1)
    assert sorted(torch.cat(first).tolist()) == list(range(32))
    assert all(len(whole.study[rows].unique()) == 2 for rows in first)
    assert all(
        torch.equal(a, b)
        for a, b in zip(first, shuffled_minibatches(whole, 8, seed=1), strict=True)
    )
    assert not torch.equal(torch.cat(first), torch.cat(shuffled_minibatches(whole, 8, seed=2)))


def test_no_row_is_lost_when_sizes_do_not_divide():
    whole = rollout(5, 3)
    assert sorted(torch.cat(shuffled_minibatches(whole, 4, seed=0)).tolist()) == list(range(15))
    assert [len(rows) for rows in shuffled_minibatches(whole, 4, seed=0)] == [4, 4, 4, 3]


def test_lengths():
    assert rollout(2, 2).lengths.tolist() == rollout(2, 2).mask.sum(1).tolist()
    with pytest.raises(IndexError):
        rollout(2, 2).select(torch.tensor([4]))
