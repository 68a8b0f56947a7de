"""RadGraph's published model without AllenNLP: entities and relations of many reports at a time.

The computation is that of the ``radgraph`` package (0.1.18, model type "radgraph"; a DyGIE++ model)
in another order: reports go through the encoder in batches, and a span's scores are sums of
projections of its first and last word, so that the thousands of span vectors of a report are never
built. Scores agree up to rounding.

Dimensions: T words of a report, H width of the encoder, S spans, K spans that the pruner keeps.
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
# How the package splits a report into words; a hyphen does not split.
_TOKENS = re.compile(r"[/,:.!?()]|[^\s/,:.!?()]+")
# Pairs of spans whose products are in memory at a time: a product is as wide as a span vector, and
# a report has up to tens of thousands of pairs.
_PAIRS_AT_ONCE = 8192


@dataclass(frozen=True)
class Annotation:
    """Entities and relations of a report, as RadGraph names them."""

    entities: tuple[tuple[str, str], ...]
    """(tokens, label) in the order of the text."""
    relations: tuple[tuple[int, int, str], ...]
    """(head, tail, type); head and tail are indices into ``entities``."""


class RadGraph:
    """The published model in evaluation mode."""

    def __init__(
        self, checkpoint: Path, encoder: dict[str, Path], device: torch.device, *, budget: int
    ):
        """Load the archive into the encoder's architecture.

        Raises:
            MetricError: ``weights_mismatch`` or ``unsupported_model`` (a model that propagates
                coreference).
        """
        archive = open_archive(checkpoint)
        settings = json.loads(archive.read("config.json"))
        weights = archive.weights("weights.th")
        if settings["model"]["modules"]["coref"].get("coref_prop", 0):
            raise MetricError(
                "unsupported_model",
                "RadGraph models with coreference propagation are not implemented",
            )
        reader = settings["dataset_reader"]
        self._max_span_width = int(reader["max_span_width"])
        self._max_pieces = int(reader["token_indexers"]["bert"]["max_length"])
        self._bert = BertModel(
            BertConfig.from_json_file(encoder["config.json"]), add_pooling_layer=False
        )
        load_encoder(self._bert, weights, (_ENCODER,), "RadGraph")
        spans_per_word = float(settings["model"]["modules"]["relation"]["spans_per_word"])
        self._scorer = SpanScorer(weights, archive, spans_per_word)
        ready(self._bert, device)
        pack(self._bert)
        ready(self._scorer, device)
        self._tokenizer = BertWordPieceTokenizer(str(encoder["vocab.txt"]), lowercase=True)
        self._budget = budget

    def annotate(self, reports: Sequence[str]) -> list[Annotation]:
        """Return entities and relations of each report; a report without a word has none."""
        words = [radgraph_tokens(report) for report in reports]
        with torch.inference_mode():
            embedded = self._word_embeddings(words)
            return [
                self._annotation(tokens, hidden)
                for tokens, hidden in zip(words, embedded, strict=True)
            ]

    def _annotation(self, words: list[str], hidden: Tensor) -> Annotation:
        """Return the annotation of one report from its word embeddings [T, H]."""
        if not words:
            return Annotation((), ())
        spans = spans_of(len(words), self._max_span_width)
        labels, relations = self._scorer(hidden, torch.tensor(spans, device=hidden.device))
        entities: list[tuple[str, str]] = []
        # The index among the entities of each span that is one.
        index: dict[int, int] = {}
        for number, ((start, end), label) in enumerate(zip(spans, labels, strict=True)):
            if label:
                index[number] = len(entities)
                entities.append((" ".join(words[start : end + 1]), label))
        # The scorer also links spans that are no entity; the package drops these relations.
        linked = tuple(
            (index[head], index[tail], kind)
            for head, tail, kind in relations
            if head in index and tail in index
        )
        return Annotation(tuple(entities), linked)

    def _word_embeddings(self, reports: list[list[str]]) -> list[Tensor]:
        """Return the mean of each word's piece embeddings, [T, H] per report.

        A word without pieces is zero. A report longer than the encoder is cut into segments that
        are encoded on their own, as in AllenNLP.
        """
        pieces = [self._word_pieces(words) for words in reports]
        segments: list[list[int]] = []
        owner: list[int] = []
        for row, word_pieces in enumerate(pieces):
            own_segments = self._segments(word_pieces)
            segments += own_segments
            owner += [row] * len(own_segments)
        hidden: list[Tensor] = [torch.empty(0)] * len(segments)
        for segment, states in encode(
            self._bert, segments, padding=self._id("[PAD]"), budget=self._budget
        ):
            # Without [CLS] and [SEP], which belong to no word.
            hidden[segment] = states[1:-1]
        per_report: list[list[Tensor]] = [[] for _ in reports]
        for segment, row in enumerate(owner):
            per_report[row].append(hidden[segment])
        return [
            _mean_by_word(torch.cat(states), words)
            for states, words in zip(per_report, pieces, strict=True)
        ]

    def _word_pieces(self, words: list[str]) -> list[list[int]]:
        """Return the piece ids of each word."""
        return [self._tokenizer.encode(word, add_special_tokens=False).ids for word in words]

    def _segments(self, word_pieces: list[list[int]]) -> list[list[int]]:
        """Return a report's piece ids in segments that fit the encoder, at least one."""
        flat = [piece for word in word_pieces for piece in word]
        room = self._max_pieces - 2
        start_id = self._id("[CLS]")
        end_id = self._id("[SEP]")
        return [
            [start_id, *flat[start : start + room], end_id]
            for start in range(0, max(1, len(flat)), room)
        ]

    def _id(self, token: str) -> int:
        """Return the number of a special token."""
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise MetricError(
                "weights_mismatch", f"the vocabulary of RadGraph's encoder has no {token}"
            )
        return number


