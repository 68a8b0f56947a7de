"""CheXbert: the report embedding that RadCliQ compares, and the 14 labels of the clinical F1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from tokenizers.implementations import BertWordPieceTokenizer
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.published.batching import encode, pack, ready
from lmrrg.metrics.published.bertscore import load_encoder
from lmrrg.studies import LABELS, NEGATIVE, POSITIVE, UNCERTAIN

_MAX_TOKENS = 512
# The labels of the heads' classes in CheXbert's order: blank, positive, negative, uncertain.
_VALUES = (None, POSITIVE, NEGATIVE, UNCERTAIN)


class CheXbert:
    """BERT-base with 14 linear heads on the last layer's [CLS], in evaluation mode."""

    name = "chexbert"

    def __init__(
        self, checkpoint: Path, encoder: Mapping[str, Path], device: torch.device, *, budget: int
    ):
        """Load ``chexbert.pth`` into the architecture of the encoder's ``config.json``.

        Raises:
            MetricError: ``weights_mismatch`` where the file is not this architecture.
        """
        weights = _checkpoint_weights(checkpoint)
        self._bert = BertModel(
            BertConfig.from_json_file(encoder["config.json"]), add_pooling_layer=False
        )
        load_encoder(self._bert, weights, ("bert.",), "CheXbert")
        self._heads = nn.ModuleList(_head(weights, number) for number in range(len(LABELS)))
        ready(self._bert, device)
        pack(self._bert)
        ready(self._heads, device)
        self._tokenizer = BertWordPieceTokenizer(str(encoder["vocab.txt"]), lowercase=True)
        self._budget = budget

    def embed(self, reports: Sequence[str]) -> Tensor:
        """Return [CLS] of the last layer for each report [N, H], float32, CPU."""
        sequences = list(map(self._tokens, reports))
        embedded = torch.empty(len(reports), self._bert.config.hidden_size)
        with torch.inference_mode():
            for row, hidden in encode(
                self._bert, sequences, padding=self._id("[PAD]"), budget=self._budget
            ):
                embedded[row] = hidden[0].cpu()
        return embedded

    def label(self, reports: Sequence[str]) -> list[dict[str, int]]:
        """Return the classes that each report mentions, with 1, 0 or -1.

        They are classes of :data:`~lmrrg.studies.LABELS`; equal reports are read once.
        """
        distinct = list(dict.fromkeys(reports))
        labels = dict(zip(distinct, labels_of(self.embed(distinct), self._heads), strict=True))
        return [labels[report] for report in reports]

    def _tokens(self, report: str) -> list[int]:
        """Return the token ids of a report, cut to the encoder's length."""
        # CheXbert collapses white space before it tokenises.
        words = self._tokenizer.encode(" ".join(report.split()), add_special_tokens=False).ids
        return [self._id("[CLS]"), *words[: _MAX_TOKENS - 2], self._id("[SEP]")]

    def _id(self, token: str) -> int:
        """Return the number of a special token."""
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise MetricError("weights_mismatch", f"the vocabulary of CheXbert has no {token}")
        return number


def labels_of(embedded: Tensor, heads: nn.ModuleList) -> list[dict[str, int]]:
    """Return labels from embeddings [N, H]: each head's largest logit, blank classes left out."""
    with torch.inference_mode():
        device = next(heads.parameters()).device
        classes = [head(embedded.to(device)).argmax(dim=-1).tolist() for head in heads]
    return [_mentioned(row) for row in zip(*classes, strict=True)]


def _mentioned(classes: Sequence[int]) -> dict[str, int]:
    """Return the labels of one report from the number of each head's class."""
    labels: dict[str, int] = {}
    for label, number in zip(LABELS, classes, strict=True):
        value = _VALUES[number]
        if value is not None:
            labels[label] = value
    return labels


def _checkpoint_weights(path: Path) -> dict[str, Tensor]:
    """Return the state dict of the published checkpoint."""
    stored = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(stored, dict) or "model_state_dict" not in stored:
        raise MetricError(
            "weights_mismatch", f"{path} has no model_state_dict: it is not CheXbert's checkpoint"
        )
    # It was saved from a data-parallel model, which adds "module." to every name.
    return {
        name.removeprefix("module."): tensor for name, tensor in stored["model_state_dict"].items()
    }


def _head(weights: Mapping[str, Tensor], number: int) -> nn.Linear:
    """Return one of the 14 heads with its weights."""
    name = f"linear_heads.{number}"
    if f"{name}.weight" not in weights or f"{name}.bias" not in weights:
        raise MetricError("weights_mismatch", f"CheXbert: {name}.weight is missing")
    weight = weights[f"{name}.weight"]
    bias = weights[f"{name}.bias"]
    head = nn.Linear(weight.shape[1], weight.shape[0])
    head.load_state_dict({"weight": weight, "bias": bias})
    return head
