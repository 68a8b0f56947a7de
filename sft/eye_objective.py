"""Compute the loss of the eye on studies and films, and cut the crops that it is trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmrrg.config.sft import EyeConfig
from lmrrg.model.classifier import binary_targets, disease_loss, positive_weights
from lmrrg.vision.eye import Eye


class EyeBatch(NamedTuple):
    """The films of some studies."""

    pixels: Tensor
    """float32 [N, side, side] in [0, 1]."""
    owners: Tensor
    """int64 [N], the row of ``labels`` that a film belongs to."""
    labels: Tensor
    """int64 [B, 14], from :func:`~lmrrg.model.classifier.label_targets`."""


class Counts(NamedTuple):
    """Labels that count in a minibatch, over all ranks."""

    of_studies: int
    of_films: int


class EyeObjective(nn.Module):
    """An eye with its loss, the part of one rank in the mean over a minibatch.

    Args:
        config: weight of the films, and what uncertain and blank labels count as.
        positive_weight: factor [14] on the loss of positives.
    """

    positive_weight: Tensor

    def __init__(self, eye: Eye, config: EyeConfig, positive_weight: Tensor) -> None:
        super().__init__()
        self.eye = eye
        self._config = config
        self.register_buffer("positive_weight", positive_weight, persistent=False)

    def forward(self, batch: EyeBatch, counts: Counts) -> Tensor:
        """Return the cross-entropy of the studies plus ``film_weight`` times that of the films.

        A study's logits are the means of its films'. A film is trained on its study's labels, too:
        then every film learns to see what it shows, and not only the clearest one (**ours**).
        """
        films = self.eye(batch.pixels).logits
        studies = mean_of_films(films, batch.owners, len(batch.labels))
        of_studies = self._loss(studies, batch.labels) / max(1, counts.of_studies)
        of_films = self._loss(films, batch.labels[batch.owners]) / max(1, counts.of_films)
        return of_studies + self._config.film_weight * of_films

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return disease_loss(logits, labels, self._config, self.positive_weight)


def mean_of_films(films: Tensor, owners: Tensor, studies: int) -> Tensor:
    """Return the mean logits [B, 14] of the films [N, 14] of each study.

    >>> mean_of_films(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 0, 1]), 2)
    tensor([[2.],
            [5.]])
    """
    total = films.new_zeros(studies, films.shape[1]).index_add(0, owners, films)
    return total / owners.bincount(minlength=studies)[:, None]


def count_labels(labels: Tensor, films: Sequence[int], config: EyeConfig) -> Counts:
    """Count the labels that a loss is the mean of.

    Args:
        labels: int64 [B, 14] of a whole minibatch.
        films: films of each of its studies.
    """
    of_study = binary_targets(labels, config)[1].sum(1)
    return Counts(int(of_study.sum()), int((of_study * torch.tensor(films)).sum()))


def eye_positive_weights(labels: Tensor, config: EyeConfig) -> Tensor:
    """Return sqrt(negatives / positives) of each class, [14], between 1 and the largest allowed.

    The root is milder than the ratio, which for a class with ten positives would let them outweigh
    everything else (**ours**).
    """
    return positive_weights(labels, config, largest=config.largest_positive_weight**2).sqrt()


@torch.no_grad()
def start_from_rates(eye: Eye, labels: Tensor, config: EyeConfig, weight: Tensor) -> None:
    """Set the offsets of a new class head to the classes' rates in the training labels.

    Its weights are 0, so without this the first steps would only learn how rare each class is.
    """
    targets, counted = binary_targets(labels, config)
    positives = torch.where(counted, targets, 0.0).sum(0)
    # Half a study on either side keeps a class without positives finite.
    odds = (positives + 0.5) / (counted.sum(0) - positives + 0.5)
    eye.head.evidence.bias.copy_(odds.log() + weight.log())


def random_crops(squares: Tensor, settings: EyeConfig, seed: Sequence[int]) -> Tensor:
    """Cut one crop out of each film, at a random place, slightly turned, lighter or darker.

    Films are never mirrored: left and right are findings.

    Args:
        squares: uint8 [N, S, S].
        settings: side of the crops, largest angle, largest change of brightness and contrast.
        seed: whole numbers that fix what is drawn.

    Returns:
        float32 [N, side, side] in [0, 1].
    """
    films = len(squares)
    rng = np.random.default_rng(list(seed))

    def draw(largest: float, *shape: int) -> Tensor:
        return torch.from_numpy(rng.uniform(-largest, largest, (films, *shape)).astype(np.float32))

    # In the coordinates of `affine_grid`, a square is from -1 to 1.
    scale = settings.crop / squares.shape[-1]
    angle = draw(math.radians(settings.rotation))
    rows = [scale * angle.cos(), -scale * angle.sin(), scale * angle.sin(), scale * angle.cos()]
    turn = torch.stack(rows, 1).reshape(films, 2, 2)
    move = draw(1 - scale, 2, 1)
    size = [films, 1, settings.crop, settings.crop]
    grid = F.affine_grid(torch.cat([turn, move], 2), size, align_corners=False)
    crops = F.grid_sample(to_pixels(squares)[:, None], grid, align_corners=False)[:, 0]
    contrast = 1 + draw(settings.brightness, 1, 1)
    shift = draw(settings.brightness / 2, 1, 1)
    return ((crops - 0.5) * contrast + 0.5 + shift).clamp(0, 1)


def to_pixels(squares: Tensor) -> Tensor:
    """Return bytes as float32 in [0, 1]."""
    return squares.float() / 255
