from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmrrg.config.tree import Config
from lmrrg.model.checkpoint import load_checkpoint
from lmrrg.studies import Study
from lmrrg.views import VIEWS
from lmrrg.vision.files import FeatureFiles
from sft.batches import (
    Examples,
    balanced_visits,
    epoch_minibatches,
    forgotten_views,
    rank_microbatches,
    token_weights,
)


@pytest.fixture(scope="module")
def examples(tiny_config: Config, tiny_checkpoint: Path, tiny_studies: list[Study]) -> Examples:
    tokenizer = load_checkpoint(tiny_checkpoint).tokenizer
    return Examples(
        tiny_studies,
        FeatureFiles(tiny_studies, tiny_config.data, progress=False),
        tokenizer,
        tiny_config.data,
        tiny_config.model,
    )


def test_a_batch_holds_its_examples_and_nothing_in_the_padding(examples: Examples):
    index = [5, 0, 3]
    batch = examples.batch(index)
    assert batch.report_ids.shape == batch.report_mask.shape
    assert batch.report_mask.any(0).all()  # no wider than the longest report
    for row, i in enumerate(index):
        assert batch.report_ids[row][batch.report_mask[row]].tolist() == examples.reports[i]
        assert torch.equal(batch.features.patches[row], examples.batch([i]).features.patches[0])
        assert batch.prompts[row] == examples.batch([i]).prompts[0]
        assert torch.equal(batch.labels[row], examples.labels[i])


def test_reports_are_cut_as_the_settings_say(examples: Examples, tiny_config: Config):
    assert max(examples.lengths) <= tiny_config.data.max_report_tokens


def test_a_forgotten_view_is_unknown_and_the_picture_stays(examples: Examples):
    forgotten = torch.zeros(len(examples), 2, dtype=torch.bool)
    forgotten[3, 1] = True
    plain, other = examples.batch([0, 3]), examples.batch([0, 3], forgotten)
    assert torch.equal(plain.features.patches, other.features.patches)
    changed = plain.features.views != other.features.views
    assert changed.nonzero().tolist() == [[1, 1]]
    assert other.features.views[1, 1] == VIEWS.index("unknown")


def test_some_views_are_forgotten_anew_in_every_epoch():
    one, two = (forgotten_views(1000, 2, 7, epoch) for epoch in (0, 1))
    assert 0.1 < one.float().mean() < 0.2
    assert not torch.equal(one, two)
    assert torch.equal(one, forgotten_views(1000, 2, 7, 0))


