"""What a compared system writes; the trained ones generate with vLLM."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmrrg.config.data import DataConfig
from lmrrg.config.model import EvidenceConfig
from lmrrg.config.rollout import RolloutConfig
from lmrrg.evaluation.errors import EvaluationError
from lmrrg.evaluation.study_set import EvaluationSet, blank_features, other_patient_rows
from lmrrg.files import directory_hash
from lmrrg.metrics.localisation import localise_all
from lmrrg.model.checkpoint import load_checkpoint
from lmrrg.model.evidence import EvidenceError, at_thresholds, checkpoint_thresholds
from lmrrg.model.generator import ReportGenerator
from lmrrg.model.prompts import prompt_ids, report_ids
from lmrrg.progress import progress_bar
from lmrrg.studies import LABELS
from lmrrg.vision.study_features import StudyFeatures

_FORWARD = 16  # studies per forward pass of the model


class WrittenReport(Protocol):
    """The fields of a generated report that an evaluation reads."""

    @property
    def text(self) -> str: ...
    @property
    def finished(self) -> bool: ...


class Generator(Protocol):
    """A checkpoint that generates reports: :class:`lmrrg.engine.report_engine.ReportEngine`."""

    @property
    def model(self) -> ReportGenerator: ...

    def generate(
        self,
        features: StudyFeatures,
        prompts: Sequence[Sequence[int]],
        *,
        progress: Callable[[int], object],
    ) -> Sequence[Sequence[WrittenReport]]: ...

    def close(self) -> None: ...


OpenGenerator = Callable[[Path], Generator]
"""Opens the checkpoint in a directory."""


def vllm_generator(rollout: RolloutConfig, *, seed: int, threads: int) -> OpenGenerator:
    """Return what opens a checkpoint with vLLM."""

    def open_generator(checkpoint: Path) -> Generator:
        # Importing vLLM takes seconds, so nothing else in the evaluation waits for it.
        from lmrrg.engine.report_engine import ReportEngine

        return ReportEngine(checkpoint, rollout, seed=seed, threads=threads)

    return open_generator


@dataclass(frozen=True)
class ImageUse:
    """Measurements of whether a system uses its images.

    It writes reports for black images and for those of another patient. ``nll_right`` and
    ``nll_other`` are the mean negative log-likelihood of the reference [N], nats per token, given
    the study's own image and the other patient's.
    """

    blank: list[str]
    other: list[str]
    nll_right: NDArray[np.float64]
    nll_other: NDArray[np.float64]


@dataclass(frozen=True)
class SystemReports:
    """What one system wrote for the N studies of an :class:`EvaluationSet`.

    The fields from ``checkpoint`` on are empty for a baseline, which has no model.
    """

    name: str
    title: str
    reports: list[str]
    finished: list[bool]
    checkpoint: dict[str, str] | None = None
    probabilities: NDArray[np.float64] | None = None
    """Probabilities of the 14 classes, from the image alone: [N, 14]."""
    attention: Tensor | None = None
    """Region cross-attention, float32 [N, 29, V, P]."""
    localisation: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Scores of :mod:`lmrrg.metrics.localisation`, each [studies with region truth, 29].

    Empty where no study has region truth.
    """
    image_use: ImageUse | None = None
    is_oracle: bool = False
    """Whether it reads the true labels: a bound for systems, and none itself."""
    at_points: Mapping[float, list[str]] = field(default_factory=dict)
    """The N reports at each of ``evaluation.operating_points``, by threshold."""


def model_system(
    name: str,
    title: str,
    checkpoint: Path,
    evaluated: EvaluationSet,
    settings: DataConfig,
    evidence: EvidenceConfig,
    seed: int,
    open_generator: OpenGenerator,
    points: Sequence[float] = (),
) -> SystemReports:
    """Generate the greedy reports of a checkpoint, and measure its classifier and its image use.

    Args:
        name: name of the system in the results.
        title: title of the system for people.
        checkpoint: model directory.
        evaluated: the N studies.
        settings: image size, and the longest reference in tokens.
        evidence: operating point of the evidence in the prompts.
        seed: decides which other patient's image each study gets.
        open_generator: opens the checkpoint for generation.
        points: further operating points at which the reports are written, thresholds.

    Raises:
        EvaluationError: ``checkpoint_missing`` or ``one_patient``.
        EvidenceError: ``no_evidence``, the encoder has no class head, or there are ``points`` and
            the model reads no evidence; ``no_thresholds``.
    """
    record = checkpoint_record(checkpoint)
    patients = [study.patient for study in evaluated.studies]
    other = evaluated.features.select(other_patient_rows(patients, seed))
    blank = blank_features(evaluated.features, settings, evaluated.encoder)
    with closing(open_generator(checkpoint)) as generator:
        model = generator.model
        thresholds = checkpoint_thresholds(checkpoint, evidence)
        # Evidence comes from the images, so other images bring other evidence.
        own, blank, other = (
            at_thresholds(features, model.config, thresholds)
            for features in (evaluated.features, blank, other)
        )
        if points and not model.config.uses_evidence:
            raise EvidenceError(
                "no_evidence",
                f"evaluation.operating_points: the model in {checkpoint} reads no evidence, so "
                "its reports are the same at all of them",
            )
        generate = partial(_generate, generator, evaluated)
        written = generate(own, f"{title}: reports")
        without_image = generate(blank, f"{title}: blank image")
        with_other = generate(other, f"{title}: another patient's image")
        at_points = {}
        for point in points:
            features = at_thresholds(
                evaluated.features, model.config, torch.full((len(LABELS),), point)
            )
            reports = generate(features, f"{title}: operating point {point:g}")
            at_points[point] = [report.text for report in reports]
        probabilities, attention = _classify_and_attend(model, own)
    # vLLM gives no likelihood of a given text. It is closed by now, so that two language models are
    # never in memory together.
    whole = load_checkpoint(checkpoint).to("cuda" if torch.cuda.is_available() else "cpu")
    targets = [
        report_ids(whole.tokenizer, text, settings.max_report_tokens)
        for text in evaluated.references
    ]
    use = ImageUse(
        blank=[report.text for report in without_image],
        other=[report.text for report in with_other],
        nll_right=reference_nll(
            whole, own, _prompts(whole, evaluated, own), targets, f"{title}: likelihood"
        ),
        nll_other=reference_nll(
            whole,
            other,
            _prompts(whole, evaluated, other),
            targets,
            f"{title}: likelihood, other image",
        ),
    )
    return SystemReports(
        name=name,
        title=title,
        reports=[report.text for report in written],
        finished=[report.finished for report in written],
        checkpoint=record,
        probabilities=probabilities,
        attention=attention,
        localisation=localise_all(attention.numpy(), evaluated.regions),
        image_use=use,
        at_points=at_points,
    )


