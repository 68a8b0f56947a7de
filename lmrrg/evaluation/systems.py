"""What each compared system writes: the trained ones through the rollout engine, the baselines without one."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmrrg.config.tree import Config
from lmrrg.errors import CodedError
from lmrrg.evaluation.baselines import (
    BASELINES,
    medoid_report,
    nearest_rows,
    pooled_image_features,
    random_rows,
)
from lmrrg.imaging.radiograph import Radiograph
from lmrrg.metrics.interfaces import Labeler
from lmrrg.metrics.localisation import RegionTruth, localise_all
from lmrrg.model.checkpoint import load_checkpoint
from lmrrg.model.generator import ReportGenerator
from lmrrg.model.prompts import prompt_ids, report_ids
from lmrrg.progress import progress_bar
from lmrrg.studies import Study, is_abnormal
from lmrrg.vision.files import FeatureFiles, load_features, load_features_from_images
from lmrrg.vision.region_truth import region_truth
from lmrrg.vision.study_features import StudyFeatures

_CHUNK = 128  # studies whose patches are in memory at once
_FORWARD = 16  # studies per forward pass of the generator


class EvaluationError(CodedError):
    """An evaluation that cannot be made; ``code`` is stable."""


class Generated(Protocol):
    """The fields of a generated report that an evaluation reads."""

    @property
    def text(self) -> str: ...
    @property
    def finished(self) -> bool: ...


LoadEngine = Callable[[Path, Config], Any]
"""Opens a checkpoint as something with the ``generate``, ``model.visual``, ``model.tokenizer``, ``model.config`` and
``close`` of :class:`lmrrg.engine.report_engine.ReportEngine`."""


def load_engine(checkpoint: Path, config: Config) -> Any:
    """The vLLM engine on a checkpoint; importing vLLM takes seconds, so it is imported here."""
    from lmrrg.engine.report_engine import ReportEngine

    return ReportEngine(checkpoint, config.rollout, seed=config.seed, threads=config.threads)


@dataclass(frozen=True)
class EvaluationSet:
    """N studies with their references (one section, never empty), prior reports (empty where a study has none), labels
    and image features."""

    studies: list[Study]
    references: list[str]
    priors: list[str]
    labels: list[dict[str, int]]
    labels_from: str
    """"studies": given with the data (for phantoms the known truth); "labeler": read from the references."""
    features: StudyFeatures
    regions: list[RegionTruth | None]
    """Where the regions lie, for phantoms; the models never see it."""

    @property
    def abnormal(self) -> list[bool]:
        """Whether any class but "No Finding" is labelled positive, by study."""
        return [is_abnormal(labels) for labels in self.labels]


@dataclass(frozen=True)
class ImageUse:
    """Whether a system looks at its image: what it writes for a blank one and for another patient's, and the mean
    negative log-likelihood [N] of the reference, nats per token, with the right and with the other image."""

    blank: list[str]
    other: list[str]
    nll_right: NDArray[np.float64]
    nll_other: NDArray[np.float64]


@dataclass(frozen=True)
class SystemReports:
    """What one system wrote for the N studies of an :class:`EvaluationSet`; a baseline has no model to look into."""

    name: str
    title: str
    reports: list[str]
    finished: list[bool]
    checkpoint: dict[str, str] | None = None
    probabilities: NDArray[np.float64] | None = None
    """Of the 14 classes, from the image alone: [N, 14]."""
    attention: Tensor | None = None
    """Region cross-attention of the example studies: float32 [E, 29, V, P]."""
    localisation: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Scores of :mod:`lmrrg.metrics.localisation`, each [studies with region truth, 29]; empty without such a study."""
    image_use: ImageUse | None = None


