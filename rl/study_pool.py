"""The training studies of PPO, and the order in which they are visited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from lmrrg.config.data import DataConfig
from lmrrg.config.model import EvidenceConfig, ModelConfig
from lmrrg.metrics.embedded.finding_tokens import carries_finding
from lmrrg.metrics.embedded.labeler import label_report
from lmrrg.model.checkpoint import checkpoint_encoder
from lmrrg.model.evidence import (
    at_thresholds,
    checkpoint_thresholds,
    evidence_of,
    imitated_evidence,
    require_evidence,
    stated_findings,
)
from lmrrg.model.prompts import prompt_ids, report_ids
from lmrrg.ppo.errors import PPOError
from lmrrg.studies import Study, is_abnormal
from lmrrg.vision.files import FeatureFiles
from lmrrg.vision.study_features import StudyFeatures


@dataclass(frozen=True)
class StudyBatch:
    """S studies with everything that sampling and scoring need."""

    features: StudyFeatures
    prompts: list[list[int]]
    references: list[str]
    reference_tokens: list[int]
    """Length of each reference in tokens, with EOS, as it would be as a training target."""
    labels: list[dict[str, int]]
    abnormal: list[bool]
    """Whether a class other than "No Finding" is positive in the labels."""

    def __len__(self) -> int:
        return len(self.prompts)


class StudyPool:
    """Studies of one split that have a reference report; any of them can be taken as a batch.

    Image features are read from the feature cache when a batch is taken. Labels are the study's
    own, or those that the rule-based labeler finds in its reference.

    Args:
        studies: at least one, all of one split.
        priors: prior reports that belong into prompts, by study id.
        data: the section that is the reference, the feature cache, the limit on report tokens.
        model: what the prompts contain.
        checkpoint: model directory with the tokenizer and the image encoder.
        evidence: operating point of the evidence in the prompts.
        limit: largest number of studies; None: all.

    Raises:
        PPOError: ``no_studies``, none of the studies has the wanted section.
        EvidenceError: ``no_evidence`` or ``no_thresholds``.
    """

    def __init__(
        self,
        studies: Sequence[Study],
        priors: Mapping[str, str],
        data: DataConfig,
        model: ModelConfig,
        checkpoint: Path,
        evidence: EvidenceConfig,
        limit: int | None = None,
    ):
        with_reference = [study for study in studies if study.report(data.section).strip()]
        if not with_reference:
            raise PPOError(
                "no_studies",
                f"no study of the split {studies[0].split} has a {data.section} section",
            )
        self.studies = with_reference[:limit]
        self._tokenizer = AutoTokenizer.from_pretrained(
            Path(checkpoint) / "decoder", local_files_only=True
        )
        # Token ids of all studies are kept; image features, which are large, stay on disk.
        self._texts = []
        self._references = []
        self._reference_tokens = []
        for study in self.studies:
            prior = priors.get(study.id, "")
            reference = study.report(data.section)
            target = report_ids(self._tokenizer, reference, data.max_report_tokens)
            self._texts.append((study.indication, prior))
            self._references.append(reference)
            self._reference_tokens.append(len(target))
        encoder = checkpoint_encoder(checkpoint, model.image_encoder)
        self._files = FeatureFiles(self.studies, data, encoder=encoder)
        self._data = data
        self._model = model
        self._thresholds = checkpoint_thresholds(checkpoint, evidence)
        self._imitated: Tensor | None = None
        if model.uses_evidence:
            require_evidence(self._files.select([0]))

    def __len__(self) -> int:
        return len(self.studies)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer of the decoder."""
        return self._tokenizer

    def findings(self, token_ids: Sequence[Sequence[int]]) -> Tensor:
        """Return which tokens of B reports carry findings, bool [B, T], False in the padding."""
        rows = []
        for of_report in token_ids:
            pieces = self._tokenizer.convert_ids_to_tokens(list(of_report))
            rows.append(torch.tensor(carries_finding(pieces)))
        return pad_sequence(rows, batch_first=True)

    def abnormal_weights(self, weight: float) -> list[float] | None:
        """Return how often each study is to be visited: ``weight`` where it is abnormal, else 1.

        None where all are alike.
        """
        if weight == 1:
            return None
        weights = []
        for study, reference in zip(self.studies, self._references, strict=True):
            weights.append(weight if is_abnormal(_labels(study, reference)) else 1.0)
        return weights

    def imitate_evidence(self, other: StudyPool, seed: int) -> None:
        """Give each study evidence that is as often right as that of the studies of ``other``.

        A study keeps it for the whole run.
        """
        section = self._data.section
        self._imitated = imitated_evidence(
            stated_findings(self.studies, section),
            evidence_of(other._files),
            stated_findings(other.studies, section),
            seed,
        )

    def take(self, indices: Sequence[int]) -> StudyBatch:
        """Return the studies at ``indices``."""
        # Labelled here rather than at the start: a short run visits only some of the studies.
        labels = [_labels(self.studies[i], self._references[i]) for i in indices]
        features = self._files.select(indices)
        if self._imitated is not None:
            features = replace(features, evidence=self._imitated[list(indices)])
        features = at_thresholds(features, self._model, self._thresholds)
        prompts = []
        for i, evidence in zip(indices, features.evidence, strict=True):
            prompts.append(prompt_ids(self._tokenizer, self._model, *self._texts[i], evidence))
        return StudyBatch(
            features=features,
            prompts=prompts,
            references=[self._references[i] for i in indices],
            reference_tokens=[self._reference_tokens[i] for i in indices],
            labels=labels,
            abnormal=[is_abnormal(of_study) for of_study in labels],
        )


