import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from lmrrg.config.sft import SFTConfig
from lmrrg.model.checkpoint import load_checkpoint
from lmrrg.model.classifier import BLANK, UNLABELLED
from lmrrg.vision.files import FeatureFiles
from sft.batches import Examples
from sft.objective import Objective, attention_loss, learning_rate, macro_auc, parameter_groups


def slow_auc(scores: list[float], truth: list[int]) -> float:
    """Return the fraction of (positive, negative) pairs in the right order; ties count a half."""
    pairs = [
        (p, n)
        for p, t in zip(scores, truth, strict=True)
        if t
        for n, u in zip(scores, truth, strict=True)
        if not u
    ]
    return sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) / len(pairs)


def test_macro_auc_averages_the_classes_that_have_both_values():
    torch.manual_seed(0)
    logits = torch.randn(40, 14).round(decimals=1)
    labels = torch.full((40, 14), UNLABELLED)
    labels[:, 0] = torch.randint(0, 2, (40,))
    labels[:30, 1] = torch.randint(0, 2, (30,))
    labels[:, 2] = 1  # one value only
    labels[:, 3] = BLANK
    expected = [
        slow_auc(logits[:, 0].tolist(), labels[:, 0].tolist()),
        slow_auc(logits[:30, 1].tolist(), labels[:30, 1].tolist()),
    ]
    config = SFTConfig(blank_policy="ignore")
    assert macro_auc(logits, labels, config) == pytest.approx(sum(expected) / 2)
    assert math.isnan(macro_auc(logits[:, :14], torch.full((40, 14), UNLABELLED), config))


def test_the_learning_rate_rises_then_falls_to_a_tenth():
    config = SFTConfig(learning_rate=1e-3, warmup=0.1)
    rates = [learning_rate(step, 200, config) for step in range(200)]
    assert rates[0] == pytest.approx(1e-3 / 20)
    assert max(rates) == pytest.approx(1e-3)
    assert all(a < b for a, b in pairwise(rates[:20]))
    assert all(a > b for a, b in pairwise(rates[20:]))
    assert rates[-1] == pytest.approx(1e-4, rel=0.01)


@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_extreme_warmups_and_one_step(warmup: float):
    config = SFTConfig(learning_rate=1e-3, warmup=warmup)
    for steps in (1, 2, 7):
        assert all(0 < learning_rate(step, steps, config) <= 1e-3 for step in range(steps))


def test_every_trainable_weight_is_in_one_group_and_embeddings_do_not_decay(tiny_checkpoint):
    model = load_checkpoint(tiny_checkpoint)
    model.classifier.requires_grad_(False)
    groups = parameter_groups(model, 0.1)
    ids = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    decaying = {
        id(parameter) for group in groups if group["weight_decay"] for parameter in group["params"]
    }
    assert id(model.decoder.get_input_embeddings().weight) not in decaying
    assert id(model.decoder.lm_head.weight) in decaying
    assert id(model.decoder.model.norm.weight) not in decaying


@pytest.fixture(scope="module")
def examples(tiny_config, tiny_checkpoint, tiny_studies) -> Examples:
    labelled = [
        study.__class__(**{**vars(study), "labels": {"Edema": i % 2}})
        for i, study in enumerate(tiny_studies)
    ]
    tokenizer = load_checkpoint(tiny_checkpoint).tokenizer
    files = FeatureFiles(labelled, tiny_config.data, progress=False)
    return Examples(labelled, files, tokenizer, tiny_config.data, tiny_config.model)


def test_losses_are_sums_so_parts_add_up_to_the_whole(tiny_checkpoint, examples: Examples):
    objective = Objective(load_checkpoint(tiny_checkpoint), SFTConfig(), None)
    with torch.no_grad():
        whole = objective(examples.batch(range(8)))
        parts = [objective(examples.batch(part)) for part in ([0, 1, 2], [3], [4, 5, 6, 7])]
    for k in (0, 1):
        assert float(whole[k]) == pytest.approx(sum(float(part[k]) for part in parts), rel=1e-5)
    torch.testing.assert_close(
        whole[3], torch.cat([part[3] for part in parts]), atol=1e-5, rtol=1e-4
    )


