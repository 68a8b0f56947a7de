"""The report pairs of a fit as tensors.

A pair is a row of a CSV file with the columns study, reference, hypothesis, rg_e and rg_er.

F1 = 2·TP/S of two integers, so a published F1 also gives TP and S once S is known roughly; the fit
uses all three.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch

from lmrrg.metrics.embedded.graph import Entity, entities_of
from lmrrg.metrics.embedded.relations import relations_of
from lmrrg.metrics.embedded.salience import features
from lmrrg.metrics.embedded.sentences import read_sentence, sentences_of

LEVELS = ("rg_e", "rg_er")
LARGEST_SIZE = 250
"""No pair of reports has more entities than this together."""
Mention = tuple[Entity, list[str], str]
"""(entity, its features, its sentence)"""
Match = tuple[int, int, int, bool]
"""(pair, entity of the hypothesis, entity of the reference, whether both in the same sentence)"""


@dataclass
class Entities:
    """The entities of all texts, numbered; an entity is one (text, entity) of any mentions."""

    number: dict[tuple[int, Entity], int]
    sentences: dict[tuple[int, Entity], set[str]]
    context: list[int]
    """Mention -> its context, a set of features that many mentions share."""
    owner: list[int]
    """Mention -> its entity."""


@dataclass
class Problem:
    """Everything about the pairs as tensors; the lists are in an order that every run repeats."""

    design: torch.Tensor  # sparse [contexts, features]
    context_of_mention: torch.Tensor  # [mentions]
    entity_of_mention: torch.Tensor  # [mentions]
    text_of_entity: torch.Tensor  # [entities]
    pair_of_match: torch.Tensor  # [matches]
    left: torch.Tensor  # [matches], entity of the hypothesis
    right: torch.Tensor  # [matches], entity of the reference
    same: torch.Tensor  # [matches], whether both have the word in one and the same sentence
    texts: int
    hypothesis: torch.Tensor  # [pairs], text
    reference: torch.Tensor  # [pairs], text
    identical: torch.Tensor  # [pairs], whether both texts are the same
    names: list[str]  # of the features
    truth: torch.Tensor  # [pairs, 2]
    sizes: torch.Tensor  # [pairs, 2, candidates] of S, infinite where there are fewer
    features_of_text: list[set[str]]


def mentions_of(text: str) -> list[Mention]:
    """Return (entity, its features, its sentence) of every entity word of a report."""
    found: list[Mention] = []
    for sentence in sentences_of(text):
        read = read_sentence(sentence)
        linked = frozenset(head for head, _, _ in relations_of(read))
        entities = entities_of(read)
        found += [(entities[i], names, sentence) for i, names in features(read, linked)]
    return found


def make_problem(rows: list[dict[str, str]]) -> Problem:
    """Return the tensors of the fit of all pairs, as the CSV file has them."""
    texts = sorted({row["reference"] for row in rows} | {row["hypothesis"] for row in rows})
    number = {text: i for i, text in enumerate(texts)}
    mentions = [mentions_of(text) for text in texts]
    contexts = sorted({tuple(used) for found in mentions for _, used, _ in found})
    names = sorted({name for context in contexts for name in context})
    entities = number_entities(mentions, contexts)
    hypothesis = [number[row["hypothesis"]] for row in rows]
    reference = [number[row["reference"]] for row in rows]
    matches = find_matches(mentions, entities, hypothesis, reference)
    pair_of_match, left, right, same = map(torch.tensor, zip(*matches, strict=True))
    return Problem(
        design=design_of(contexts, names),
        context_of_mention=torch.tensor(entities.context),
        entity_of_mention=torch.tensor(entities.owner),
        text_of_entity=torch.tensor([text for text, _ in entities.number]),
        pair_of_match=pair_of_match,
        left=left,
        right=right,
        same=same,
        texts=len(texts),
        hypothesis=torch.tensor(hypothesis),
        reference=torch.tensor(reference),
        identical=torch.tensor([is_identical(row) for row in rows]),
        names=names,
        truth=torch.tensor([levels_of(row) for row in rows]),
        sizes=torch.tensor([possible_sizes_of(row) for row in rows]),
        features_of_text=[{n for _, used, _ in found for n in used} for found in mentions],
    )


def design_of(contexts: Sequence[tuple[str, ...]], names: Sequence[str]) -> torch.Tensor:
    """Return which context has which feature, sparse [contexts, features]."""
    column = {name: i for i, name in enumerate(names)}
    cells = [(i, column[name]) for i, context in enumerate(contexts) for name in context]
    return torch.sparse_coo_tensor(
        torch.tensor(cells).T,
        torch.ones(len(cells)),
        (len(contexts), len(names)),
        check_invariants=False,
    ).coalesce()


def is_identical(row: dict[str, str]) -> bool:
    """Return whether both reports of a pair have the same words."""
    return row["hypothesis"].split() == row["reference"].split()


def levels_of(row: dict[str, str]) -> list[float]:
    """Return the true F1 of a pair at both levels."""
    return [float(row[level]) for level in LEVELS]


def possible_sizes_of(row: dict[str, str]) -> list[list[float]]:
    """Return the candidates of S of a pair at both levels, filled up to one length."""
    found = [possible_sizes(f1) for f1 in levels_of(row)]
    return [[*sizes, *[math.inf] * (LARGEST_SIZE - len(sizes))] for sizes in found]


def number_entities(
    mentions: Sequence[list[Mention]], contexts: Sequence[tuple[str, ...]]
) -> Entities:
    """Number the entities of all texts, and list the contexts of their mentions."""
    number = {context: i for i, context in enumerate(contexts)}
    entities = Entities({}, {}, [], [])
    for text, found in enumerate(mentions):
        for entity, used, sentence in found:
            key = (text, entity)
            entities.number.setdefault(key, len(entities.number))
            entities.sentences.setdefault(key, set()).add(sentence)
            entities.context.append(number[tuple(used)])
            entities.owner.append(entities.number[key])
    return entities


def find_matches(
    mentions: Sequence[list[Mention]],
    entities: Entities,
    hypothesis: list[int],
    reference: list[int],
) -> list[Match]:
    """Return every entity that both texts of a pair have."""
    matches: list[Match] = []
    for pair, (h, r) in enumerate(zip(hypothesis, reference, strict=True)):
        common = {entity for entity, _, _ in mentions[h]} & {entity for entity, _, _ in mentions[r]}
        for entity in sorted(common):
            left = (h, entity)
            right = (r, entity)
            same = bool(entities.sentences[left] & entities.sentences[right])
            matches.append((pair, entities.number[left], entities.number[right], same))
    return matches


def possible_sizes(f1: float) -> list[int]:
    """Return the values that |a| + |b| may have when 2·TP / (|a| + |b|) = f1; none where f1 is 0.

    TP is an integer, so |a| + |b| is a multiple of the denominator of the reduced fraction, or of
    its double where the numerator is odd.
    """
    fraction = Fraction(f1).limit_denominator(LARGEST_SIZE)
    if not fraction:
        return []
    step = fraction.denominator * (1 if fraction.numerator % 2 == 0 else 2)
    return list(range(step, LARGEST_SIZE, step))
