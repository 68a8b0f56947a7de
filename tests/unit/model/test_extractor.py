from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lmrrg.model.extractor import Attention, RegionExtractor
from lmrrg.model.generator import ReportGenerator
from lmrrg.vision.cache import FeatureError
from lmrrg.vision.study_features import StudyFeatures


def outputs(model: ReportGenerator, features: StudyFeatures) -> list[Tensor]:
    with torch.no_grad():
        seen = model.visual(features)
    return [seen.tokens, seen.disease_logits, seen.attention]


def assert_same(one: list[Tensor], other: list[Tensor]) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_shapes(model: ReportGenerator, features: StudyFeatures):
    tokens, logits, attention = outputs(model, features)
    assert tokens.shape == (4, 30, model.hidden_size)
    assert logits.shape == (4, 14)
    assert attention.shape == (4, 29, 2, model.inputs.patches)


def test_attention_is_a_distribution_over_the_views_that_exist(
    model: ReportGenerator, features: StudyFeatures
):
    attention = outputs(model, features)[2]
    torch.testing.assert_close(attention.sum((2, 3)), torch.ones(4, 29))
    assert attention[0, :, 1].abs().max() == 0
    assert (attention[1, :, 1].sum(-1) > 0).all()


def test_a_masked_view_has_no_influence_whatever_it_holds(
    model: ReportGenerator, features: StudyFeatures
):
    poisoned = features.patches.clone()
    poisoned[~features.view_mask] = float("nan")
    views = torch.where(features.view_mask, features.views, 3)
    assert_same(
        outputs(model, features), outputs(model, StudyFeatures(poisoned, views, features.view_mask))
    )


def test_poison_in_a_masked_view_leaves_the_gradients_finite(
    model: ReportGenerator, features: StudyFeatures
):
    features.patches[~features.view_mask] = float("nan")
    seen = model.visual(features)
    (seen.tokens.sum() + seen.disease_logits.sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def test_studies_do_not_influence_each_other(model: ReportGenerator, features: StudyFeatures):
    together = outputs(model, features)
    for i in range(len(features)):
        assert_same([part[i : i + 1] for part in together], outputs(model, features.select([i])))


def test_the_order_of_the_views_does_not_matter(model: ReportGenerator, features: StudyFeatures):
    swapped = StudyFeatures(
        features.patches.flip(1), features.views.flip(1), features.view_mask.flip(1)
    )
    tokens, logits, attention = outputs(model, swapped)
    assert_same(outputs(model, features), [tokens, logits, attention.flip(2)])


def test_the_view_and_the_position_of_a_patch_matter(
    model: ReportGenerator, features: StudyFeatures
):
    tokens = outputs(model, features)[0]
    lateral = replace(features, views=torch.full_like(features.views, 3))
    assert (outputs(model, lateral)[0] - tokens).abs().amax((1, 2)).min() > 1e-4
    mirrored = replace(features, patches=features.patches.flip(2))
    assert (outputs(model, mirrored)[0] - tokens).abs().amax((1, 2)).min() > 1e-4


def test_half_precision_features_are_read(model: ReportGenerator, features: StudyFeatures):
    half = replace(features, patches=features.patches.half())
    full = replace(features, patches=features.patches.half().float())
    assert_same(outputs(model, half), outputs(model, full))


def test_features_of_another_shape_are_refused(model: ReportGenerator, features: StudyFeatures):
    with pytest.raises(FeatureError, match="feature_shape"):
        model.visual(replace(features, patches=features.patches[:, :, :9]))


def test_calibration_standardises_the_unmasked_patches(
    model: ReportGenerator, features: StudyFeatures
):
    shifted = replace(features, patches=features.patches * 50 + 7)
    shifted.patches[~features.view_mask] = float("nan")
    extractor: RegionExtractor = model.extractor
    extractor.calibrate(shifted)
    used = (shifted.patches[features.view_mask] - extractor.feature_mean) / extractor.feature_scale
    torch.testing.assert_close(used.mean((0, 1)), torch.zeros(used.shape[-1]), atol=1e-3, rtol=0)
    torch.testing.assert_close(
        used.flatten(0, 1).std(0), torch.ones(used.shape[-1]), atol=1e-3, rtol=0
    )


def test_attention_agrees_with_torchs():
    torch.manual_seed(0)
    ours = Attention(32, 4, 0.0)
    theirs = torch.nn.MultiheadAttention(32, 4, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key_value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
        theirs.out_proj.weight.copy_(ours.out.weight)
        theirs.out_proj.bias.copy_(ours.out.bias)
    queries, source = torch.randn(3, 5, 32), torch.randn(3, 9, 32)
    mask = torch.rand(3, 9) > 0.4
    mask[:, 0] = True
    got, weights = ours(queries, source, mask)
    expected, expected_weights = theirs(queries, source, source, key_padding_mask=~mask)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weights, expected_weights, atol=1e-5, rtol=1e-5)


def test_every_part_of_the_extractor_learns(model: ReportGenerator, features: StudyFeatures):
    model.train()
    seen = model.visual(features)
    (seen.tokens.square().sum() + seen.disease_logits.square().sum()).backward()
    for part in (model.extractor, model.classifier, model.projector):
        for name, parameter in part.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0 or name.endswith("key_value.bias"), name
