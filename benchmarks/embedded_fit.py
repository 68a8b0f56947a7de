"""Fit the report graph's salience table on report pairs with known RadGraph F1.

The pairs are a CSV file with the columns study, reference, hypothesis, rg_e and rg_er. The first
command prints held-out figures, the second fits on all pairs and writes the table:

    python benchmarks/embedded_fit.py --pairs PAIRS.csv --folds 5
    python benchmarks/embedded_fit.py --pairs PAIRS.csv --out salience.yaml

A held-out pair is predicted by a fit that has seen neither its study nor any of its two texts, in
whatever pair. Everything that is fitted (which features are kept, weights, sharing constants) is
fitted without them.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import yaml
from embedded.folds import held_out_parts, unrelated
from embedded.problem import LEVELS, Problem, make_problem
from scipy.stats import kendalltau

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
RIDGE = 0.00012
STEPS = 200
LINKED = 2.0
"""Weight of a relation by the rules at the start, in the model of relations.

Two taggers that both link a word agree as well as two that both do not: without this start some
words would be fitted with the signs reversed, and learn nothing from each other.
"""
COUNT_WEIGHT = 0.1
"""Weight of the errors of TP and S in the loss, beside that of F1."""
ROBUST = 0.03
"""Errors of F1 beyond this count by their size, not by its square.

The tagger's slips are few and large.
"""
HEADER = (
    "# Fitted by benchmarks/embedded_fit.py; `feature_names` in salience.py explains the names.\n"
)


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