def _labels(study: Study, reference: str) -> dict[str, int]:
    # Empty labels are labels too: a study that was labelled without any finding.
    return dict(study.labels) if study.labels is not None else label_report(reference)


class StudySampler:
    """The order in which studies are visited: new in every epoch, and decided by the seed alone.

    Args:
        studies: number of studies.
        per_iteration: studies that one iteration visits.
        seed: of the permutations.
        weights: how often each study is visited, relative to the others [studies]; an epoch then
            draws as many visits as there are studies, with replacement. None: each once.
    """

    def __init__(
        self,
        studies: int,
        per_iteration: int,
        seed: int,
        weights: Sequence[float] | None = None,
    ):
        self._studies = studies
        self._probability = None if weights is None else np.divide(weights, np.sum(weights))
        self._per_iteration = per_iteration
        self._seed = seed

    def batch(self, iteration: int) -> list[int]:
        """Return the studies of an iteration (0, 1, ...), which may span the end of an epoch."""
        return self._visits(iteration * self._per_iteration, self._per_iteration)

    def plan(self, iterations: int) -> list[int]:
        """Return the visits of the first ``iterations`` iterations."""
        return self._visits(0, iterations * self._per_iteration)

    def _visits(self, start: int, count: int) -> list[int]:
        """Return ``count`` visits from number ``start`` of the endless row of epochs."""
        first = start // self._studies
        last = (start + count - 1) // self._studies
        order = np.concatenate([self._permutation(epoch) for epoch in range(first, last + 1)])
        offset = start - first * self._studies
        return order[offset : offset + count].tolist()

    def _permutation(self, epoch: int) -> np.ndarray:
        # Seeded by the epoch, so that a resumed run needs no state of a generator.
        rng = np.random.default_rng([self._seed, epoch])
        if self._probability is None:
            return rng.permutation(self._studies)
        return rng.choice(self._studies, size=self._studies, p=self._probability)


def stream_seed(seed: int, stream: str, number: int) -> int:
    """Return a seed for call ``number`` of one kind of randomness.

    Seeds of different kinds and calls are independent of each other.
    """
    return int(np.random.SeedSequence([seed, *stream.encode(), number]).generate_state(1)[0])