def radgraph_tokens(report: str) -> list[str]:
    """Return the words that RadGraph labels: split at white space, and around ``/ , : . ! ? ( )``.

    >>> radgraph_tokens("Right-sided effusion (small).")
    ['Right-sided', 'effusion', '(', 'small', ')', '.']
    """
    return _TOKENS.findall(report)


def spans_of(words: int, width: int) -> list[tuple[int, int]]:
    """Return every span of up to ``width`` words, ordered by start and then by end.

    A span is its first and its last word.

    >>> spans_of(3, width=2)
    [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2)]
    """
    return [
        (start, end) for start in range(words) for end in range(start, min(start + width, words))
    ]


def _mean_by_word(states: Tensor, words: list[list[int]]) -> Tensor:
    """Return the mean state of each word's pieces: [pieces, H] to [T, H]."""
    counts = torch.tensor([len(pieces) for pieces in words], device=states.device)
    owner = torch.repeat_interleave(torch.arange(len(words), device=states.device), counts)
    total = states.new_zeros(len(words), states.shape[-1]).index_add_(0, owner, states)
    return total / counts.clamp(min=1)[:, None]


def radgraph_f1(hypothesis: Annotation, reference: Annotation) -> tuple[float, float, float, float]:
    """Return rg_e, rg_er and rg_bar_er, and RadCliQ's RG; 0 where a side is empty.

    The first three are those of the ``radgraph`` package (0.1.18).

    >>> effusion = ("effusion", "OBS-DP")
    >>> left = Annotation((effusion, ("left", "ANAT-DP")), ((0, 1, "located_at"),))
    >>> right = Annotation((effusion, ("right", "ANAT-DP")), ((0, 1, "located_at"),))
    >>> radgraph_f1(left, right)  # entities agree by half, the relation does not
    (0.5, 0.5, 0.0, 0.25)
    """
    own = _sets(hypothesis)
    other = _sets(reference)
    entity, linked, typed, relation = (set_f1(a, b) for a, b in zip(own, other, strict=True))
    return entity, linked, typed, (entity + relation) / 2


def _sets(annotation: Annotation) -> tuple[frozenset, frozenset, frozenset, frozenset]:
    """Return the sets that are compared: the three levels of the package, and the relations.

    Level 1 has the entities, level 2 entities with whether they are the head of a relation, level 3
    each relation's head with the type and the target, and entities that are no head.
    """
    entities = annotation.entities
    heads = {head for head, _, _ in annotation.relations}
    without_relation = {entity for index, entity in enumerate(entities) if index not in heads}
    # The package lower-cases tokens at the third level only, and only where there is a relation.
    typed = {
        (entities[head][0].lower(), entities[head][1], kind, entities[tail][0].lower())
        for head, tail, kind in annotation.relations
    }
    return (
        frozenset(entities),
        frozenset((*entity, index in heads) for index, entity in enumerate(entities)),
        frozenset(typed | without_relation),
        frozenset(
            (entities[head], entities[tail], kind) for head, tail, kind in annotation.relations
        ),
    )


class _FeedForward(nn.Module):
    """Linear layers with ReLU. Callers apply the first layer themselves, to parts of its input."""

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
        """Apply the later layers to the output of the first, bias included."""
        return self.later(torch.relu(projected))


class SpanScorer(nn.Module):
    """Labels of spans, and relations between the spans that a pruner keeps."""

    def __init__(self, weights: dict[str, Tensor], archive: Archive, spans_per_word: float):
        super().__init__()
        self._entity_names = _label_names(archive, "ner_labels")
        self._relation_names = _label_names(archive, "relation_labels")
        self._spans_per_word = spans_per_word
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
        relations = [
            (rows[head], rows[tail], self._relation_names[kind - 1])
            for head, line in enumerate(kinds.tolist())
            for tail, kind in enumerate(line)
            if kind
        ]
        return [self._entity_names[k] for k in best], relations

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
