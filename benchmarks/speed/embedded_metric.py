"""What the embedded backend is worth: its graph against true RadGraph F1, its labels against silver labels, its speed.

    python benchmarks/speed/embedded_metric.py --pairs PAIRS.csv --studies REPORTS.jsonl

PAIRS.csv has the columns study, reference, hypothesis, rg_e, rg_er. REPORTS.jsonl has one study a line with `findings`,
`impression` and `chexbert_findings` (class -> 1, 0, -1). A file that is not there is skipped with one sentence.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from embedded_fit import RIDGE, figures, fit, make_problem, predict

from lmrrg.metrics.embedded.backend import EmbeddedBackend
from lmrrg.metrics.embedded.labeler import label_report
from lmrrg.studies import LABELS, POSITIVE

LEAST, FOLDS, KEEP_OUT = 3, 10, 3


def graph_figures(path: Path) -> None:
    """Print the graph's figures: a third kept out, cross-validated, and as shipped (fitted on these pairs)."""
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    problem = make_problem(rows, LEAST)
    truth = problem.truth.numpy()
    kept_out = np.array([int(row["study"]) % KEEP_OUT == 0 for row in rows])
    found = predict(fit(problem, torch.tensor(~kept_out), RIDGE), problem)
    print(f"graph, {kept_out.sum()} pairs kept out:    {figures(found[kept_out], truth[kept_out])}")
    fold = torch.tensor([zlib.crc32(row["study"].encode()) % FOLDS for row in rows])
    for k in range(FOLDS):
        found[fold == k] = predict(fit(problem, fold != k, RIDGE), problem)[fold == k]
    print(f"graph, {len(rows)} pairs, {FOLDS} folds:   {figures(found, truth)}")
    parts = EmbeddedBackend().score(
        [row["hypothesis"] for row in rows], [row["reference"] for row in rows]
    )
    print(
        f"graph, {len(rows)} pairs, as shipped: {figures(np.stack([parts.rg_e, parts.rg_er], 1), truth)}"
    )


def labeler_figures(studies: list[dict], name: str) -> None:
    """Print F1 of positives against the silver labels, per class and micro."""
    hits: Counter[str] = Counter()
    false: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    for study in studies:
        found, silver = label_report(study["findings"]), study["chexbert_findings"]
        for label in LABELS:
            here, there = found.get(label) == POSITIVE, silver.get(label) == POSITIVE
            hits[label] += here and there
            false[label] += here and not there
            missed[label] += there and not here
    micro = f1(hits.total(), false.total(), missed.total())
    print(f"labels, {len(studies)} reports {name}: micro-F1 of positives {micro:.4f}")
    for label in LABELS:
        score = f1(hits[label], false[label], missed[label])
        print(
            f"  {label:27s} F1 {score:.3f}  hits {hits[label]:4d}  false {false[label]:3d}  missed {missed[label]:3d}"
        )


def f1(hits: int, false: int, missed: int) -> float:
    """F1 of counts; 0 without any."""
    return 2 * hits / max(1, 2 * hits + false + missed)


def speed(studies: list[dict]) -> None:
    """Print pairs/s of CPU time: distinct texts never seen before, and the same reports with a reference each that is
    remembered, like most of their sentences: PPO's second epoch."""
    texts = list(dict.fromkeys(f"{s['findings']} {s['impression']}" for s in studies))
    random.Random(0).shuffle(texts)
    half = len(texts) // 2
    hypotheses, references = texts[:half], texts[half : 2 * half]
    backend = EmbeddedBackend()
    backend.score(["lungs clear"], ["clear lungs"])  # reads the lexicons
    for name in ("never seen before", "remembered references"):
        start = time.process_time()
        backend.score(hypotheses, references)
        print(
            f"speed, {half} pairs, {name}: {half / (time.process_time() - start):.0f} pairs/s on one core"
        )
        hypotheses = hypotheses[1:] + hypotheses[:1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=Path, help="CSV of report pairs with true RadGraph F1")
    parser.add_argument("--studies", type=Path, help="JSONL of reports with silver labels")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.studies is None or not options.studies.is_file():
        print("labels and speed: skipped, give --studies a JSONL file of reports")
    else:
        studies = [json.loads(line) for line in options.studies.open(encoding="utf-8")]
        speed(studies)  # first, while nothing is cached
        labelled = [study for study in studies if study.get("chexbert_findings") is not None]
        labeler_figures([s for s in labelled if s["uid"] % KEEP_OUT == 0], "kept out")
        labeler_figures(labelled, "in all")
    if options.pairs is None or not options.pairs.is_file():
        print("graph: skipped, give --pairs a CSV file of report pairs with true RadGraph F1")
    else:
        graph_figures(options.pairs)


if __name__ == "__main__":
    main()