@torch.inference_mode()
def reference_nll(
    model: ReportGenerator,
    features: StudyFeatures,
    prompts: Sequence[list[int]],
    targets: Sequence[list[int]],
    description: str = "likelihood",
) -> NDArray[np.float64]:
    """Return the mean negative log-likelihood of each target [N], nats per token.

    Args:
        model: a model in evaluation mode.
        features: image features of the N studies.
        prompts: token ids of the N prompts.
        targets: token ids of the N references.
        description: title of the progress bar.
    """
    device = next(model.parameters()).device
    values = []
    for rows in progress_bar(batches(len(targets), _FORWARD), desc=description, unit="batch"):
        unpadded = [torch.tensor(targets[row]) for row in rows]
        ids = torch.nn.utils.rnn.pad_sequence(unpadded, batch_first=True).to(device)
        lengths = torch.tensor([len(target) for target in unpadded], device=device)
        mask = torch.arange(ids.shape[1], device=device) < lengths[:, None]
        batch_prompts = [prompts[row] for row in rows]
        out = model.report_logits(features.select(rows).to(device), batch_prompts, ids, mask)
        token_nll = torch.nn.functional.cross_entropy(out.logits.float().mT, ids, reduction="none")
        # torch.where, not a product: padding may be infinite, and 0 times infinity is NaN.
        values.append(torch.where(mask, token_nll, 0.0).sum(dim=1) / lengths)
    return torch.cat(values).cpu().double().numpy()


def checkpoint_record(directory: Path) -> dict[str, str]:
    """Return ``path`` and ``sha256`` of a model directory.

    Raises:
        EvaluationError: ``checkpoint_missing``.
    """
    if not (directory / "config.json").is_file():
        raise EvaluationError("checkpoint_missing", f"{directory} holds no model; train it first")
    return {"path": str(directory), "sha256": directory_hash(directory)}


def _prompts(
    model: ReportGenerator, evaluated: EvaluationSet, features: StudyFeatures
) -> list[list[int]]:
    """Return the token ids of the prompt of each study, with the evidence of ``features``.

    The checkpoint's own settings decide what a prompt holds.
    """
    prompts = []
    for study, prior, evidence in zip(
        evaluated.studies, evaluated.priors, features.evidence, strict=True
    ):
        prompts.append(prompt_ids(model.tokenizer, model.config, study.indication, prior, evidence))
    return prompts


def _generate(
    generator: Generator, evaluated: EvaluationSet, features: StudyFeatures, description: str
) -> list[WrittenReport]:
    """Return one greedy report for each study, with the images of ``features``."""
    prompts = _prompts(generator.model, evaluated, features)
    with progress_bar(total=len(prompts), desc=description, unit="report") as bar:
        return [report for (report,) in generator.generate(features, prompts, progress=bar.update)]


@torch.inference_mode()
def _classify_and_attend(
    model: ReportGenerator, features: StudyFeatures
) -> tuple[NDArray[np.float64], Tensor]:
    """Return the class probabilities [N, 14] and the region attention [N, 29, V, P]."""
    device = next(model.parameters()).device
    logits = []
    attention = []
    for rows in batches(len(features), _FORWARD):
        visual = model.visual(features.select(rows).to(device))
        logits.append(visual.disease_logits)
        attention.append(visual.attention.float().cpu())
    return torch.cat(logits).sigmoid().cpu().double().numpy(), torch.cat(attention)


def batches(count: int, size: int) -> list[list[int]]:
    """Return the rows 0 to ``count - 1`` in batches of at most ``size``."""
    return [list(range(start, min(start + size, count))) for start in range(0, count, size)]
