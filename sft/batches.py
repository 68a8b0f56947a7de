"""Turn studies into batches of tensors, and set the order in which an epoch visits them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from lmrrg.anatomy import REGIONS
from lmrrg.config.data import DataConfig
from lmrrg.config.model import ModelConfig
from lmrrg.metrics.embedded.finding_tokens import in_abnormal_sentence
from lmrrg.model.classifier import label_targets
from lmrrg.model.evidence import at_thresholds, stated_findings
from lmrrg.model.prompts import prompt_ids, report_ids
from lmrrg.studies import Study
from lmrrg.views import VIEWS
from lmrrg.vision.encoder import encoder_info
from lmrrg.vision.files import FeatureFiles
from lmrrg.vision.region_truth import region_truth
from lmrrg.vision.study_features import StudyFeatures

_WINDOW = 8
"""Minibatches that are sorted by length together: long enough for little padding, and short enough
that every epoch still mixes the examples."""

_VIEW_DROPOUT = 0.15
"""How often a view is called "unknown" in training."""

_AHEAD = 2
"""Batches that are read while one is trained on."""

_UNKNOWN = VIEWS.index("unknown")


@dataclass(frozen=True)
class Batch:
    """B studies as the model and its losses take them."""

    features: StudyFeatures
    prompts: list[list[int]]
    """Token ids of B prompts."""
    report_ids: Tensor
    """int64 [B, T], right-padded."""
    report_mask: Tensor
    """bool [B, T], False in the padding."""
    weights: Tensor
    """float32 [B, T], weight of each token in the loss, 0 in the padding."""
    labels: Tensor
    """int64 [B, 14], from :func:`~lmrrg.model.classifier.label_targets`."""
    regions: Tensor | None = None
    """float32 [B, 29, V, P], the fraction of each patch that a region covers; None unless the
    attention is supervised."""

    def to(self, device: torch.device | str) -> Batch:
        """Return a copy on ``device``."""
        return Batch(
            self.features.to(device),
            self.prompts,
            self.report_ids.to(device),
            self.report_mask.to(device),
            self.weights.to(device),
            self.labels.to(device),
            None if self.regions is None else self.regions.to(device),
        )


class Examples:
    """Studies with a reference report, tokenized once; features come from the cache by batch.

    Args:
        studies: with the section that ``data.section`` names.
        files: the studies' image features, in the same order.
        tokenizer: the decoder's.
        data: section, longest report, image size and number of views.
        model: what a prompt holds.
        thresholds: operating point [14] for the encoder's evidence, where the model reads any.
        priors: prior reports by study id (:func:`~lmrrg.run.studies.priors_of`).
        supervise_attention: whether region masks are read.
        abnormal_weight: weight of the tokens of abnormal sentences in the loss.
    """

    def __init__(
        self,
        studies: Sequence[Study],
        files: FeatureFiles,
        tokenizer: PreTrainedTokenizerBase,
        data: DataConfig,
        model: ModelConfig,
        *,
        thresholds: Tensor | None = None,
        priors: Mapping[str, str] | None = None,
        supervise_attention: bool = False,
        abnormal_weight: float = 1.0,
    ) -> None:
        priors = priors or {}
        self.reports: list[list[int]] = []
        self._texts: list[tuple[str, str]] = []
        self.weights: list[Tensor] = []
        self._masked: list[Study | None] = []
        for study in studies:
            report = study.report(data.section)
            prior = priors.get(study.id, "")
            self.reports.append(report_ids(tokenizer, report, data.max_report_tokens))
            self.weights.append(token_weights(tokenizer, self.reports[-1], abnormal_weight))
            self._texts.append((study.indication, prior))
            has_masks = supervise_attention and "masks" in study.truth
            self._masked.append(study if has_masks else None)
        self.labels = label_targets(studies)
        self.stated = stated_findings(studies, data.section) if model.uses_evidence else None
        self._tokenizer = tokenizer
        self._model = model
        self._thresholds = thresholds
        self._files = files
        self._views = data.max_views
        self._patches = encoder_info(data.image_size, model.image_encoder).patches

    def __len__(self) -> int:
        return len(self.reports)

    @property
    def lengths(self) -> list[int]:
        """Return the tokens of every report, EOS included."""
        return [len(report) for report in self.reports]

    def batch(
        self,
        index: Sequence[int],
        forgotten: Tensor | None = None,
        evidence: Tensor | None = None,
    ) -> Batch:
        """Return the examples at ``index``, padded to the longest report among them.

        Args:
            index: of the examples.
            forgotten: of all examples, from :func:`forgotten_views`.
            evidence: of all examples, from :func:`~lmrrg.model.evidence.noisy_evidence`; None: what
                the image encoder finds, at the operating point.
        """
        rows = list(index)
        reports = [torch.tensor(self.reports[i], dtype=torch.long) for i in rows]
        ids = pad_sequence(reports, batch_first=True, padding_value=0)
        length = torch.tensor([len(report) for report in reports])
        features = self._files.select(rows)
        if forgotten is not None:
            views = torch.where(forgotten[rows], _UNKNOWN, features.views)
            features = replace(features, views=views)
        features = self._with_evidence(features, rows, evidence)
        return Batch(
            features=features,
            prompts=self._prompts(rows, features.evidence),
            report_ids=ids,
            report_mask=torch.arange(ids.shape[1]) < length[:, None],
            weights=pad_sequence([self.weights[i] for i in rows], batch_first=True),
            labels=self.labels[rows],
            regions=self._regions(rows),
        )

    def masked(self, index: Sequence[int]) -> int:
        """Count the examples with region masks; 0 unless the attention is supervised."""
        return sum(self._masked[i] is not None for i in index)

    def read_ahead(
        self,
        microbatches: Iterable[Sequence[int]],
        forgotten: Tensor | None = None,
        evidence: Tensor | None = None,
    ) -> Iterator[Batch]:
        """Yield a batch for each of ``microbatches``, in order.

        A thread reads the next batches while the caller works on one.
        """
        # One torch thread for the reader: it only copies, and with several threads it would take
        # the cores from the training step.
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as reader:
            waiting: deque[Future[Batch]] = deque()
            for index in microbatches:
                waiting.append(reader.submit(self.batch, index, forgotten, evidence))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _with_evidence(
        self, features: StudyFeatures, rows: list[int], evidence: Tensor | None
    ) -> StudyFeatures:
        if evidence is not None:
            return replace(features, evidence=evidence[rows])
        if self._thresholds is not None:
            return at_thresholds(features, self._model, self._thresholds)
        return features

    def _prompts(self, rows: list[int], evidence: Tensor) -> list[list[int]]:
        prompts = []
        for row, i in enumerate(rows):
            indication, prior = self._texts[i]
            prompts.append(
                prompt_ids(self._tokenizer, self._model, indication, prior, evidence[row])
            )
        return prompts

    def _regions(self, index: Sequence[int]) -> Tensor | None:
        if not self.masked(index):
            return None
        covered = torch.zeros(len(index), len(REGIONS), self._views, self._patches)
        for row, study in enumerate(self._masked[i] for i in index):
            truth = region_truth(study, self._views, self._patches) if study else None
            if truth is not None:
                covered[row] = torch.from_numpy(truth.coverage)
        return covered


def token_weights(
    tokenizer: PreTrainedTokenizerBase, report: Sequence[int], abnormal_weight: float
) -> Tensor:
    """Return the weight of each token of a report in the loss, float32 [T].

    Reports are mostly normal sentences, which are easy; the sentences that tell patients apart are
    few (**ours**).
    """
    if abnormal_weight == 1:
        return torch.ones(len(report))
    abnormal = in_abnormal_sentence(tokenizer.convert_ids_to_tokens(list(report)))
    return torch.where(torch.tensor(abnormal), abnormal_weight, 1.0)


def balanced_visits(stated: Tensor, balance: float) -> np.ndarray:
    """Return how probable it is that a visit goes to each study [N] (**ours**).

    A study counts by its rarest finding, or as one without any.

    Args:
        stated: which findings each report states, bool [N, 13].
        balance: 0: all studies are equally probable; 1: these groups of studies would be, if no
            study had two findings.

    >>> balanced_visits(torch.tensor([[True], [False], [False], [False]]), 1.0).round(3).tolist()
    [0.5, 0.167, 0.167, 0.167]
    """
    normal = ~stated.any(dim=1, keepdim=True)
    groups = torch.cat([stated, normal], dim=1).numpy()
    frequency = groups.sum(axis=0).clip(1)
    rarest = np.where(groups, frequency, len(groups)).min(axis=1)
    probability = rarest.astype(float) ** -balance
    return probability / probability.sum()


def forgotten_views(examples: int, views: int, seed: int, epoch: int) -> Tensor:
    """Draw which views are called "unknown" in an epoch, bool [examples, views].

    So a picture that comes without its view is nothing new to the model (**ours**).
    """
    # The 1 separates this stream from that of `epoch_minibatches`.
    rng = np.random.default_rng([seed, epoch, 1])
    return torch.from_numpy(rng.random((examples, views)) < _VIEW_DROPOUT)


def epoch_minibatches(
    lengths: Sequence[int],
    minibatch: int,
    seed: int,
    epoch: int,
    visits: np.ndarray | None = None,
) -> list[list[int]]:
    """Divide all examples, in random order, into minibatches of equal size and similar length.

    The order depends on ``seed`` and ``epoch`` alone. The last minibatch is filled up with examples
    from the epoch's start: every example is seen once, those few twice. So every rank always has
    the same amount of work.

    Args:
        lengths: tokens of every example's report.
        minibatch: examples per optimizer step.
        seed: of the run.
        epoch: from 0.
        visits: from :func:`balanced_visits`; then as many examples are drawn as there are, with
            replacement, in place of visiting each of them.
    """
    rng = np.random.default_rng([seed, epoch])
    if visits is None:
        order = rng.permutation(len(lengths))
    else:
        order = rng.choice(len(lengths), size=len(lengths), p=visits)
    steps = -(-len(order) // minibatch)
    order = np.resize(order, steps * minibatch)
    size = np.asarray(lengths)[order]
    window = _WINDOW * minibatch
    # Stable, so that the order does not depend on numpy's choice of a sorting algorithm.
    by_length = [
        start + np.argsort(size[start : start + window], kind="stable")
        for start in range(0, len(order), window)
    ]
    batches = order[np.concatenate(by_length)].reshape(steps, minibatch)
    # Shuffled again: a window would otherwise always go from its shortest to its longest reports.
    return [batches[i].tolist() for i in rng.permutation(steps)]


def rank_microbatches(
    minibatch: Sequence[int], rank: int, workers: int, microbatch: int
) -> list[list[int]]:
    """Return one rank's microbatches; all ranks together hold the minibatch exactly once."""
    # Every n-th, not a block: the minibatch is sorted by length, and a rank with a block of long
    # reports would keep the others waiting.
    mine = list(minibatch)[rank::workers]
    return [mine[start : start + microbatch] for start in range(0, len(mine), microbatch)]
