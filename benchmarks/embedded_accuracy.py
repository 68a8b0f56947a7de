"""Compare the embedded backend with true RadGraph F1 and with silver labels.

    python benchmarks/embedded_accuracy.py --pairs PAIRS.csv --studies REPORTS.jsonl

PAIRS.csv has the columns study, system, reference, hypothesis, rg_e and rg_er; the fit that
predicts a held-out pair saw neither its study nor its texts (embedded_fit.py). REPORTS.jsonl has
one study a line with `uid`, `findings` and `chexbert_findings` (class -> 1, 0, -1). A file that is
not given is skipped with one sentence.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from embedded.folds import templates
from embedded.problem import make_problem
from embedded_fit import figures, predict_in_folds

from lmrrg.metrics.embedded.backend import EmbeddedBackend
from lmrrg.metrics.embedded.labeler import label_report
from lmrrg.studies import LABELS, POSITIVE

FOLDS = 10
KEEP_OUT = 3
"""Every third study was kept out of the rules and of the fit."""


def graph_figures(path: Path) -> None:
    """Print the graph's figures: held out, with templates known, and as shipped (in sample)."""
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    problem = make_problem(rows)
    truth = problem.truth.numpy()
    found = predict_in_folds(problem, rows, FOLDS)
    print(f"graph, {len(rows)} pairs, {FOLDS} folds:   {figures(found, truth)}")
    for system in sorted({row["system"] for row in rows}):
        is_its = np.array([row["system"] == system for row in rows])
        print(f"  {system:17s} {figures(found[is_its], truth[is_its])}")
    found = predict_in_folds(problem, rows, FOLDS, known=templates(rows))
    print(f"graph, the template known:   {figures(found, truth)}")
    parts = EmbeddedBackend().score(
        [row["hypothesis"] for row in rows], [row["reference"] for row in rows]
    )
    shipped = np.stack([parts.rg_e, parts.rg_er], 1)
    print(f"graph, {len(rows)} pairs, as shipped: {figures(shipped, truth)}")


def labeler_figures(studies: list[dict], name: str) -> None:
    """Print F1 of positives against the silver labels, per class and micro."""
    hits: Counter[str] = Counter()
    false: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    for study in studies:
        found = label_report(study["findings"])
        silver = study["chexbert_findings"]
        for label in LABELS:
            is_found = found.get(label) == POSITIVE
            is_true = silver.get(label) == POSITIVE
            hits[label] += is_found and is_true
            false[label] += is_found and not is_true
            missed[label] += is_true and not is_found
    micro = f1(hits.total(), false.total(), missed.total())
    print(f"labels, {len(studies)} reports {name}: micro-F1 of positives {micro:.4f}")
    for label in LABELS:
        score = f1(hits[label], false[label], missed[label])
        counts = f"hits {hits[label]:4d}  false {false[label]:3d}  missed {missed[label]:3d}"
        print(f"  {label:27s} F1 {score:.3f}  {counts}")


def f1(hits: int, false: int, missed: int) -> float:
    """Return F1 of counts; 0 without any."""
    return 2 * hits / max(1, 2 * hits + false + missed)


def main() -> None:
    """Print the figures of the labels and of the graph."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=Path, help="CSV of report pairs with true RadGraph F1")
    parser.add_argument("--studies", type=Path, help="JSONL of reports with silver labels")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.studies is None or not options.studies.is_file():
        print("labels: skipped, give --studies a JSONL file of reports")
    else:
        studies = [json.loads(line) for line in options.studies.open(encoding="utf-8")]
        labelled = [study for study in studies if study.get("chexbert_findings") is not None]
        labeler_figures([s for s in labelled if s["uid"] % KEEP_OUT == 0], "kept out")
        labeler_figures(labelled, "in all")
    if options.pairs is None or not options.pairs.is_file():
        print("graph: skipped, give --pairs a CSV file of report pairs with true RadGraph F1")
    else:
        graph_figures(options.pairs)


if __name__ == "__main__":
    main()
