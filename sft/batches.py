"""Training examples as tensors, and the order in which an epoch visits them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lmrrg.anatomy import REGIONS
from lmrrg.config.tree import Config
from lmrrg.model.classifier import label_targets
from lmrrg.model.prompts import prompt_ids, report_ids
from lmrrg.studies import Study
from lmrrg.views import VIEWS
from lmrrg.vision.encoder import feature_shape
from lmrrg.vision.files import FeatureFiles
from lmrrg.vision.region_truth import region_truth
from lmrrg.vision.study_features import StudyFeatures

_WINDOW = 8  # minibatches that are sorted by length together
_VIEW_DROPOUT = 0.15
_AHEAD = 2  # batches that are read while one is trained on
_UNKNOWN = VIEWS.index("unknown")


@dataclass(frozen=True)
class Batch:
    """B studies: features, prompts, ``report_ids`` int64 [B, T] right-padded with ``report_mask`` bool [B, T], and
    ``labels`` int64 [B, 14] as :func:`~lmrrg.model.classifier.label_targets` makes them. ``regions`` float32
    [B, 29, V, P] is the share of each patch that a region covers; None unless the attention is supervised.
    """

    features: StudyFeatures
    prompts: list[list[int]]
    report_ids: Tensor
    report_mask: Tensor
    labels: Tensor
    regions: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """A copy on ``device``."""
        return Batch(
            self.features.to(device),
            self.prompts,
            self.report_ids.to(device),
            self.report_mask.to(device),
            self.labels.to(device),
            None if self.regions is None else self.regions.to(device),
        )


class Examples:
    """Studies with a reference report, tokenized once; features are read from the cache batch by batch.

    ``priors`` are the prior reports by study id (:func:`~lmrrg.run.studies.priors_of`).
    """

    def __init__(
        self,
        studies: Sequence[Study],
        files: FeatureFiles,
        tokenizer: PreTrainedTokenizerBase,
        config: Config,
        priors: Mapping[str, str] | None = None,
    ) -> None:
        section, longest, priors = config.data.section, config.data.max_report_tokens, priors or {}
        self.reports = [report_ids(tokenizer, study.report(section), longest) for study in studies]
        self.prompts = [
            prompt_ids(tokenizer, config.model, s.indication, priors.get(s.id, "")) for s in studies
        ]
        self.labels = label_targets(studies)
        self._files = files
        # The masks are for measuring: without the weight they are not even kept.
        self._masked = [
            study if config.sft.attention_weight and "masks" in study.truth else None
            for study in studies
        ]
        self._views, self._patches = config.data.max_views, feature_shape(config.data.image_size)[0]

    def __len__(self) -> int:
        return len(self.reports)

    @property
    def lengths(self) -> list[int]:
        """Tokens of every report, EOS included."""
        return [len(report) for report in self.reports]

    def batch(self, index: Sequence[int], forgotten: Tensor | None = None) -> Batch:
        """The examples at ``index``, padded to the longest report among them; see :func:`forgotten_views`."""
        reports = [torch.tensor(self.reports[i], dtype=torch.long) for i in index]
        ids = torch.nn.utils.rnn.pad_sequence(reports, batch_first=True, padding_value=0)
        length = torch.tensor([len(report) for report in reports])
        mask = torch.arange(ids.shape[1]) < length[:, None]
        at = list(index)
        features = self._files.select(at)
        if forgotten is not None:
            features = replace(features, views=torch.where(forgotten[at], _UNKNOWN, features.views))
        return Batch(
            features, [self.prompts[i] for i in at], ids, mask, self.labels[at], self._regions(at)
        )

    def masked(self, index: Sequence[int]) -> int:
        """How many of the examples have region masks to learn from; 0 unless the attention is supervised."""
        return sum(self._masked[i] is not None for i in index)

    def read_ahead(
        self, shares: Iterable[Sequence[int]], forgotten: Tensor | None = None
    ) -> Iterator[Batch]:
        """The batches of ``shares`` in order, read in a thread while their predecessors are used."""
        # Copies are its work: with several torch threads of its own it would take the cores from the training step.
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as reader:
            waiting: deque[Future[Batch]] = deque()
            for share in shares:
                waiting.append(reader.submit(self.batch, share, forgotten))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _regions(self, index: Sequence[int]) -> Tensor | None:
        if not self.masked(index):
            return None
        covered = torch.zeros(len(index), len(REGIONS), self._views, self._patches)
        for row, study in enumerate(self._masked[i] for i in index):
            truth = region_truth(study, self._views, self._patches) if study else None
            if truth is not None:
                covered[row] = torch.from_numpy(truth.coverage)
        return covered


def forgotten_views(examples: int, views: int, seed: int, epoch: int) -> Tensor:
    """Which views of which example are called "unknown" in an epoch, bool [examples, views].

    A picture that comes without its view should be nothing new to the model (**ours**).
    """
    rng = np.random.default_rng([seed, epoch, 1])
    return torch.from_numpy(rng.random((examples, views)) < _VIEW_DROPOUT)


def epoch_minibatches(
    lengths: Sequence[int], minibatch: int, seed: int, epoch: int
) -> list[list[int]]:
    """All examples in random order as minibatches of equal size, those of similar length together.

    Only ``seed`` and ``epoch`` decide the order. The last minibatch is filled up with examples of the epoch's start
    (every example is seen once, those few twice), so that every rank always has the same amount of work.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    steps = -(-len(order) // minibatch)
    order = np.resize(order, steps * minibatch)
    size = np.asarray(lengths)[order]
    window = _WINDOW * minibatch
    by_length = [
        start + np.argsort(size[start : start + window], kind="stable")
        for start in range(0, len(order), window)
    ]
    batches = order[np.concatenate(by_length)].reshape(steps, minibatch)
    return [batches[i].tolist() for i in rng.permutation(steps)]


def rank_share(
    minibatch: Sequence[int], rank: int, workers: int, microbatch: int
) -> list[list[int]]:
    """The microbatches of one rank; over all ranks they hold the minibatch exactly once."""
    mine = list(minibatch)[rank::workers]
    return [mine[start : start + microbatch] for start in range(0, len(mine), microbatch)]