@settings(max_examples=80, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=150),
    minibatch=st.sampled_from([1, 4, 8, 32]),
    seed=st.integers(0, 5),
)
def test_an_epoch_visits_every_example_once_and_fills_up_the_last_minibatch(
    lengths: list[int], minibatch: int, seed: int
):
    batches = epoch_minibatches(lengths, minibatch, seed, 3)
    assert {len(batch) for batch in batches} == {minibatch}
    assert len(batches) == -(-len(lengths) // minibatch)
    seen = sorted(i for batch in batches for i in batch)
    assert set(seen) == set(range(len(lengths)))
    assert len(seen) - len(lengths) < minibatch


def test_the_order_depends_on_seed_and_epoch_alone():
    lengths = [i % 37 for i in range(200)]
    first = epoch_minibatches(lengths, 8, 1, 0)
    assert first == epoch_minibatches(lengths, 8, 1, 0)
    assert first != epoch_minibatches(lengths, 8, 1, 1)
    assert first != epoch_minibatches(lengths, 8, 2, 0)


def test_reports_of_similar_length_are_in_one_minibatch():
    lengths = torch.randint(5, 100, (800,), generator=torch.Generator().manual_seed(0)).tolist()

    def waste(batches: list[list[int]]) -> int:
        return sum(
            max(lengths[i] for i in b) * len(b) - sum(lengths[i] for i in b) for b in batches
        )

    plain = torch.randperm(800, generator=torch.Generator().manual_seed(1)).reshape(-1, 16).tolist()
    assert waste(epoch_minibatches(lengths, 16, 0, 0)) < 0.4 * waste(plain)


@pytest.mark.parametrize(("workers", "microbatch"), [(1, 32), (1, 8), (2, 16), (2, 4), (4, 8)])
def test_the_ranks_divide_a_minibatch_exactly_and_equally(workers: int, microbatch: int):
    minibatch = list(range(100, 132))
    ranks = [rank_microbatches(minibatch, rank, workers, microbatch) for rank in range(workers)]
    parts = [part for rank in ranks for part in rank]
    assert sorted(i for part in parts for i in part) == minibatch
    assert {len(part) for part in parts} == {microbatch}
    assert len({len(rank) for rank in ranks}) == 1


def test_batches_read_ahead_are_those_read_one_by_one_and_errors_arrive(examples: Examples):
    microbatches = [[0, 1], [2], [3, 4], [1], [0]]
    read = examples.read_ahead(microbatches)
    for index, batch in zip(microbatches, read, strict=True):
        expected = examples.batch(index)
        assert torch.equal(batch.report_ids, expected.report_ids)
        assert torch.equal(batch.features.patches, expected.features.patches)
    with pytest.raises(IndexError):
        list(examples.read_ahead([[0], [10_000]]))


def test_tokens_of_abnormal_sentences_weigh_more_and_padding_nothing(
    tiny_config: Config, tiny_checkpoint: Path, tiny_studies: list[Study]
):
    tokenizer = load_checkpoint(tiny_checkpoint).tokenizer
    files = FeatureFiles(tiny_studies, tiny_config.data, progress=False)
    branches = (tiny_config.data, tiny_config.model)
    weighted = Examples(tiny_studies, files, tokenizer, *branches, abnormal_weight=2.0)
    batch = weighted.batch(range(len(tiny_studies)))
    assert torch.equal(batch.weights > 0, batch.report_mask)
    said = set()
    for ids, weights in zip(batch.report_ids, batch.weights, strict=True):
        said.add(tokenizer.decode(ids[weights == 2]).strip())
    assert "There is a small left pleural effusion." in said
    assert not any("No pneumothorax" in text or "lungs are clear" in text for text in said)
    plain = Examples(tiny_studies, files, tokenizer, *branches).batch([0, 1])
    assert torch.equal(plain.weights, plain.report_mask.float())


def test_the_end_of_a_report_belongs_to_no_sentence(tiny_checkpoint: Path):
    tokenizer = load_checkpoint(tiny_checkpoint).tokenizer
    ids = [*tokenizer.encode("Large effusion."), tokenizer.eos_token_id]
    assert token_weights(tokenizer, ids, 3.0).tolist()[:-1] == [3.0] * (len(ids) - 1)


def test_both_sections_are_learnt_where_the_settings_join_them(
    tiny_config: Config, tiny_checkpoint: Path, tiny_studies: list[Study]
):
    tokenizer = load_checkpoint(tiny_checkpoint).tokenizer
    studies = [replace(tiny_studies[0], findings="Clear.", impression="Normal.")]
    data = tiny_config.data.model_copy(update={"section": "findings+impression"})
    files = FeatureFiles(studies, data, progress=False)
    examples = Examples(studies, files, tokenizer, data, tiny_config.model)
    assert tokenizer.decode(examples.reports[0], skip_special_tokens=True) == "Clear. Normal."


def test_balanced_visits_even_out_findings_and_normal_studies():
    # 80 normal studies, 15 with one finding, 5 with another.
    stated = torch.zeros(100, 2, dtype=torch.bool)
    stated[80:95, 0] = True
    stated[95:, 1] = True
    for balance, shares in ((0.0, (0.8, 0.15, 0.05)), (1.0, (1 / 3, 1 / 3, 1 / 3))):
        visits = balanced_visits(stated, balance)
        parts = (visits[:80].sum(), visits[80:95].sum(), visits[95:].sum())
        assert parts == pytest.approx(shares)
    half = balanced_visits(stated, 0.5)
    assert 0.05 < half[95:].sum() < 1 / 3
    both = stated.clone()
    both[95, 0] = True  # counts by its rarer finding
    visits = balanced_visits(both, 1.0)
    assert visits[95] == visits[96]


def test_a_balanced_epoch_draws_by_the_visits_anew_in_every_epoch():
    lengths = [10] * 400
    visits = np.where(np.arange(400) < 40, 0.5 / 40, 0.5 / 360)
    epochs = [epoch_minibatches(lengths, 8, 3, epoch, visits) for epoch in range(5)]
    seen = np.asarray(epochs).ravel()
    assert 0.45 < (seen < 40).mean() < 0.55
    assert epochs[0] != epochs[1]
    assert epochs[0] == epoch_minibatches(lengths, 8, 3, 0, visits)
    assert {len(batch) for batch in epochs[0]} == {8}
