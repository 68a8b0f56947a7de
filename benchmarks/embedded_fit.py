"""Fit the report graph's salience table on report pairs with known RadGraph F1.

The pairs are a CSV file with the columns study, reference, hypothesis, rg_e and rg_er. The first
command prints cross-validated figures, the second fits on all pairs and writes the table:

    python benchmarks/embedded_fit.py --pairs PAIRS.csv --group study --folds 5
    python benchmarks/embedded_fit.py --pairs PAIRS.csv --group study --out salience.yaml

F1 = 2·TP/S of two integers, so a published F1 also gives TP and S once S is known roughly; the fit
uses all three.
"""

from __future__ import annotations

import argparse
import csv
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
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
PENALTY = {"k": 0.05, "t": 0.2, "p": 0.3, "n": 0.3, "r": 0.1, "w": 1.0, "b": 2.0, "a": 2.0}
"""Ridge penalty by the first letter of a feature.

A class may move freely, a single word only for good reason.
"""
ALWAYS_KEPT = "ktr"
"""First letters of the features that are kept however rare they are."""
RIDGE = 0.00012
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
    cells: list[tuple[int, int]]
    """(mention, feature) of every feature that a mention has."""
    owner: list[int]
    """Mention -> its entity."""


@dataclass
class Problem:
    """Everything about the pairs as tensors."""

    design: torch.Tensor  # sparse [mentions, features]
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
    sizes: list[list[list[int]]]  # candidates of S per level and pair


def mentions_of(text: str) -> list[Mention]:
    """Return (entity, its features, its sentence) of every entity word of a report."""
    found: list[Mention] = []
    for sentence in sentences_of(text):
        read = read_sentence(sentence)
        linked = frozenset(head for head, _, _ in relations_of(read))
        entities = entities_of(read)
        found += [(entities[i], names, sentence) for i, names in features(read, linked)]
    return found


def make_problem(rows: list[dict[str, str]], least: int) -> Problem:
    """Return the tensors of the fit.

    Args:
        rows: the pairs, as the CSV file has them.
        least: in how many texts a feature must occur.
    """
    texts = sorted({row["reference"] for row in rows} | {row["hypothesis"] for row in rows})
    number = {text: i for i, text in enumerate(texts)}
    mentions = [mentions_of(text) for text in texts]
    names = feature_list(mentions, least)
    entities = number_entities(mentions, names)
    hypothesis = [number[row["hypothesis"]] for row in rows]
    reference = [number[row["reference"]] for row in rows]
    matches = find_matches(mentions, entities, hypothesis, reference)
    pair_of_match, left, right, same = map(torch.tensor, zip(*matches, strict=True))
    shape = (len(entities.owner), len(names))
    cells = torch.tensor(entities.cells).T
    return Problem(
        design=torch.sparse_coo_tensor(cells, torch.ones(len(entities.cells)), shape),
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
        sizes=[possible_sizes_of(rows, level) for level in LEVELS],
    )


def is_identical(row: dict[str, str]) -> bool:
    """Return whether both reports of a pair have the same words."""
    return row["hypothesis"].split() == row["reference"].split()


def levels_of(row: dict[str, str]) -> list[float]:
    """Return the true F1 of a pair at both levels."""
    return [float(row[level]) for level in LEVELS]


def possible_sizes_of(rows: list[dict[str, str]], level: str) -> list[list[int]]:
    """Return the candidates of S of each pair at one level."""
    return [possible_sizes(float(row[level])) for row in rows]


def feature_list(mentions: Sequence[list[Mention]], least: int) -> list[str]:
    """Return the names of the features that occur in at least ``least`` texts."""
    texts: Counter[str] = Counter()
    for found in mentions:
        # A text counts once for each feature, however often it has it.
        in_text: set[str] = set()
        for _, names, _ in found:
            in_text.update(names)
        texts.update(in_text)
    return [name for name, count in texts.items() if count >= least or name[0] in ALWAYS_KEPT]


