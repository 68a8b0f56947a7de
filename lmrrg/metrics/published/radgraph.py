"""RadGraph's published model without AllenNLP: entities and relations of a report, many reports at a time.

The same computation as the ``radgraph`` package (0.1.18, model type "radgraph"; a DyGIE++ model), reorganised: reports
go through the encoder in batches, and a span's scores are sums of its end points' projections, so that the thousands of
spans of a report are never laid out. Scores agree to rounding.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers.implementations import BertWordPieceTokenizer
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.parts import set_f1
from lmrrg.metrics.published.archive import Archive, open_archive
from lmrrg.metrics.published.batching import encode, pack, ready
from lmrrg.metrics.published.bertscore import load_encoder

_ENCODER = "_embedder.token_embedder_bert._matched_embedder.transformer_model."
_TOKENS = re.compile(
    r"[/,:.!?()]|[^\s/,:.!?()]+"
)  # the package's own splitting; a hyphen does not split
_PAIRS_AT_ONCE = 8192


@dataclass(frozen=True)
class Annotation:
    """Entities and relations of a report, as RadGraph names them."""

    entities: tuple[tuple[str, str], ...]
    """(tokens, label) in the order of the text."""
    relations: tuple[tuple[int, int, str], ...]
    """(head, tail, type), by place in ``entities``."""


class RadGraph:
    """The published model in evaluation mode."""

    def __init__(
        self, checkpoint: Path, encoder: dict[str, Path], device: torch.device, *, budget: int
    ):
        """Load the archive (or the folder that it unpacks to) into the encoder's architecture.

        Raises:
            MetricError: ``weights_mismatch`` or ``unsupported_model`` (a model that propagates coreference).
        """
        archive = open_archive(checkpoint)
        settings = json.loads(archive.read("config.json"))
        weights = archive.weights("weights.th")
        if settings["model"]["modules"]["coref"].get("coref_prop", 0):
            raise MetricError(
                "unsupported_model",
                "RadGraph models with coreference propagation are not implemented",
            )
        self._width = int(settings["dataset_reader"]["max_span_width"])
        self._fold = int(settings["dataset_reader"]["token_indexers"]["bert"]["max_length"])
        self._bert = BertModel(
            BertConfig.from_json_file(encoder["config.json"]), add_pooling_layer=False
        )
        load_encoder(self._bert, weights, (_ENCODER,), "RadGraph")
        share = float(settings["model"]["modules"]["relation"]["spans_per_word"])
        self._scorer = SpanScorer(weights, archive, share)
        ready(self._bert, device)
        pack(self._bert)
        ready(self._scorer, device)
        self._tokenizer = BertWordPieceTokenizer(str(encoder["vocab.txt"]), lowercase=True)
        self._budget = budget

    def annotate(self, reports: Sequence[str]) -> list[Annotation]:
        """Entities and relations of each report; a report without a word has none."""
        words = [radgraph_tokens(report) for report in reports]
        with torch.inference_mode():
            embedded = self._word_embeddings(words)
            return [
                self._annotation(tokens, hidden)
                for tokens, hidden in zip(words, embedded, strict=True)
            ]

    def _annotation(self, words: list[str], hidden: Tensor) -> Annotation:
        if not words:
            return Annotation((), ())
        spans = spans_of(len(words), self._width)
        labels, relations = self._scorer(hidden, torch.tensor(spans, device=hidden.device))
        found = {span: label for span, label in zip(spans, labels, strict=True) if label}
        place = {span: row for row, span in enumerate(found)}
        entities = tuple(
            (" ".join(words[start : end + 1]), label) for (start, end), label in found.items()
        )
        linked = tuple(
            (place[spans[head]], place[spans[tail]], kind)
            for head, tail, kind in relations
            if spans[head] in place and spans[tail] in place
        )
        return Annotation(entities, linked)

    def _word_embeddings(self, reports: list[list[str]]) -> list[Tensor]:
        """Mean of each word's piece embeddings, [words, H] per report; a word without pieces is zero.

        A report longer than the encoder is cut into segments that are encoded on their own, as in AllenNLP.
        """
        pieces = [[self._pieces(word) for word in words] for words in reports]
        segments: list[list[int]] = []
        owner: list[int] = []
        for row, word_pieces in enumerate(pieces):
            flat = [piece for word in word_pieces for piece in word]
            room = self._fold - 2
            for start in range(0, max(1, len(flat)), room):
                segments.append([self._id("[CLS]"), *flat[start : start + room], self._id("[SEP]")])
                owner.append(row)
        hidden: list[Tensor] = [torch.empty(0)] * len(segments)
        for segment, states in encode(
            self._bert, segments, padding=self._id("[PAD]"), budget=self._budget
        ):
            hidden[segment] = states[1:-1]
        per_report: list[list[Tensor]] = [[] for _ in reports]
        for segment, row in enumerate(owner):
            per_report[row].append(hidden[segment])
        return [
            _mean_by_word(torch.cat(states), words)
            for states, words in zip(per_report, pieces, strict=True)
        ]

    def _pieces(self, word: str) -> list[int]:
        return self._tokenizer.encode(word, add_special_tokens=False).ids

    def _id(self, token: str) -> int:
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise MetricError(
                "weights_mismatch", f"the vocabulary of RadGraph's encoder has no {token}"
            )
        return number


def radgraph_tokens(report: str) -> list[str]:
    """The words that RadGraph labels: split at white space, and around ``/ , : . ! ? ( )``."""
    return _TOKENS.findall(report)


def spans_of(words: int, width: int) -> list[tuple[int, int]]:
    """Every span of up to ``width`` words, first and last word included, by start and then by end."""
    return [
        (start, end) for start in range(words) for end in range(start, min(start + width, words))
    ]


def _mean_by_word(states: Tensor, words: list[list[int]]) -> Tensor:
    counts = torch.tensor([len(pieces) for pieces in words], device=states.device)
    owner = torch.repeat_interleave(torch.arange(len(words), device=states.device), counts)
    total = states.new_zeros(len(words), states.shape[-1]).index_add_(0, owner, states)
    return total / counts.clamp(min=1)[:, None]


def radgraph_f1(hypothesis: Annotation, reference: Annotation) -> tuple[float, float, float, float]:
    """rg_e, rg_er and rg_bar_er as in the ``radgraph`` package (0.1.18), and RadCliQ's RG; 0 where a side is empty."""
    ours, theirs = _sets(hypothesis), _sets(reference)
    entity, linked, typed, relation = (set_f1(a, b) for a, b in zip(ours, theirs, strict=True))
    return entity, linked, typed, (entity + relation) / 2


