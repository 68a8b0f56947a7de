"""Fit the report graph's salience table on report pairs with known RadGraph F1.

The pairs are a CSV file with the columns study, reference, hypothesis, rg_e and rg_er:

    python benchmarks/embedded_fit.py --pairs PAIRS.csv --group study --folds 5            # cross-validated figures
    python benchmarks/embedded_fit.py --pairs PAIRS.csv --group study --out salience.yaml

F1 = 2·TP/S of two integers, so a published F1 also tells TP and S once S is known roughly; the fit uses all three.
"""

from __future__ import annotations

import argparse
import csv
import zlib
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import yaml
from scipy.stats import kendalltau

from lmrrg.metrics.embedded.graph import entities_of
from lmrrg.metrics.embedded.relations import relations_of
from lmrrg.metrics.embedded.salience import features
from lmrrg.metrics.embedded.sentences import read_sentence, sentences_of

LEVELS = ("rg_e", "rg_er")
PENALTY = {"k": 0.05, "t": 0.2, "p": 0.3, "n": 0.3, "r": 0.1, "w": 1.0, "b": 2.0, "a": 2.0}
"""Ridge penalty by the first letter of a feature: a class may move freely, a single word only for good reason."""
RIDGE, COUNT_WEIGHT, LARGEST_SIZE = 0.00012, 0.1, 250
ROBUST = 0.03
"""Errors of F1 beyond this count by their size, not by its square: the tagger's slips are few and large."""
HEADER = "# Fitted by benchmarks/embedded_fit.py; `feature_names` in salience.py explains the names.\n"


@dataclass
class Problem:
    """Everything about the pairs as tensors."""

    design: torch.Tensor  # sparse [mentions, features]
    entity_of_mention: torch.Tensor  # [mentions]
    text_of_entity: torch.Tensor  # [entities]
    pair_of_match: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor
    same: torch.Tensor  # whether both sides have the word in one and the same sentence
    texts: int
    hypothesis: torch.Tensor
    reference: torch.Tensor
    identical: torch.Tensor
    names: list[str]
    truth: torch.Tensor  # [pairs, 2]
    sizes: list[list[list[int]]]  # candidates of S per level and pair


def mentions_of(text: str) -> list[tuple[tuple[str, str], list[str], str]]:
    """(entity, its features, its sentence) of every entity word."""
    found = []
    for sentence in sentences_of(text):
        read = read_sentence(sentence)
        linked = frozenset(head for head, _, _ in relations_of(read))
        entities = entities_of(read)
        found += [(entities[i], names, sentence) for i, names in features(read, linked)]
    return found


def make_problem(rows: list[dict[str, str]], least: int) -> Problem:
    texts = sorted({row[side] for row in rows for side in ("reference", "hypothesis")})
    number = {text: i for i, text in enumerate(texts)}
    mentions = [mentions_of(text) for text in texts]
    count = Counter(
        name for found in mentions for name in {n for _, names, _ in found for n in names}
    )
    names = [name for name, c in count.items() if c >= least or name[0] in "ktr"]
    column = {name: i for i, name in enumerate(names)}
    entity_row: dict[tuple[int, tuple[str, str]], int] = {}
    sentences: dict[tuple[int, tuple[str, str]], set[str]] = {}
    where, owner = [], []
    for text, found in enumerate(mentions):
        for entity, used, sentence in found:
            key = (text, entity)
            entity_row.setdefault(key, len(entity_row))
            sentences.setdefault(key, set()).add(sentence)
            where += [(len(owner), column[name]) for name in used if name in column]
            owner.append(entity_row[key])
    matches = []
    for pair, row in enumerate(rows):
        h, r = number[row["hypothesis"]], number[row["reference"]]
        for entity in {e for e, _, _ in mentions[h]} & {e for e, _, _ in mentions[r]}:
            a, b = (h, entity), (r, entity)
            matches.append((pair, entity_row[a], entity_row[b], bool(sentences[a] & sentences[b])))
    pair_of, left, right, same = (torch.tensor(column_) for column_ in zip(*matches, strict=True))
    truth = torch.tensor([[float(row[level]) for level in LEVELS] for row in rows])
    return Problem(
        torch.sparse_coo_tensor(
            torch.tensor(where).T, torch.ones(len(where)), (len(owner), len(names))
        ),
        torch.tensor(owner),
        torch.tensor([text for text, _ in entity_row]),
        pair_of,
        left,
        right,
        same,
        len(texts),
        torch.tensor([number[row["hypothesis"]] for row in rows]),
        torch.tensor([number[row["reference"]] for row in rows]),
        torch.tensor([row["hypothesis"].split() == row["reference"].split() for row in rows]),
        names,
        truth,
        [[possible_sizes(float(row[level])) for row in rows] for level in LEVELS],
    )


def possible_sizes(f1: float) -> list[int]:
    """The values that |a| + |b| may have when 2·TP / (|a| + |b|) = f1; none where f1 is 0."""
    share = Fraction(f1).limit_denominator(LARGEST_SIZE)
    if not share:
        return []
    step = share.denominator * (1 if share.numerator % 2 == 0 else 2)
    return list(range(step, LARGEST_SIZE, step))


