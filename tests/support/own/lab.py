"""What a lab brings: a reward, a metric and an image encoder, named in the settings."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def shared_words(reports: list[str], references: list[str]) -> list[float]:
    """Return the fraction of each reference's words that its report has, 0 to 1."""
    pairs = zip(reports, references, strict=True)
    return [_shared(set(report.split()), set(reference.split())) for report, reference in pairs]


def vowels(reports: list[str], references: list[str]) -> list[float]:
    """Return the fraction of vowels, which differs even between untrained reports."""
    return [sum(map(report.count, "aeiou")) / len(report) for report in reports]


def one_too_few(reports: list[str], references: list[str]) -> list[float]:
    """Return a number less than there are reports."""
    return [0.0] * (len(reports) - 1)


def unknown(reports: list[str], references: list[str]) -> list[float]:
    """Return no number for any report."""
    return [float("nan")] * len(reports)


class MeanOfCells:
    """An encoder whose patches are the brightness of 16 x 16 cells, in four channels."""

    version = "mean-of-cells-1"
    width = 4

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size
        self.patches = (image_size // 16) ** 2

    def encode(self, pixels: Tensor) -> Tensor:
        """Encode images [N, side, side] as [N, P, 4]."""
        means = F.avg_pool2d(pixels.float().unsqueeze(1), 16).flatten(2).transpose(1, 2)
        return torch.cat([means, means**2, 1 - means, means.sqrt()], dim=-1)


class ThreePatches(MeanOfCells):
    """An encoder whose patches form no square."""

    def __init__(self, image_size: int) -> None:
        super().__init__(image_size)
        self.patches = 3


def _shared(report: set[str], reference: set[str]) -> float:
    return len(report & reference) / len(reference)
