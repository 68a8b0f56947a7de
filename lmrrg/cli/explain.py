"""`lmrrg explain`: the matched, missed and invented findings of every report, in colour."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from lmrrg import RESEARCH_USE_ONLY
from lmrrg.cli.score import add_column_arguments, own_columns
from lmrrg.files import atomic_writer, check_outputs
from lmrrg.metrics.backends import score_parts
from lmrrg.metrics.embedded.backend import EmbeddedBackend
from lmrrg.metrics.embedded.explanation import Explanation, MarkedSentence, Verdict, explain
from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.radcliq import radcliq_v1
from lmrrg.metrics.report_files import ReportPairs, pair_reports, read_reports

EPILOG = """\
input files are those of `lmrrg score`. Colours: green, both assert the finding; yellow, with
another side, place, severity, course or certainty; red, missed (reference) or invented (in
the report). Findings are read by the rules of the embedded backend, for English reports only.

example
  lmrrg explain --references truth.csv --hypotheses mine.csv --worst 20 --out explained.html
"""

_COLOURS: dict[Verdict, str] = {
    "matched": "32",
    "different": "33",
    "missed": "31",
    "invented": "31",
}
"""ANSI codes of the terminal: 31 red, 32 green, 33 yellow."""


@dataclass(frozen=True)
class ExplainedReport:
    """One study on the page or the terminal."""

    study_id: str
    radcliq: float
    explanation: Explanation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        "--references", type=Path, required=True, metavar="FILE", help="what the radiologists wrote"
    )
    parser.add_argument(
        "--hypotheses", type=Path, required=True, metavar="FILE", help="what the system wrote"
    )
    add_column_arguments(parser)
    parser.add_argument(
        "--study", action="append", default=[], metavar="ID", help="only this study; repeatable"
    )
    parser.add_argument(
        "--worst", type=int, metavar="N", help="only the N reports with the worst score"
    )
    parser.add_argument(
        "--out", type=Path, metavar="OUT.html", help="write a page instead of the terminal"
    )


def run(args: argparse.Namespace) -> int:
    """Explain the chosen reports, on the terminal or as a page."""
    inputs = [args.references, args.hypotheses]
    check_outputs([args.out] if args.out else [], inputs)
    own = own_columns(args)
    references = read_reports(args.references, "references", own)
    pairs = pair_reports(references, read_reports(args.hypotheses, "hypotheses", own))
    reports = choose(explain_pairs(pairs), args.study, args.worst)
    if args.out:
        write_page(args.out, reports)
        print(f"{len(reports)} reports explained in {args.out}")
    else:
        for line in terminal_lines(reports, in_colour=sys.stdout.isatty()):
            print(line)
    return 0


def explain_pairs(pairs: ReportPairs) -> list[ExplainedReport]:
    """Score and explain every pair of reports."""
    parts = score_parts(EmbeddedBackend(), pairs.hypotheses, pairs.references)
    scores = radcliq_v1(parts.radgraph, parts.bertscore, parts.semb)
    rows = zip(pairs.study_ids, scores, pairs.hypotheses, pairs.references, strict=True)
    return [
        ExplainedReport(study, float(score), explain(report, reference))
        for study, score, report, reference in rows
    ]


def choose(
    reports: list[ExplainedReport], studies: list[str], worst: int | None
) -> list[ExplainedReport]:
    """Return the reports of the named studies, and of these the ones with the worst score.

    Raises:
        MetricError: ``unmatched_id``, a study is in neither file.
    """
    unknown = set(studies) - {report.study_id for report in reports}
    if unknown:
        raise MetricError("unmatched_id", f"no report of study {', '.join(sorted(unknown))}")
    if studies:
        reports = [report for report in reports if report.study_id in studies]
    if worst is not None:
        reports = sorted(reports, key=lambda report: -report.radcliq)[:worst]
    return reports


def terminal_lines(reports: list[ExplainedReport], *, in_colour: bool) -> Iterator[str]:
    """Yield the lines that explain the reports."""
    for report in reports:
        yield f"study {report.study_id}   RadCliQ-embedded v1 {report.radcliq:.3f}"
        yield f"  reference  {_sentences(report.explanation.reference, in_colour)}"
        yield f"  report     {_sentences(report.explanation.report, in_colour)}"
        for claim in report.explanation.claims:
            said = claim.report or claim.reference
            if claim.verdict == "different":
                said = f"{claim.report} (reference: {claim.reference})"
            yield f"  {_paint(f'{claim.verdict:10}', claim.verdict, in_colour)} {said}"
        yield ""
    yield RESEARCH_USE_ONLY


def _sentences(sentences: tuple[MarkedSentence, ...], in_colour: bool) -> str:
    return " ".join(_paint(f"{each.text}.", each.verdict, in_colour) for each in sentences)


def _paint(text: str, verdict: Verdict, in_colour: bool) -> str:
    colour = _COLOURS.get(verdict)
    return f"\033[{colour}m{text}\033[0m" if in_colour and colour else text


def write_page(path: Path, reports: list[ExplainedReport]) -> None:
    """Write one HTML page that loads nothing from elsewhere."""
    environment = Environment(
        loader=PackageLoader("lmrrg.cli", "templates"), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("explain.html").render(
        reports=reports, notice=RESEARCH_USE_ONLY
    )
    with atomic_writer(path) as out:
        out.write(page)