def model_system(
    name: str,
    title: str,
    checkpoint: Path,
    data: EvaluationSet,
    examples: Sequence[int],
    config: Config,
    load: LoadEngine = load_engine,
) -> SystemReports:
    """Greedy reports of one checkpoint, its class probabilities, heat maps, and its use of the image.

    The engine is closed before the same checkpoint is loaded for likelihoods, which the engine cannot give.

    Raises:
        EvaluationError: ``checkpoint_missing`` or ``one_patient``.
    """
    record = checkpoint_record(checkpoint)
    other = data.features.select(derange([study.patient for study in data.studies], config.seed))
    blank = blank_features(data.features, config)
    with closing(load(checkpoint, config)) as engine:
        model = engine.model
        prompts = [
            prompt_ids(model.tokenizer, model.config, study.indication, prior)
            for study, prior in zip(data.studies, data.priors, strict=True)
        ]
        written = _generate(engine, data.features, prompts, f"{title}: reports")
        without_image = _generate(engine, blank, prompts, f"{title}: blank image")
        with_other = _generate(engine, other, prompts, f"{title}: another patient's image")
        probabilities, attention = _look(model, data.features)
    whole = load_checkpoint(checkpoint).to("cuda" if torch.cuda.is_available() else "cpu")
    targets = [
        report_ids(whole.tokenizer, text, config.data.max_report_tokens) for text in data.references
    ]
    return SystemReports(
        name=name,
        title=title,
        reports=[one.text for one in written],
        finished=[one.finished for one in written],
        checkpoint=record,
        probabilities=probabilities,
        attention=attention[list(examples)],
        localisation=localise_all(attention.numpy(), data.regions),
        image_use=ImageUse(
            blank=[one.text for one in without_image],
            other=[one.text for one in with_other],
            nll_right=reference_nll(whole, data.features, prompts, targets, f"{title}: likelihood"),
            nll_other=reference_nll(
                whole, other, prompts, targets, f"{title}: likelihood, other image"
            ),
        ),
    )


def baseline_systems(
    data: EvaluationSet, training: Sequence[Study], config: Config
) -> list[SystemReports]:
    """The three systems of :mod:`lmrrg.evaluation.baselines`, made from the training studies.

    Raises:
        EvaluationError: ``no_training``, there is no training report to take.
    """
    if not training:
        raise EvaluationError("no_training", "the baselines need training studies with reports")
    reports = [study.report(config.data.section) for study in training]
    pooled = _pooled(training, config)
    rows: dict[str, Callable[[], list[str]]] = {
        "constant": lambda: [medoid_report(reports)] * len(data.studies),
        "nearest": lambda: [
            reports[row] for row in nearest_rows(pooled_image_features(data.features), pooled)
        ],
        "random": lambda: [
            reports[row] for row in random_rows(len(data.studies), len(reports), config.seed)
        ],
    }
    finished = [True] * len(data.studies)
    return [SystemReports(name, title, rows[name](), finished) for name, title in BASELINES.items()]


def evaluation_set(
    studies: Sequence[Study],
    config: Config,
    labeler: Labeler,
    priors: Mapping[str, str] | None = None,
) -> EvaluationSet:
    """Load the features of the studies that have the section; labels are the studies' own where all have them.

    Args:
        priors: the prior reports by study id (:func:`lmrrg.data.priors.prior_reports`).

    Raises:
        EvaluationError: ``no_studies``, none of them has the section.
    """
    used = [study for study in studies if study.report(config.data.section).strip()]
    if not used:
        raise EvaluationError(
            "no_studies", f"no study to evaluate has a {config.data.section} section"
        )
    references = [study.report(config.data.section) for study in used]
    given = [dict(study.labels) for study in used if study.labels is not None]
    labelled = len(given) == len(used)
    read = [] if labelled else [dict(found) for found in labeler.label(references)]
    features = load_features(used, config.data)
    _, views, patches, _ = features.patches.shape
    return EvaluationSet(
        studies=used,
        references=references,
        priors=[(priors or {}).get(study.id, "") for study in used],
        labels=given if labelled else read,
        labels_from="studies" if labelled else "labeler",
        features=features,
        regions=[region_truth(study, views, patches) for study in used],
    )


