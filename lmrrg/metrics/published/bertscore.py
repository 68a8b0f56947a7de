"""BERTScore as RadCliQ uses it: distilroberta-base, layer 5, no idf, rescaled.

Equal to ``bert_score.BERTScorer(model_type="distilroberta-base", lang="en",
rescale_with_baseline=True)``. Idf weights are off because they come from the references of a call:
with a single reference they are all zero.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor
from transformers import RobertaConfig, RobertaModel

from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.published.batching import encode, pack, ready

# The layer that agreed best with human judgements, and the F1 of unrelated English sentences at
# this layer: both are published with BERTScore for this model.
LAYER = 5
BASELINE = 0.8473319
_MAX_TOKENS = 512


class BertScore:
    """The encoder of BERTScore, which gives the token embeddings of reports."""

    def __init__(self, files: Mapping[str, Path], device: torch.device, *, budget: int):
        """Load from ``config.json``, ``model.safetensors``, ``vocab.json`` and ``merges.txt``.

        Raises:
            MetricError: ``weights_mismatch`` where the file is not this architecture.
        """
        config = RobertaConfig.from_json_file(files["config.json"])
        # Layers above the one that is read are not computed.
        config.num_hidden_layers = min(LAYER, config.num_hidden_layers)
        self._encoder = RobertaModel(config, add_pooling_layer=False)
        load_encoder(
            self._encoder, load_file(files["model.safetensors"]), ("roberta.", ""), "BERTScore"
        )
        ready(self._encoder, device)
        pack(self._encoder)
        self._tokenizer = ByteLevelBPETokenizer(
            str(files["vocab.json"]), str(files["merges.txt"]), add_prefix_space=True
        )
        self._start, self._end, self._padding = (
            self._id(token) for token in ("<s>", "</s>", "<pad>")
        )
        self._budget = budget

    def embed(self, reports: Sequence[str]) -> list[Tensor]:
        """Return unit-length token embeddings of each report [T, H] (float32, CPU).

        The start and the end token are included.
        """
        sequences = list(map(self._tokens, reports))
        embedded: list[Tensor] = [torch.empty(0)] * len(reports)
        with torch.inference_mode():
            for row, hidden in encode(
                self._encoder, sequences, padding=self._padding, budget=self._budget
            ):
                embedded[row] = torch.nn.functional.normalize(hidden, dim=-1).cpu()
        return embedded

    def _tokens(self, report: str) -> list[int]:
        """Return the token ids of a report, cut to the encoder's length."""
        words = self._tokenizer.encode(report.strip(), add_special_tokens=False).ids
        return [self._start, *words[: _MAX_TOKENS - 2], self._end]

    def _id(self, token: str) -> int:
        """Return the number of a special token."""
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise MetricError("weights_mismatch", f"the vocabulary of BERTScore has no {token}")
        return number


def bertscore_f1(hypothesis: Tensor, reference: Tensor) -> float:
    """Return the rescaled F1 of two reports' embeddings [T, H] and [U, H].

    The start and the end token may be matched but do not count themselves, so both reports here
    have one token. A report without a token of its own gives an F1 of 0 before the rescaling, as
    in the original.

    >>> report = torch.eye(3)  # start, one word, end
    >>> bertscore_f1(report, report), bertscore_f1(report[[0, 2]], report)
    (1.0, -5.55)
    """
    similarity = hypothesis @ reference.T
    precision = similarity[1:-1].max(dim=1).values.mean()
    recall = (
        similarity[:, 1:-1].max(dim=0).values.mean()
        if len(reference) > 2
        else precision.new_tensor(torch.nan)
    )
    f1 = 2 * precision * recall / (precision + recall)
    raw = 0.0 if torch.isnan(f1) else float(f1)
    return (raw - BASELINE) / (1 - BASELINE)


def load_encoder(
    encoder: torch.nn.Module, weights: Mapping[str, Tensor], prefixes: Sequence[str], what: str
) -> None:
    """Load an encoder from a state dict in which its names have a prefix.

    The first of ``prefixes`` that occurs is used. No weight of the encoder may be missing. Weights
    that it does not have (heads, poolers, layers that are not read) are left out.

    Raises:
        MetricError: ``weights_mismatch``.
    """
    prefix = _prefix(weights, prefixes, what)
    wanted = encoder.state_dict()
    absent = [name for name in wanted if prefix + name not in weights]
    if absent:
        raise MetricError(
            "weights_mismatch", f"{what}: {len(absent)} weights are missing, {absent[0]} among them"
        )
    wrong = [
        name for name, tensor in wanted.items() if weights[prefix + name].shape != tensor.shape
    ]
    if wrong:
        raise MetricError(
            "weights_mismatch",
            f"{what}: {wrong[0]} has shape {tuple(weights[prefix + wrong[0]].shape)}",
        )
    encoder.load_state_dict({name: weights[prefix + name] for name in wanted})


def _prefix(names: Collection[str], prefixes: Sequence[str], what: str) -> str:
    """Return the first prefix with which an encoder's weights occur."""
    for prefix in prefixes:
        # Every encoder has embeddings; "" would match any file without this check.
        if any(name.startswith(f"{prefix}embeddings.") for name in names):
            return prefix
    raise MetricError("weights_mismatch", f"{what}: no encoder weights in the file")
