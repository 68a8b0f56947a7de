"""``lmrrg compare``: test whether systems differ, from files with their reports."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from lmrrg.cli.score import (
    add_column_arguments,
    add_scoring_arguments,
    failed_checks,
    load_backend,
    own_columns,
    selected_metrics,
    text_convention,
    warn_of_case,
)
from lmrrg.files import atomic_writer, check_outputs
from lmrrg.metrics.bootstrap import Comparison
from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.formats.columns import OwnColumns
from lmrrg.metrics.report_files import ReportPairs, pair_reports, read_pairs, read_reports
from lmrrg.metrics.report_scores import ReportScores, compare_systems
from lmrrg.metrics.sanity import SanityFinding
from lmrrg.metrics.score_table import format_comparison
from lmrrg.metrics.suite import score_reports

EPILOG = """\
The files have the forms of `lmrrg score`. Every system is compared with the first one, on the same
studies. A difference is that system minus the first; its brackets are a 95% interval of a paired
bootstrap.
  p boot   two-sided p of the paired bootstrap
  p perm   two-sided p of a permutation test, which swaps the two systems' reports at random
With several metrics, some p fall below 0.05 by chance: decide on one metric before you look.

output file
  --out    JSON: "stamp" (every choice), "systems" (file, metrics with intervals, failed sanity
           checks) and "comparisons" (the two files, and for each metric difference, low, high,
           p_bootstrap, p_permutation)

example
  lmrrg compare --references truth.csv --hypotheses sft.csv --hypotheses ppo.csv --out compared.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``lmrrg compare``."""
    parser.add_argument(
        "--references",
        type=Path,
        metavar="FILE",
        help="what the radiologists wrote; without it, every file of --hypotheses has both sides",
    )
    parser.add_argument(
        "--hypotheses",
        type=Path,
        action="append",
        required=True,
        metavar="FILE",
        help="what a system wrote; give it once for each system, the baseline first",
    )
    parser.add_argument(
        "--out", type=Path, metavar="OUT.json", help="write all results and every choice here"
    )
    add_column_arguments(parser)
    add_scoring_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Score every system, print how each differs from the first, and write the results."""
    if len(args.hypotheses) < 2:
        raise MetricError("one_system", "give --hypotheses at least twice, the baseline first")
    metrics = selected_metrics(args)
    inputs = (args.references, *args.hypotheses, args.training_reports)
    check_outputs(filter(None, [args.out]), filter(None, inputs))
    own = own_columns(args)
    systems = [_read(path, args.references, own) for path in args.hypotheses]
    _check_same_references(systems)
    backend = load_backend(args)
    convention = text_convention(args)
    scores: list[ReportScores] = []
    findings: list[list[SanityFinding]] = []
    for path, pairs in zip(args.hypotheses, systems, strict=True):
        warn_of_case(pairs, convention)
        findings.append(failed_checks(pairs, f"{path}: "))
        scored = score_reports(
            pairs.references,
            pairs.hypotheses,
            study_ids=pairs.study_ids,
            convention=convention,
            backend=backend,
            metrics=metrics,
            bootstrap=args.bootstrap,
            seed=args.seed,
        )
        scores.append(scored)
    compared = [compare_systems(other, scores[0], seed=args.seed) for other in scores[1:]]
    _print_tables(args.hypotheses, compared)
    if args.out is not None:
        _save(args.out, _results(args.hypotheses, scores, findings, compared))
    return int(any(findings) and args.strict)


def _read(path: Path, references: Path | None, own: OwnColumns) -> ReportPairs:
    if references is None:
        return read_pairs(path, own)
    truth = read_reports(references, "references", own)
    pairs = pair_reports(truth, read_reports(path, "hypotheses", own))
    if truth.study_ids is not None:
        return pairs
    # References without ids are matched by position, so the ids of one system mean nothing here.
    lines = tuple(str(row) for row in range(1, len(pairs.references) + 1))
    return replace(pairs, study_ids=lines)


def _check_same_references(systems: list[ReportPairs]) -> None:
    """Refuse systems that were not scored on the same references in the same order."""
    first = systems[0]
    for pairs in systems[1:]:
        if (pairs.study_ids, pairs.references) != (first.study_ids, first.references):
            raise MetricError("not_comparable", "the files do not have the same references")


def _print_tables(paths: list[Path], compared: list[dict[str, Comparison]]) -> None:
    for path, comparison in zip(paths[1:], compared, strict=True):
        print(f"{path} minus {paths[0]}")
        print(format_comparison(comparison, "metric"))
        print()


def _results(
    paths: list[Path],
    scores: list[ReportScores],
    findings: list[list[SanityFinding]],
    compared: list[dict[str, Comparison]],
) -> dict[str, object]:
    systems: list[Mapping[str, object]] = []
    for path, scored, failed in zip(paths, scores, findings, strict=True):
        sanity = [asdict(finding) for finding in failed]
        summary = {key: scored.summary[key] for key in ("metrics", "texts")}
        systems.append({"hypotheses": str(path)} | summary | {"sanity": sanity})
    comparisons: list[Mapping[str, object]] = []
    for path, comparison in zip(paths[1:], compared, strict=True):
        metrics = {name: asdict(result) for name, result in comparison.items()}
        comparisons.append({"a": str(path), "b": str(paths[0]), "metrics": metrics})
    return {"stamp": asdict(scores[0].stamp), "systems": systems, "comparisons": comparisons}


def _save(path: Path, content: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_writer(path) as out:
        json.dump(content, out, indent=2, allow_nan=False)
        out.write("\n")