def derange(patients: Sequence[str], seed: int) -> list[int]:
    """For each study the row of a study of *another* patient, every row used once; random by seed.

    Patients are put in random order and the line is rotated by the size of the largest one, which moves every study
    out of its own patient's block.

    Raises:
        EvaluationError: ``one_patient``, a patient has more than half of the studies, so no such order exists.
    """
    rng = np.random.default_rng(seed)
    sizes = Counter(patients)
    place = dict(zip(sizes, rng.permutation(len(sizes)).tolist(), strict=True))
    line = sorted(rng.permutation(len(patients)).tolist(), key=lambda row: place[patients[row]])
    largest = max(sizes.values(), default=0)
    if 2 * largest > len(patients):
        raise EvaluationError(
            "one_patient", f"one patient has {largest} of {len(patients)} studies"
        )
    target = line[largest:] + line[:largest]
    return [row for _, row in sorted(zip(line, target, strict=True))]


def blank_features(features: StudyFeatures, config: Config) -> StudyFeatures:
    """The same studies and views with every image black."""
    size = config.data.image_size
    black = Radiograph(np.zeros((size, size), np.float32), "unknown", "png")
    patches = load_features_from_images([[black]], config.data).patches[0, 0]
    return StudyFeatures(patches.expand_as(features.patches), features.views, features.view_mask)


@torch.inference_mode()
def reference_nll(
    model: ReportGenerator,
    features: StudyFeatures,
    prompts: Sequence[list[int]],
    targets: Sequence[list[int]],
    what: str = "likelihood",
) -> NDArray[np.float64]:
    """Mean negative log-likelihood of each target [N], nats per token, of a model in evaluation mode."""
    device = next(model.parameters()).device
    values = []
    for rows in progress_bar(_batches(len(targets), _FORWARD), desc=what, unit="batch"):
        ids = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(targets[r]) for r in rows], batch_first=True
        ).to(device)
        lengths = torch.tensor([len(targets[r]) for r in rows], device=device)
        mask = torch.arange(ids.shape[1], device=device) < lengths[:, None]
        out = model.report_logits(
            features.select(rows).to(device), [prompts[r] for r in rows], ids, mask
        )
        token_nll = torch.nn.functional.cross_entropy(out.logits.float().mT, ids, reduction="none")
        values.append(torch.where(mask, token_nll, 0.0).sum(dim=1) / lengths)
    return torch.cat(values).cpu().double().numpy()


def checkpoint_record(directory: Path) -> dict[str, str]:
    """``path`` and ``sha256`` over the names and bytes of all files of a checkpoint directory.

    Raises:
        EvaluationError: ``checkpoint_missing``.
    """
    if not (directory / "config.json").is_file():
        raise EvaluationError("checkpoint_missing", f"{directory} holds no model; train it first")
    digest = hashlib.sha256()
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        with path.open("rb") as data:
            content = hashlib.file_digest(data, "sha256").hexdigest()
        digest.update(f"{path.relative_to(directory)}\0{content}\n".encode())
    return {"path": str(directory), "sha256": digest.hexdigest()}


def _generate(
    engine: Any, features: StudyFeatures, prompts: list[list[int]], what: str
) -> list[Generated]:
    with progress_bar(total=len(prompts), desc=what, unit="report") as bar:
        return [one for (one,) in engine.generate(features, prompts, progress=bar.update)]


@torch.inference_mode()
def _look(model: ReportGenerator, features: StudyFeatures) -> tuple[NDArray[np.float64], Tensor]:
    """Class probabilities [N, 14] and region attention [N, 29, V, P] of all studies."""
    device = next(model.parameters()).device
    logits, attention = [], []
    for rows in _batches(len(features), _FORWARD):
        visual = model.visual(features.select(rows).to(device))
        logits.append(visual.disease_logits)
        attention.append(visual.attention.float().cpu())
    return torch.cat(logits).sigmoid().cpu().double().numpy(), torch.cat(attention)


def _pooled(studies: Sequence[Study], config: Config) -> Tensor:
    """Pooled features of many studies without holding all their patches in memory: [N, C]."""
    files = FeatureFiles(studies, config.data)
    return torch.cat(
        [pooled_image_features(files.select(rows)) for rows in _batches(len(studies), _CHUNK)]
    )


def _batches(count: int, size: int) -> list[list[int]]:
    return [list(range(start, min(start + size, count))) for start in range(0, count, size)]
