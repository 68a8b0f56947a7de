"""RadGraph's published model without AllenNLP: entities and relations of many reports at a time.

The computation is that of the ``radgraph`` package (0.1.18, model type "radgraph"; a DyGIE++ model)
in another order: reports go through the encoder in batches, and :mod:`span_scorer` scores the spans
of a report without building their vectors. Scores agree up to rounding.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers.implementations import BertWordPieceTokenizer
from torch import Tensor
from transformers import BertConfig, BertModel

from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.parts import set_f1
from lmrrg.metrics.published.archive import open_archive
from lmrrg.metrics.published.batching import encode, pack, ready
from lmrrg.metrics.published.bertscore import load_encoder
from lmrrg.metrics.published.span_scorer import SpanScorer

_ENCODER = "_embedder.token_embedder_bert._matched_embedder.transformer_model."
# How the package splits a report into words; a hyphen does not split.
_TOKENS = re.compile(r"[/,:.!?()]|[^\s/,:.!?()]+")


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
        words = list(map(radgraph_tokens, reports))
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
        pieces = list(map(self._word_pieces, reports))
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
    entity, linked, typed, relation = map(set_f1, own, other)
    return entity, linked, typed, (entity + relation) / 2


def _sets(annotation: Annotation) -> tuple[frozenset, frozenset, frozenset, frozenset]:
    """Return the sets that are compared: the three levels of the package, and the relations.

    Level 1 has the entities, level 2 entities with whether they are the head of a relation, level 3
    each relation's head with the type and the target, and entities that are no head.
    """
    entities = annotation.entities
    heads: set[int] = set()
    typed: set[tuple] = set()
    relations: set[tuple] = set()
    for head, tail, kind in annotation.relations:
        heads.add(head)
        relations.add((entities[head], entities[tail], kind))
        # The package lower-cases tokens at the third level only, and only where there is a
        # relation.
        tokens, label = entities[head]
        typed.add((tokens.lower(), label, kind, entities[tail][0].lower()))
    marked: set[tuple] = set()
    for index, entity in enumerate(entities):
        marked.add((*entity, index in heads))
        if index not in heads:
            typed.add(entity)
    return frozenset(entities), frozenset(marked), frozenset(typed), frozenset(relations)
