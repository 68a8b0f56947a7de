"""Fit the report graph's salience table on report pairs with known RadGraph F1.

The pairs are a CSV file with the columns study, reference, hypothesis, rg_e and rg_er. The first
command prints held-out figures, the second fits on all pairs and writes the table:

    python benchmarks/embedded_fit.py --pairs PAIRS.csv --folds 5
    python benchmarks/embedded_fit.py --pairs PAIRS.csv --out salience.yaml

A held-out pair is predicted by a fit that has seen neither its study nor any of its two texts, in
whatever pair. Everything that is fitted (which features are kept, weights, sharing constants) is
fitted without them.

F1 = 2·TP/S of two integers, so a published F1 also gives TP and S once S is known roughly; the fit
uses all three.
"""

from __future__ import annotations

import argparse
import csv
import math
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import yaml
from scipy.stats import kendalltau

from lmrrg.metrics.embedded.graph import Entity, entities_of
from lmrrg.metrics.embedded.relations import relations_of
from lmrrg.metrics.embedded.salience import features
from lmrrg.metrics.embedded.sentences import read_sentence, sentences_of

LEVELS = ("rg_e", "rg_er")
PENALTY = {
    **{"k": 0.05, "t": 0.2, "r": 0.1, "p": 0.3, "n": 0.3},
    **{"m": 0.5, "d": 0.6, "w": 1.0, "b": 2.0, "a": 2.0},
}
"""Ridge penalty by the first letter of a feature.

A class may move freely, a single word only for good reason.
"""
ALWAYS_KEPT = "ktr"
"""First letters of the features that are kept however rare they are."""
LEAST = 3
"""In how many of the texts of a fit any other feature must occur."""
COMMON = 0.1
"""A hypothesis in a larger share of the pairs is a template: its pairs are held out on their own.

Otherwise every pair with the template would be missing from all fits.
"""
RIDGE = 0.00012
STEPS = 200
LINKED = 2.0
"""Weight of a relation by the rules at the start, in the model of relations.

Two taggers that both link a word agree as well as two that both do not: without this start some
words would be fitted with the signs reversed, and learn nothing from each other.
"""
COUNT_WEIGHT = 0.1
"""Weight of the errors of TP and S in the loss, beside that of F1."""
LARGEST_SIZE = 250
"""No pair of reports has more entities than this together."""
ROBUST = 0.03
"""Errors of F1 beyond this count by their size, not by its square.

The tagger's slips are few and large.
"""
HEADER = (
    "# Fitted by benchmarks/embedded_fit.py; `feature_names` in salience.py explains the names.\n"
)
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


