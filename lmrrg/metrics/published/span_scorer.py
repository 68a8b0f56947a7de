"""RadGraph's scorers: which spans of words are entities, and which pairs of spans are related.

A span's scores are sums of projections of its first and last word, so that the thousands of span
vectors of a report are never built.

Dimensions: T words of a report, H width of the encoder, S spans, K spans that the pruner keeps.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import torch
from torch import Tensor, nn

from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.published.archive import Archive

# Pairs of spans whose products are in memory at a time: a product is as wide as a span vector, and
# a report has up to tens of thousands of pairs.
_PAIRS_AT_ONCE = 8192


class _FeedForward(nn.Module):
    """Linear layers with ReLU. Callers apply the first layer themselves, to parts of its input."""

    def __init__(self, weights: dict[str, Tensor], prefix: str):
        super().__init__()
        pattern = re.compile(re.escape(prefix) + r"_linear_layers\.\d+\.weight")
        count = len(list(filter(pattern.fullmatch, weights)))
        if not count:
            raise MetricError("weights_mismatch", f"RadGraph: {prefix}_linear_layers is missing")
        self.first = _linear(weights, f"{prefix}_linear_layers.0")
        self.later = nn.Sequential()
        for number in range(1, count):
            self.later.append(_linear(weights, f"{prefix}_linear_layers.{number}"))
            self.later.append(nn.ReLU())

    def forward(self, projected: Tensor) -> Tensor:
        """Apply the later layers to the output of the first, bias included."""
        return self.later(torch.relu(projected))


class SpanScorer(nn.Module):
    """Labels of spans, and relations between the spans that a pruner keeps."""

    def __init__(self, weights: dict[str, Tensor], archive: Archive, spans_per_word: float):
        super().__init__()
        self._entity_names = _label_names(archive, "ner_labels")
        self._relation_names = _label_names(archive, "relation_labels")
        self._spans_per_word = spans_per_word
        entity = _namespace(archive, "ner_labels")
        relation = _namespace(archive, "relation_labels")
        pruner = f"_relation._mention_pruners.{relation}._scorer."
        self.width = nn.Embedding.from_pretrained(
            _take(weights, "_endpoint_span_extractor._span_width_embedding.weight")
        )
        self.entities = _SpanHead(weights, f"_ner._ner_scorers.{entity}.", self.width.embedding_dim)
        self.mentions = _SpanHead(weights, pruner, self.width.embedding_dim)
        self.pairs = _FeedForward(weights, f"_relation._relation_feedforwards.{relation}.")
        self.relations = _linear(weights, f"_relation._relation_scorers.{relation}")

    def forward(
        self, hidden: Tensor, spans: Tensor
    ) -> tuple[list[str], list[tuple[int, int, str]]]:
        """Return labels and relations of spans [S, 2] over word embeddings [T, H].

        A label is "" for a span that is no entity. A relation is (head, tail, type); head and tail
        are numbers of spans.
        """
        width = self.width(spans[:, 1] - spans[:, 0])
        scores = self.entities(hidden, spans, width)
        # The empty label has the fixed score 0; "no relation" is treated alike below.
        best = torch.cat([scores.new_zeros(len(spans), 1), scores], dim=1).argmax(dim=1).tolist()
        # In float32 like the package: in float64 the product could round up to another integer.
        keep = math.ceil(torch.tensor(len(hidden), dtype=torch.float32) * self._spans_per_word)
        mention = self.mentions(hidden, spans, width)[:, 0]
        kept = mention.topk(min(max(1, keep), len(spans))).indices.sort().values
        embedded = torch.cat([hidden[spans[kept, 0]], hidden[spans[kept, 1]], width[kept]], dim=1)
        kinds = self._pair_scores(embedded, mention[kept])
        rows = kept.tolist()
        relations: list[tuple[int, int, str]] = []
        for head, line in enumerate(kinds.tolist()):
            for tail, kind in enumerate(line):
                # Kind 0 is "no relation", so the names begin at 1.
                if kind:
                    relations.append((rows[head], rows[tail], self._relation_names[kind - 1]))
        return [self._entity_names[number] for number in best], relations

    def _pair_scores(self, spans: Tensor, mention: Tensor) -> Tensor:
        """Return the relation's number for each ordered pair of spans [K, D]: [K, K], 0: none."""
        first = self.pairs.first
        size = spans.shape[1]
        # The columns of the weight follow the features of a pair: head, tail, and their product.
        head, tail, product = first.weight.split(size, dim=1)
        # The product is the same in both directions, so half of the pairs are enough.
        one, other = torch.triu_indices(len(spans), len(spans), device=spans.device)
        chunks = zip(one.split(_PAIRS_AT_ONCE), other.split(_PAIRS_AT_ONCE), strict=True)
        products = torch.cat([(spans[a] * spans[b]) @ product.T for a, b in chunks])
        # The row of each pair's product.
        row = torch.empty(len(spans), len(spans), dtype=torch.long, device=spans.device)
        row[one, other] = row[other, one] = torch.arange(len(one), device=spans.device)
        projected = (spans @ head.T)[:, None] + (spans @ tail.T)[None] + first.bias + products[row]
        scores = (
            self.relations(self.pairs(projected)) + (mention[:, None] + mention[None])[..., None]
        )
        return torch.cat([torch.zeros_like(scores[..., :1]), scores], dim=-1).argmax(dim=-1)


class _SpanHead(nn.Module):
    """A feed-forward scorer of spans.

    A span vector is (first word, last word, width). The first layer is applied to the T words and
    to the widths, and its results are added per span: that is the same sum with fewer products.
    """

    def __init__(self, weights: dict[str, Tensor], prefix: str, width: int):
        super().__init__()
        self.layers = _FeedForward(weights, f"{prefix}0._module.")
        self.score = _linear(weights, f"{prefix}1._module")
        self._width = width

    def forward(self, hidden: Tensor, spans: Tensor, width: Tensor) -> Tensor:
        """Return the scores of spans [S, 2] over words [T, H], with width embeddings [S, W]."""
        first = self.layers.first
        of_start, of_end, of_width = first.weight.split(
            [hidden.shape[1], hidden.shape[1], self._width], dim=1
        )
        ends = (hidden @ of_start.T)[spans[:, 0]] + (hidden @ of_end.T)[spans[:, 1]]
        return self.score(self.layers(ends + width @ of_width.T + first.bias))


def _linear(weights: dict[str, Tensor], name: str) -> nn.Linear:
    """Return the linear layer of this name with its weights."""
    weight = _take(weights, f"{name}.weight")
    bias = _take(weights, f"{name}.bias")
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer


def _take(weights: dict[str, Tensor], name: str) -> Tensor:
    """Return a weight, or refuse a file without it."""
    if name not in weights:
        raise MetricError("weights_mismatch", f"RadGraph: {name} is missing")
    return weights[name]


def _namespace(archive: Archive, kind: str) -> str:
    """Return the full name of a vocabulary, which begins with that of the training data."""
    names = [
        Path(name).stem for name in archive.names("vocabulary") if name.endswith(f"__{kind}.txt")
    ]
    if len(names) != 1:
        raise MetricError(
            "weights_mismatch",
            f"RadGraph: expected one vocabulary of {kind}, found {sorted(names)}",
        )
    return names[0]


def _label_names(archive: Archive, kind: str) -> list[str]:
    """Return the labels by number; the first entity label is the empty one."""
    text = archive.read(f"vocabulary/{_namespace(archive, kind)}.txt").decode("utf-8")
    return text.removesuffix("\n").split("\n")