def number_entities(mentions: Sequence[list[Mention]], names: list[str]) -> Entities:
    """Number the entities of all texts, and list the features of their mentions."""
    column = {name: i for i, name in enumerate(names)}
    entities = Entities({}, {}, [], [])
    for text, found in enumerate(mentions):
        for entity, used, sentence in found:
            key = (text, entity)
            entities.number.setdefault(key, len(entities.number))
            entities.sentences.setdefault(key, set()).add(sentence)
            mention = len(entities.owner)
            entities.cells += [(mention, column[name]) for name in used if name in column]
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
        for entity in common:
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
        marked, related = torch.sigmoid(torch.sparse.mm(problem.design, self.weights) + self.bias).T
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


def fit(problem: Problem, use: torch.Tensor, ridge: float, steps: int = 200) -> Model:
    """Fit on the pairs that ``use`` [pairs] selects."""
    model = Model(len(problem.names))
    penalty = ridge * torch.tensor([PENALTY[name[0]] for name in problem.names])[:, None]
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
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


def _huber(errors: torch.Tensor, delta: float) -> torch.Tensor:
    zeros = torch.zeros_like(errors)
    return torch.nn.functional.huber_loss(errors, zeros, reduction="sum", delta=delta)


def nearest_sizes(problem: Problem, total: torch.Tensor) -> torch.Tensor:
    """Return for every pair and level the possible S closest to the expected one.

    It is 0 where F1 is 0, which gives no hint of S.
    """
    nearest = torch.zeros_like(total)
    for level, candidates in enumerate(problem.sizes):
        for pair, sizes in enumerate(candidates):
            if sizes:
                expected = float(total[pair, level])
                distances = [abs(size - expected) for size in sizes]
                nearest[pair, level] = sizes[distances.index(min(distances))]
    return nearest


def predict(model: Model, problem: Problem) -> np.ndarray:
    """Return F1 [pairs, 2] at the levels rg_e and rg_er."""
    with torch.no_grad():
        matched, total = model(problem)
    return (2 * matched / total.clamp_min(1e-6)).numpy()


def predict_in_folds(
    problem: Problem, groups: Sequence[str], folds: int, ridge: float
) -> np.ndarray:
    """Return F1 [pairs, 2], each pair predicted by a model that was fitted without its fold.

    A checksum of the group chooses the fold: pairs of one study stay together.
    """
    fold = torch.tensor([zlib.crc32(group.encode()) % folds for group in groups])
    found = np.zeros((len(groups), len(LEVELS)))
    for k in range(folds):
        found[fold == k] = predict(fit(problem, fold != k, ridge), problem)[fold == k]
    return found


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
    parser.add_argument(
        "--group", default="study", help="column whose values stay together in a fold"
    )
    parser.add_argument("--folds", type=int, default=5, help="default: %(default)s")
    parser.add_argument(
        "--keep-out", type=int, default=0, metavar="N", help="leave out groups with id %% N == 0"
    )
    parser.add_argument("--ridge", type=float, default=RIDGE, help="default: %(default)s")
    parser.add_argument(
        "--least", type=int, default=3, help="a word or context must occur in this many texts"
    )
    parser.add_argument("--out", type=Path, help="fit on all pairs and write the table here")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rows = list(csv.DictReader(options.pairs.open(encoding="utf-8")))
    if options.keep_out:
        rows = [row for row in rows if int(row[options.group]) % options.keep_out]
    problem = make_problem(rows, options.least)
    if options.out:
        everything = torch.ones(len(rows), dtype=torch.bool)
        table = table_of(fit(problem, everything, options.ridge), problem.names)
        text = yaml.safe_dump(table, sort_keys=False, width=120)
        options.out.write_text(HEADER + text, encoding="utf-8")
        return
    groups = [row[options.group] for row in rows]
    found = predict_in_folds(problem, groups, options.folds, options.ridge)
    print(f"{len(rows)} pairs, {options.folds} folds:", figures(found, problem.truth.numpy()))


if __name__ == "__main__":
    main()