class Model(torch.nn.Module):
    """Both logistic models, and how far the tagger's decisions depend on each other."""

    def __init__(self, feature_count: int):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.zeros(feature_count, 2))
        # Most entity words are marked, half of them have a relation.
        self.bias = torch.nn.Parameter(torch.tensor([2.0, 0.0]))
        self.dependence = torch.nn.Parameter(torch.zeros(2))

    def forward(self, problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the expected (TP [pairs, 2], S [pairs, 2]) at the levels rg_e and rg_er."""
        logits = torch.sparse.mm(problem.design, self.weights) + self.bias
        marked, related = torch.sigmoid(logits)[problem.context_of_mention].T
        zeros = torch.zeros(len(problem.text_of_entity))
        owner = problem.entity_of_mention
        # An entity is marked unless every mention is missed; the clamp keeps log1p finite.
        missed = zeros.index_add(0, owner, torch.log1p(-marked.clamp(max=0.9999)))
        p = 1 - torch.exp(missed)
        weight = zeros.index_add(0, owner, marked)
        r = zeros.index_add(0, owner, marked * related) / weight
        same, other = torch.sigmoid(self.dependence)
        dependence = torch.where(problem.same, same, other)
        dependence = torch.where(problem.identical[problem.pair_of_match], 1.0, dependence)
        both = self._both(p, problem, dependence)
        alike = self._both(r, problem, dependence) + self._both(1 - r, problem, dependence)
        pairs = torch.zeros(len(problem.hypothesis))
        matched = [pairs.index_add(0, problem.pair_of_match, m) for m in (both, both * alike)]
        size = torch.zeros(problem.texts).index_add(0, problem.text_of_entity, p)
        total = size[problem.hypothesis] + size[problem.reference]
        return torch.stack(matched, 1), torch.stack([total, total], 1)

    @staticmethod
    def _both(chance: torch.Tensor, problem: Problem, dependence: torch.Tensor) -> torch.Tensor:
        """Return the chance that an event happens on both sides of every match, as in graph.py."""
        a = chance[problem.left]
        b = chance[problem.right]
        return dependence * torch.minimum(a, b) + (1 - dependence) * a * b


def known_features(problem: Problem, use: torch.Tensor) -> torch.Tensor:
    """Return which features [features] the texts of the pairs of ``use`` have often enough."""
    texts = torch.cat([problem.hypothesis[use], problem.reference[use]]).unique().tolist()
    count = Counter(name for text in texts for name in problem.features_of_text[text])
    least = [1 if name[0] in ALWAYS_KEPT else LEAST for name in problem.names]
    return torch.tensor([count[n] >= k for n, k in zip(problem.names, least, strict=True)])


def with_features(problem: Problem, kept: torch.Tensor) -> Problem:
    """Return the same problem with the features of ``kept`` [features] alone."""
    columns = torch.arange(len(problem.names))[kept]
    names = [problem.names[i] for i in columns.tolist()]
    return replace(problem, design=problem.design.index_select(1, columns).coalesce(), names=names)


def fit(problem: Problem, use: torch.Tensor, ridge: float = RIDGE) -> Model:
    """Fit on the pairs that ``use`` [pairs] selects; a feature that they lack weighs 0."""
    kept = known_features(problem, use)
    known = fit_features(with_features(problem, kept), use, ridge)
    model = Model(len(problem.names))
    with torch.no_grad():
        model.weights[kept] = known.weights
        model.bias.copy_(known.bias)
        model.dependence.copy_(known.dependence)
    return model


def fit_features(problem: Problem, use: torch.Tensor, ridge: float) -> Model:
    """Fit the weights of all features of a problem."""
    model = Model(len(problem.names))
    with torch.no_grad():
        model.weights[:, 1] = torch.tensor([linked_start(name) for name in problem.names])
    penalty = ridge * torch.tensor([PENALTY[name[0]] for name in problem.names])[:, None]
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for step in range(STEPS):
        optimiser.zero_grad()
        matched, total = model(problem)
        # Which S is meant is decided anew now and then: every step would follow the noise.
        if step % 20 == 0:
            sizes = nearest_sizes(problem, total.detach())
        f1 = 2 * matched / total.clamp_min(1e-6)
        error = (f1 - problem.truth)[use]
        known = use[:, None] & (sizes > 0)
        safe = sizes.clamp_min(1)
        off = torch.cat([(total / safe - 1)[known], (2 * matched / safe - problem.truth)[known]])
        loss = (
            2 * _huber(error, ROBUST)
            + COUNT_WEIGHT * _huber(off, 0.1)
            + (penalty * model.weights**2).sum()
        )
        loss.backward()
        optimiser.step()
        schedule.step()
    return model


def linked_start(name: str) -> float:
    """Return the weight of a feature in the model of relations at the start of a fit.

    >>> linked_start("r O11"), linked_start("r O10"), linked_start("k O1")
    (2.0, -2.0, 0.0)
    """
    if not name.startswith("r "):
        return 0.0
    return LINKED if name.endswith("1") else -LINKED


def _huber(errors: torch.Tensor, delta: float) -> torch.Tensor:
    zeros = torch.zeros_like(errors)
    return torch.nn.functional.huber_loss(errors, zeros, reduction="sum", delta=delta)


def nearest_sizes(problem: Problem, total: torch.Tensor) -> torch.Tensor:
    """Return for every pair and level the possible S closest to the expected one.

    It is 0 where F1 is 0, which gives no hint of S.
    """
    distance = (problem.sizes - total[:, :, None]).abs()
    nearest = problem.sizes.gather(2, distance.argmin(2, keepdim=True)).squeeze(2)
    return torch.where(nearest.isinf(), 0.0, nearest)


def predict(model: Model, problem: Problem) -> np.ndarray:
    """Return F1 [pairs, 2] at the levels rg_e and rg_er."""
    with torch.no_grad():
        matched, total = model(problem)
    return (2 * matched / total.clamp_min(1e-6)).numpy()


def predict_in_folds(
    problem: Problem,
    rows: Sequence[dict[str, str]],
    folds: int,
    ridge: float = RIDGE,
    known: frozenset[str] = frozenset(),
) -> np.ndarray:
    """Return F1 [pairs, 2], each pair predicted by a fit that saw nothing of it.

    Args:
        problem: the tensors of the pairs.
        rows: the pairs.
        folds: into how many parts the studies are divided.
        ridge: see :func:`fit`.
        known: texts that the fit may see nevertheless, as :func:`same_words` has them.
    """
    found = np.zeros((len(rows), len(LEVELS)))
    for held_out in held_out_parts(rows, folds):
        use = torch.tensor(unrelated(rows, held_out, known))
        found[held_out] = predict(fit(problem, use, ridge), problem)[held_out]
    return found


def held_out_parts(rows: Sequence[dict[str, str]], folds: int) -> list[np.ndarray]:
    """Return the parts of the pairs that are held out in turn, each [pairs] of bool.

    A checksum of the study chooses the fold. The pairs with a template are a part of their own.
    """
    fold = np.array([zlib.crc32(row["study"].encode()) % folds for row in rows])
    common = templates(rows)
    is_template = np.array([same_words(row["hypothesis"]) in common for row in rows])
    parts = [(fold == k) & of_kind for k in range(folds) for of_kind in (is_template, ~is_template)]
    return [part for part in parts if part.any()]


def templates(rows: Sequence[dict[str, str]]) -> frozenset[str]:
    """Return the hypotheses that a large share of the pairs have."""
    count = Counter(same_words(row["hypothesis"]) for row in rows)
    return frozenset(text for text, number in count.items() if number > COMMON * len(rows))


def unrelated(
    rows: Sequence[dict[str, str]], held_out: np.ndarray, known: frozenset[str] = frozenset()
) -> list[bool]:
    """Return which pairs share neither a study nor a text, ``known`` apart, with the held-out."""
    held = [row for row, is_held in zip(rows, held_out, strict=True) if is_held]
    studies = {row["study"] for row in held}
    texts = {text for row in held for text in texts_of(row)} - known
    return [row["study"] not in studies and texts.isdisjoint(texts_of(row)) for row in rows]


def texts_of(row: dict[str, str]) -> set[str]:
    """Return the words of both texts of a pair."""
    return {same_words(row["reference"]), same_words(row["hypothesis"])}


def same_words(text: str) -> str:
    """Return the letters and digits of a text: texts that differ in marks alone are the same.

    >>> same_words("T-spine, normal .") == same_words("tspine normal")
    True
    """
    return "".join(re.findall(r"[a-z0-9]+", text.lower()))


def figures(found: np.ndarray, truth: np.ndarray) -> str:
    """Return the figures by which the graph is judged, as one line."""
    pearson = np.corrcoef(found[:, 1], truth[:, 1])[0, 1]
    tau = kendalltau(found[:, 1], truth[:, 1]).statistic
    error = np.abs(found - truth).mean(0)
    return (
        f"rg_er: Pearson {pearson:.4f}, Kendall tau_b {tau:.4f}; "
        f"mean |error| rg_e {error[0]:.4f}, rg_er {error[1]:.4f}"
    )


def table_of(model: Model, names: list[str]) -> dict[str, object]:
    """Return the fitted weights as the package stores them; what is nearly 0 is left out."""
    weights = model.weights.detach().numpy()
    same, other = torch.sigmoid(model.dependence).tolist()
    entity_bias, relation_bias = model.bias.tolist()
    return {
        "entity": weight_table(names, weights[:, 0], entity_bias),
        "relation": weight_table(names, weights[:, 1], relation_bias),
        "same_sentence": round(same, 3),
        "other_sentence": round(other, 3),
    }


def weight_table(names: list[str], weights: np.ndarray, bias: float) -> dict[str, float]:
    """Return feature -> weight of one of the two models."""
    kept: dict[str, float] = {}
    for name, weight in zip(names, weights, strict=True):
        if abs(weight) > 0.02:
            kept[name] = round(float(weight), 3)
    return {"bias": round(bias, 3), **dict(sorted(kept.items()))}


def main() -> None:
    """Fit, and print cross-validated figures or write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=Path, required=True, help="CSV file of report pairs")
    parser.add_argument("--folds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--ridge", type=float, default=RIDGE, help="default: %(default)s")
    parser.add_argument("--out", type=Path, help="fit on all pairs and write the table here")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rows = list(csv.DictReader(options.pairs.open(encoding="utf-8")))
    problem = make_problem(rows)
    if options.out:
        everything = torch.ones(len(rows), dtype=torch.bool)
        table = table_of(fit(problem, everything, options.ridge), problem.names)
        text = yaml.safe_dump(table, sort_keys=False, width=120)
        options.out.write_text(HEADER + text, encoding="utf-8")
        return
    found = predict_in_folds(problem, rows, options.folds, options.ridge)
    print(f"{len(rows)} pairs, {options.folds} folds:", figures(found, problem.truth.numpy()))


if __name__ == "__main__":
    main()
