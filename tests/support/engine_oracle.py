"""Compute what the engine must reproduce: the same model, run by transformers."""

from __future__ import annotations

from pathlib import Path

import torch

from lmrrg.engine.interfaces import GeneratedReport
from lmrrg.model.checkpoint import load_checkpoint
from lmrrg.model.generator import ReportGenerator
from lmrrg.vision.study_features import StudyFeatures

PARITY = 5e-4
"""Largest allowed difference of log-probabilities, nats, in float32."""


def trainer_logprobs(
    model: ReportGenerator,
    features: StudyFeatures,
    prompts: list[list[int]],
    reports: list[GeneratedReport],
) -> list[list[float]]:
    """Return the log-probabilities of the same tokens by transformers, in one padded batch."""
    width = max(len(report.token_ids) for report in reports)
    ids = torch.zeros(len(reports), width, dtype=torch.long)
    mask = torch.zeros(len(reports), width, dtype=torch.bool)
    for row, report in enumerate(reports):
        ids[row, : len(report.token_ids)] = torch.tensor(report.token_ids)
        mask[row, : len(report.token_ids)] = True
    with torch.inference_mode():
        logits = model.report_logits(features, prompts, ids, mask).logits
    scores = logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    return [scores[row, : len(report.token_ids)].tolist() for row, report in enumerate(reports)]


def largest_difference(model, features, prompts, reports: list[list[GeneratedReport]]) -> float:
    """Return the largest difference of log-probs over the first sample of every study."""
    first = [samples[0] for samples in reports]
    expected = trainer_logprobs(model, features, prompts, first)
    largest = 0.0
    for report, row in zip(first, expected, strict=True):
        for a, b in zip(report.logprobs, row, strict=True):
            largest = max(largest, abs(a - b))
    return largest


def other_weights(directory: Path, seed: int, only: str = "") -> ReportGenerator:
    """Return the checkpoint's model with those weights moved whose name contains ``only``."""
    model = load_checkpoint(directory)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if only in name:
                parameter.add_(
                    torch.randn(parameter.shape, generator=generator)
                    * 0.3
                    * (parameter.std() + 0.1)
                )
    return model


def long_prompts(prompts: list[list[int]], length: int = 100) -> list[list[int]]:
    """Return prompts that with 30 visual tokens fill a whole cache block (128 tokens on CPU)."""
    return [(prompt * length)[:length] for prompt in prompts]


def same_ids(a: list[list[GeneratedReport]], b: list[list[GeneratedReport]]) -> bool:
    """Compare the tokens of all reports."""
    return token_ids(a) == token_ids(b)


def token_ids(reports: list[list[GeneratedReport]]) -> list[list[list[int]]]:
    """Return the tokens of every sample of every study."""
    return [_ids(samples) for samples in reports]


def _ids(samples: list[GeneratedReport]) -> list[list[int]]:
    return [report.token_ids for report in samples]