def _sets(annotation: Annotation) -> tuple[frozenset, frozenset, frozenset, frozenset]:
    entities = annotation.entities
    heads = {head for head, _, _ in annotation.relations}
    loose = {entity for place, entity in enumerate(entities) if place not in heads}
    # The package lower-cases tokens at the third level only, and only where there is a relation.
    typed = {
        (entities[head][0].lower(), entities[head][1], kind, entities[tail][0].lower())
        for head, tail, kind in annotation.relations
    }
    return (
        frozenset(entities),
        frozenset((*entity, place in heads) for place, entity in enumerate(entities)),
        frozenset(typed | loose),
        frozenset(
            (entities[head], entities[tail], kind) for head, tail, kind in annotation.relations
        ),
    )


class _FeedForward(nn.Module):
    """Linear layers with ReLU, the first of which is given apart so that callers can split its input."""

    def __init__(self, weights: dict[str, Tensor], prefix: str):
        super().__init__()
        pattern = re.compile(re.escape(prefix) + r"_linear_layers\.\d+\.weight")
        count = sum(pattern.fullmatch(name) is not None for name in weights)
        if not count:
            raise MetricError("weights_mismatch", f"RadGraph: {prefix}_linear_layers is missing")
        self.first = _linear(weights, f"{prefix}_linear_layers.0")
        later = [_linear(weights, f"{prefix}_linear_layers.{k}") for k in range(1, count)]
        self.later = nn.Sequential(*(module for layer in later for module in (layer, nn.ReLU())))

    def forward(self, projected: Tensor) -> Tensor:
        """``projected``: what the first layer gives, bias included."""
        return self.later(torch.relu(projected))


