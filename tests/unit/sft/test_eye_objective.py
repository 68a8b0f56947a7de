"""Test the loss of the eye, its weights and its crops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lmrrg.config.sft import EyeConfig
from lmrrg.model.classifier import BLANK, UNLABELLED
from lmrrg.studies import LABELS, POSITIVE
from lmrrg.vision.eye import Eye
from sft.eye_objective import (
    EyeBatch,
    EyeObjective,
    count_labels,
    eye_positive_weights,
    mean_of_films,
    random_crops,
    start_from_rates,
)

CLASSES = len(LABELS)


@pytest.fixture(scope="module")
def eye() -> Eye:
    return Eye.new("efficientnet_lite0", 32).eval()


def labels_of(*positives: set[int]) -> torch.Tensor:
    labels = torch.full((len(positives), CLASSES), BLANK)
    for row, classes in enumerate(positives):
        labels[row, list(classes)] = POSITIVE
    return labels


def batch_of(labels: torch.Tensor, films: list[int]) -> EyeBatch:
    torch.manual_seed(0)
    owners = torch.tensor([row for row, count in enumerate(films) for _ in range(count)])
    return EyeBatch(torch.rand(len(owners), 32, 32), owners, labels)


def test_the_loss_is_that_of_studies_plus_half_that_of_films(eye: Eye):
    config = EyeConfig()
    labels, films = labels_of({1}, {2, 13}), [2, 1]
    batch = batch_of(labels, films)
    weight = torch.linspace(1, 5, CLASSES)
    with torch.no_grad():
        torch.manual_seed(1)
        eye.head.evidence.weight.normal_(std=0.1)
        found = EyeObjective(eye, config, weight)(batch, count_labels(labels, films, config))
        logits = eye(batch.pixels).logits
    targets = (labels == POSITIVE).float()
    of_studies = torch.stack([logits[:2].mean(0), logits[2]])
    expected = F.binary_cross_entropy_with_logits(of_studies, targets, pos_weight=weight)
    expected += 0.5 * F.binary_cross_entropy_with_logits(
        logits, targets[[0, 0, 1]], pos_weight=weight
    )
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_the_parts_of_two_ranks_add_up_to_the_whole(eye: Eye):
    config = EyeConfig()
    labels, films = labels_of({1}, {2}, set()), [2, 1, 1]
    labels[2] = UNLABELLED
    batch = batch_of(labels, films)
    counts = count_labels(labels, films, config)
    assert counts == (2 * CLASSES, 3 * CLASSES), "a study without labels is no part of a mean"
    objective = EyeObjective(eye, config, torch.ones(CLASSES))
    with torch.no_grad():
        whole = objective(batch, counts)
        first = objective(EyeBatch(batch.pixels[:2], batch.owners[:2], labels[:1]), counts)
        rest = objective(EyeBatch(batch.pixels[2:], batch.owners[2:] - 1, labels[1:]), counts)
    assert float(first + rest) == pytest.approx(float(whole), rel=1e-5)


def test_weights_are_roots_within_bounds():
    labels = torch.full((104, CLASSES), BLANK)
    labels[:4, 0] = POSITIVE  # 100 / 4 = 25: the root is the largest allowed
    labels[0, 1] = POSITIVE
    labels[:80, 2] = POSITIVE
    weight = eye_positive_weights(labels, EyeConfig())
    assert weight[:4].tolist() == pytest.approx([5.0, 5.0, 1.0, 1.0])
    milder = eye_positive_weights(labels, EyeConfig(largest_positive_weight=2.0))
    assert milder[:2].tolist() == [2.0, 2.0]


def test_a_new_head_gives_the_training_rates_after_the_prior(eye: Eye):
    labels = torch.full((99, CLASSES), BLANK)
    labels[:9, 3] = POSITIVE
    config = EyeConfig()
    weight = eye_positive_weights(labels, config)
    new = Eye.new("efficientnet_lite0", 32)
    start_from_rates(new, labels, config, weight)
    logits = new(torch.rand(1, 32, 32)).logits.detach() - weight.log()
    assert logits.sigmoid()[0, 3] == pytest.approx(9.5 / 100, rel=1e-4)
    assert logits.sigmoid()[0, 0] == pytest.approx(0.5 / 100, rel=1e-4)


def test_means_keep_the_gradient_of_every_film():
    films = torch.ones(3, 1, requires_grad=True)
    mean_of_films(films, torch.tensor([0, 0, 1]), 2).sum().backward()
    assert films.grad.flatten().tolist() == [0.5, 0.5, 1.0]


@pytest.fixture(scope="module")
def films() -> torch.Tensor:
    """Twenty times the same film, of random bytes."""
    film = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 64, 64), np.uint8))
    return film.expand(20, -1, -1)


def crops_of(films: torch.Tensor, *, step: int = 1, **settings: float) -> torch.Tensor:
    plain = EyeConfig(**({"crop": 32, "rotation": 0, "brightness": 0} | settings))
    return random_crops(films, plain, (7, step, 0))


def test_crops_are_places_of_the_film_and_never_mirrored(films: torch.Tensor):
    crops = crops_of(films)
    assert crops.shape == (20, 32, 32)
    windows = films[0].float().unfold(0, 32, 1).unfold(1, 32, 1) / 255
    # A crop lies between four windows; smoothed, it correlates with its nearest and no mirror does.
    places = set()
    for crop in crops:
        nearest = correlation(windows, crop).flatten()
        mirrored = correlation(windows, crop.flip(-1)).flatten()
        assert nearest.max() > 0.4 > 0.2 > mirrored.max()
        places.add(int(nearest.argmax()))
    assert len(places) > 10


def correlation(windows: torch.Tensor, crop: torch.Tensor) -> torch.Tensor:
    a = windows - windows.mean((-2, -1), keepdim=True)
    b = crop - crop.mean()
    return (a * b).mean((-2, -1)) / (a.std((-2, -1)) * b.std())


def test_a_crop_of_the_whole_film_is_the_film(films: torch.Tensor):
    whole = crops_of(films, crop=64)
    torch.testing.assert_close(whole, films.float() / 255, atol=1e-4, rtol=0)


def test_crops_depend_on_their_seed_alone(films: torch.Tensor):
    settings = {"rotation": 10, "brightness": 0.2}
    assert torch.equal(crops_of(films, **settings), crops_of(films, **settings))
    assert not torch.equal(crops_of(films, **settings), crops_of(films, step=2, **settings))


def test_crops_are_turned_by_no_more_than_the_angle():
    """A vertical edge through the middle: its slope is the tangent of the angle."""
    film = torch.zeros(200, 128, 128, dtype=torch.uint8)
    film[:, :, 64:] = 255
    crops = crops_of(film, crop=128, rotation=20)
    black = (crops < 0.5).float().sum(2)  # the edge's column in every row
    angles = torch.atan((black[:, 80] - black[:, 48]) / 32).rad2deg()
    assert 15 < angles.abs().max() < 21.5
    assert angles.min() < -10
    assert angles.max() > 10


def test_brightness_and_contrast_change_within_bounds():
    grey = torch.full((200, 32, 32), 128, dtype=torch.uint8)
    values = crops_of(grey, brightness=0.2)[:, 16, 16]
    assert 0.4 < values.min() < 0.45
    assert 0.55 < values.max() < 0.61