def test_the_report_loss_is_that_of_each_token_alone(tiny_checkpoint, examples: Examples):
    model = load_checkpoint(tiny_checkpoint)
    batch = examples.batch([2, 5])
    with torch.no_grad():
        logits = model.report_logits(
            batch.features, batch.prompts, batch.report_ids, batch.report_mask
        ).logits
        expected = -sum(
            float(logits[row, t].log_softmax(-1)[token])
            for row, i in enumerate([2, 5])
            for t, token in enumerate(examples.reports[i])
        )
        assert float(Objective(model, SFTConfig(), None)(batch)[0]) == pytest.approx(
            expected, rel=1e-5
        )


def test_bfloat16_products_keep_float32_weights_and_nearly_the_loss(
    tiny_checkpoint, examples: Examples
):
    model = load_checkpoint(tiny_checkpoint)
    batch = examples.batch(range(8))
    exact, rough = (Objective(model, SFTConfig(precision=p), None) for p in ("fp32", "bf16"))
    with torch.no_grad():
        assert float(rough(batch)[0]) == pytest.approx(float(exact(batch)[0]), rel=2e-3)
        assert float(rough(batch)[0]) != float(exact(batch)[0])
    rough(batch)[0].backward()
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.decoder.lm_head.weight.grad.dtype == torch.float32


def test_a_few_steps_on_one_batch_learn_it(tiny_checkpoint, examples: Examples):
    model = load_checkpoint(tiny_checkpoint).train()
    objective = Objective(model, SFTConfig(), None)
    optimizer = torch.optim.AdamW(parameter_groups(objective, 0.0), lr=3e-3)
    batch = examples.batch(range(8))
    first = None
    for _ in range(60):
        nll, disease, *_ = objective(batch)
        loss = nll / batch.report_mask.sum() + disease / 8
        first = first or (float(nll.detach()), float(disease.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(nll.detach()) < 0.5 * first[0]
    assert float(disease.detach()) < 0.5 * first[1]


def test_the_attention_is_not_supervised_unless_asked(
    tiny_checkpoint, tiny_studies, tiny_config, examples: Examples
):
    assert tiny_config.sft.attention_weight == SFTConfig().attention_weight == 0
    studies = [replace(study, truth={"masks": "not there.npz"}) for study in tiny_studies[:2]]
    files = FeatureFiles(studies, tiny_config.data, progress=False)
    tokenizer = load_checkpoint(tiny_checkpoint).tokenizer
    unread = Examples(studies, files, tokenizer, tiny_config.data, tiny_config.model)
    assert unread.batch([0, 1]).regions is None, "masks are not even read"
    assert unread.masked([0, 1]) == 0
    objective = Objective(load_checkpoint(tiny_checkpoint), SFTConfig(), None)
    assert float(objective(examples.batch([0, 1]))[2]) == 0


def test_supervised_attention_learns_to_lie_in_the_region(tiny_checkpoint, examples: Examples):
    model = load_checkpoint(tiny_checkpoint)
    objective = Objective(model, SFTConfig(attention_weight=1), None)
    batch = examples.batch([0, 1])
    shape = model.visual(batch.features).attention.shape
    regions = torch.zeros(shape)
    regions[:, ::2, 0, :3] = 1.0  # every second region is known
    supervised = replace(batch, regions=regions)
    optimizer = torch.optim.AdamW(model.extractor.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = objective(supervised)[2]
        optimizer.zero_grad()
        loss.backward()
        assert model.extractor.blocks[-1].across.query.weight.grad.abs().max() > 0
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    attention = model.eval().visual(batch.features).attention
    assert float(attention[:, ::2, 0, :3].sum(-1).mean()) > 0.5


def test_the_attention_loss_of_a_study_is_the_mean_over_its_known_regions():
    attention = torch.tensor(
        [[[[0.5, 0.25, 0.25]], [[0.1, 0.1, 0.8]]], [[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]]]
    )
    regions = torch.tensor(
        [[[[1.0, 1.0, 0.0]], [[0.0, 0.5, 0.0]]], [[[0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0]]]]
    )
    expected = -(math.log(0.75) + math.log(0.05)) / 2
    assert float(attention_loss(attention, regions)) == pytest.approx(expected, rel=1e-4)