class SpanScorer(nn.Module):
    """Labels of spans, and relations between the spans that a pruner keeps."""

    def __init__(self, weights: dict[str, Tensor], archive: Archive, spans_per_word: float):
        super().__init__()
        self._entity_names = _label_names(archive, "ner_labels")
        self._relation_names = _label_names(archive, "relation_labels")
        self._share = spans_per_word
        entity, relation = _namespace(archive, "ner_labels"), _namespace(archive, "relation_labels")
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
        """Labels ("" for none) of spans [S, 2] over words [T, H], and relations as (head, tail, type) by span."""
        width = self.width(spans[:, 1] - spans[:, 0])
        scores = self.entities(hidden, spans, width)
        best = torch.cat([scores.new_zeros(len(spans), 1), scores], dim=1).argmax(dim=1).tolist()
        keep = math.ceil(torch.tensor(len(hidden), dtype=torch.float32) * self._share)
        mention = self.mentions(hidden, spans, width)[:, 0]
        kept = mention.topk(min(max(1, keep), len(spans))).indices.sort().values
        embedded = torch.cat([hidden[spans[kept, 0]], hidden[spans[kept, 1]], width[kept]], dim=1)
        kinds = self._pair_scores(embedded, mention[kept])
        rows = kept.tolist()
        relations = [
            (rows[head], rows[tail], self._relation_names[kind - 1])
            for head, line in enumerate(kinds.tolist())
            for tail, kind in enumerate(line)
            if kind
        ]
        return [self._entity_names[k] for k in best], relations

    def _pair_scores(self, spans: Tensor, mention: Tensor) -> Tensor:
        """For each ordered pair of K spans [K, D] the relation's number, 0 for none: [K, K]."""
        first, size = self.pairs.first, spans.shape[1]
        head, tail, product = (
            first.weight[:, :size],
            first.weight[:, size : 2 * size],
            first.weight[:, 2 * size :],
        )
        # The third feature of a pair, the product of its spans, has no direction: half of the pairs are enough.
        one, other = torch.triu_indices(len(spans), len(spans), device=spans.device)
        chunks = zip(one.split(_PAIRS_AT_ONCE), other.split(_PAIRS_AT_ONCE), strict=True)
        products = torch.cat([(spans[a] * spans[b]) @ product.T for a, b in chunks])
        place = torch.empty(len(spans), len(spans), dtype=torch.long, device=spans.device)
        place[one, other] = place[other, one] = torch.arange(len(one), device=spans.device)
        projected = (
            (spans @ head.T)[:, None] + (spans @ tail.T)[None] + first.bias + products[place]
        )
        scores = (
            self.relations(self.pairs(projected)) + (mention[:, None] + mention[None])[..., None]
        )
        return torch.cat([torch.zeros_like(scores[..., :1]), scores], dim=-1).argmax(dim=-1)


class _SpanHead(nn.Module):
    """A feed-forward scorer of spans whose first layer is applied to words and widths before they meet."""

    def __init__(self, weights: dict[str, Tensor], prefix: str, width: int):
        super().__init__()
        self.layers = _FeedForward(weights, f"{prefix}0._module.")
        self.score = _linear(weights, f"{prefix}1._module")
        self._width = width

    def forward(self, hidden: Tensor, spans: Tensor, width: Tensor) -> Tensor:
        first = self.layers.first
        start, end, wide = first.weight.split(
            [hidden.shape[1], hidden.shape[1], self._width], dim=1
        )
        ends = (hidden @ start.T)[spans[:, 0]] + (hidden @ end.T)[spans[:, 1]]
        return self.score(self.layers(ends + width @ wide.T + first.bias))


def _linear(weights: dict[str, Tensor], name: str) -> nn.Linear:
    weight, bias = _take(weights, f"{name}.weight"), _take(weights, f"{name}.bias")
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer


def _take(weights: dict[str, Tensor], name: str) -> Tensor:
    if name not in weights:
        raise MetricError("weights_mismatch", f"RadGraph: {name} is missing")
    return weights[name]


def _namespace(archive: Archive, kind: str) -> str:
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
    """Labels by number; the first entity label is the empty one."""
    text = archive.read(f"vocabulary/{_namespace(archive, kind)}.txt").decode("utf-8")
    return text.removesuffix("\n").split("\n")
