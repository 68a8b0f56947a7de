"""The training studies of PPO, and the order in which they are visited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer

from lmrrg.config.tree import Config
from lmrrg.metrics.embedded.finding_tokens import carries_finding
from lmrrg.metrics.embedded.labeler import label_report
from lmrrg.model.prompts import prompt_ids, report_ids
from lmrrg.ppo.errors import PPOError
from lmrrg.run.studies import priors_of, studies_of
from lmrrg.studies import Split, Study, is_abnormal
from lmrrg.vision.files import FeatureFiles
from lmrrg.vision.study_features import StudyFeatures


@dataclass(frozen=True)
class StudyBatch:
    """S studies with all that sampling and scoring need."""

    features: StudyFeatures
    prompts: list[list[int]]
    references: list[str]
    reference_tokens: list[int]
    """Length of each reference in tokens, EOS included, as a target of training would have it."""
    labels: list[dict[str, int]]
    abnormal: list[bool]
    """Whether a class other than "No Finding" is positive in the labels."""

    def __len__(self) -> int:
        return len(self.prompts)


class StudyPool:
    """Studies of one split that have a reference report; images are read from the feature cache when asked for.

    Labels are the study's own, or those that the rule-based labeler reads from its reference.

    Raises:
        PPOError: ``no_studies``, none of the split has the wanted section.
    """

    def __init__(self, config: Config, split: Split, checkpoint: Path, limit: int | None = None):
        section = config.data.section
        self.studies = [s for s in studies_of(config, split) if s.report(section).strip()][:limit]
        if not self.studies:
            raise PPOError("no_studies", f"no study of the split {split} has a {section} section")
        self._tokenizer = tokenizer = AutoTokenizer.from_pretrained(
            Path(checkpoint) / "decoder", local_files_only=True
        )
        priors = priors_of(config)
        self._prompts = [
            prompt_ids(tokenizer, config.model, s.indication, priors.get(s.id, ""))
            for s in self.studies
        ]
        self._references = [s.report(section) for s in self.studies]
        limit_tokens = config.data.max_report_tokens
        self._reference_tokens = [
            len(report_ids(tokenizer, text, limit_tokens)) for text in self._references
        ]
        self._files = FeatureFiles(self.studies, config.data)

    def __len__(self) -> int:
        return len(self.studies)

    def findings(self, token_ids: Sequence[Sequence[int]]) -> Tensor:
        """Which tokens of B reports carry findings, bool [B, T], False in the padding."""
        pieces = [self._tokenizer.convert_ids_to_tokens(list(ids)) for ids in token_ids]
        return pad_sequence(
            [torch.tensor(carries_finding(of_report)) for of_report in pieces], batch_first=True
        )

    def take(self, indices: Sequence[int]) -> StudyBatch:
        """The studies at ``indices``."""
        labels = [_labels(self.studies[i], self._references[i]) for i in indices]
        return StudyBatch(
            features=self._files.select(indices),
            prompts=[self._prompts[i] for i in indices],
            references=[self._references[i] for i in indices],
            reference_tokens=[self._reference_tokens[i] for i in indices],
            labels=labels,
            abnormal=[is_abnormal(row) for row in labels],
        )


def _labels(study: Study, reference: str) -> dict[str, int]:
    return dict(study.labels) if study.labels is not None else label_report(reference)


class StudySampler:
    """Visits all studies in an order that is new in every epoch, and that the seed alone decides.

    Args:
        studies: number of studies.
        per_iteration: studies that one iteration visits.
        seed: of the permutations.
    """

    def __init__(self, studies: int, per_iteration: int, seed: int):
        self._studies, self._per_iteration, self._seed = studies, per_iteration, seed

    def batch(self, iteration: int) -> list[int]:
        """The studies of an iteration (0, 1, ...); an epoch that ends inside is followed by the next one."""
        return self._visits(iteration * self._per_iteration, self._per_iteration)

    def plan(self, iterations: int) -> list[int]:
        """The visits of the first ``iterations`` iterations."""
        return self._visits(0, iterations * self._per_iteration)

    def _visits(self, start: int, count: int) -> list[int]:
        first, last = start // self._studies, (start + count - 1) // self._studies
        order = np.concatenate([self._permutation(epoch) for epoch in range(first, last + 1)])
        offset = start - first * self._studies
        return order[offset : offset + count].tolist()

    def _permutation(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self._seed, epoch]).permutation(self._studies)


def stream_seed(seed: int, stream: str, number: int) -> int:
    """A seed for call ``number`` of one kind of randomness; kinds and calls do not share random numbers."""
    return int(np.random.SeedSequence([seed, *stream.encode(), number]).generate_state(1)[0])