class Model(torch.nn.Module):
    """Both logistic models and the two correlations."""

    def __init__(self, features_: int):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.zeros(features_, 2))
        self.bias = torch.nn.Parameter(torch.tensor([2.0, 0.0]))
        self.shared = torch.nn.Parameter(torch.zeros(2))

    def forward(self, problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
        """(TP [pairs, 2], S [pairs, 2]) expected at the levels rg_e and rg_er."""
        marked, related = torch.sigmoid(torch.sparse.mm(problem.design, self.weights) + self.bias).T
        entities = len(problem.text_of_entity)
        into = torch.zeros(entities)
        missed = into.index_add(
            0, problem.entity_of_mention, torch.log1p(-marked.clamp(max=0.9999))
        )
        p = 1 - torch.exp(missed)
        weight = into.index_add(0, problem.entity_of_mention, marked)
        r = into.index_add(0, problem.entity_of_mention, marked * related) / weight
        g = torch.sigmoid(self.shared)
        share = torch.where(problem.same, g[0], g[1])
        share = torch.where(problem.identical[problem.pair_of_match], 1.0, share)
        both = self._agree(p, problem, share)
        flagged = self._agree(r, problem, share) + self._agree(1 - r, problem, share)
        zeros = torch.zeros(len(problem.hypothesis))
        matched = [zeros.index_add(0, problem.pair_of_match, m) for m in (both, both * flagged)]
        size = torch.zeros(problem.texts).index_add(0, problem.text_of_entity, p)
        total = size[problem.hypothesis] + size[problem.reference]
        return torch.stack(matched, 1), torch.stack([total, total], 1)

    @staticmethod
    def _agree(chance: torch.Tensor, problem: Problem, share: torch.Tensor) -> torch.Tensor:
        a, b = chance[problem.left], chance[problem.right]
        return share * torch.minimum(a, b) + (1 - share) * a * b


def fit(problem: Problem, use: torch.Tensor, ridge: float, steps: int = 200) -> Model:
    """Fit on the pairs that ``use`` [pairs] selects."""
    model = Model(len(problem.names))
    penalty = ridge * torch.tensor([PENALTY[name[0]] for name in problem.names])[:, None]
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        optimiser.zero_grad()
        matched, total = model(problem)
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
    return torch.nn.functional.huber_loss(
        errors, torch.zeros_like(errors), reduction="sum", delta=delta
    )


def nearest_sizes(problem: Problem, total: torch.Tensor) -> torch.Tensor:
    """For every pair and level the possible S that is closest to the expected one; 0 where F1 tells nothing."""
    out = torch.zeros_like(total)
    for level, candidates in enumerate(problem.sizes):
        for pair, sizes in enumerate(candidates):
            if sizes:
                out[pair, level] = min(
                    sizes, key=lambda size: abs(size - float(total[pair, level]))
                )
    return out


def predict(model: Model, problem: Problem) -> np.ndarray:
    """F1 [pairs, 2] at the levels rg_e and rg_er."""
    with torch.no_grad():
        matched, total = model(problem)
    return (2 * matched / total.clamp_min(1e-6)).numpy()


def figures(found: np.ndarray, truth: np.ndarray) -> str:
    """The figures by which the graph is judged."""
    pearson = np.corrcoef(found[:, 1], truth[:, 1])[0, 1]
    tau = kendalltau(found[:, 1], truth[:, 1]).statistic
    error = np.abs(found - truth).mean(0)
    return f"rg_er: Pearson {pearson:.4f}, Kendall tau_b {tau:.4f}; mean |error| rg_e {error[0]:.4f}, rg_er {error[1]:.4f}"


def table_of(model: Model, names: list[str]) -> dict[str, object]:
    """The fitted weights as the package stores them; what is nearly 0 is left out."""
    weights, bias = model.weights.detach().numpy(), model.bias.tolist()
    tables = []
    for column in range(2):
        kept = {
            name: round(float(w), 3)
            for name, w in zip(names, weights[:, column], strict=True)
            if abs(w) > 0.02
        }
        tables.append({"bias": round(bias[column], 3), **dict(sorted(kept.items()))})
    same, other = (round(x, 3) for x in torch.sigmoid(model.shared).tolist())
    return {
        "entity": tables[0],
        "relation": tables[1],
        "same_sentence": same,
        "other_sentence": other,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument(
        "--group", default="study", help="column whose values stay together in a fold"
    )
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument(
        "--keep-out", type=int, default=0, metavar="N", help="leave out groups with id %% N == 0"
    )
    parser.add_argument("--ridge", type=float, default=RIDGE)
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
        table = table_of(
            fit(problem, torch.ones(len(rows), dtype=torch.bool), options.ridge), problem.names
        )
        options.out.write_text(
            HEADER + yaml.safe_dump(table, sort_keys=False, width=120), encoding="utf-8"
        )
        return
    fold = torch.tensor([zlib.crc32(row[options.group].encode()) % options.folds for row in rows])
    found = np.zeros((len(rows), 2))
    for k in range(options.folds):
        found[fold == k] = predict(fit(problem, fold != k, options.ridge), problem)[fold == k]
    print(f"{len(rows)} pairs, {options.folds} folds:", figures(found, problem.truth.numpy()))


if __name__ == "__main__":
    main()
