"""``lmrrg score``: compare generated reports with reference reports, both given as files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from lmrrg.cli.renamed import add_renamed_option, backend_name
from lmrrg.config.evaluation import EvaluationConfig
from lmrrg.config.reward import RewardConfig
from lmrrg.files import check_outputs
from lmrrg.metrics.embedded.backend import EmbeddedBackend
from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.formats.columns import OwnColumns
from lmrrg.metrics.interfaces import Backend
from lmrrg.metrics.report_files import (
    ReportPairs,
    pair_reports,
    read_pairs,
    read_reports,
    read_training_reports,
)
from lmrrg.metrics.sanity import SanityFinding, check_reports
from lmrrg.metrics.score_table import format_scores
from lmrrg.metrics.suite import GROUPS, score_reports, select_metrics
from lmrrg.metrics.text.conventions import R2GEN_SETTINGS, Coco, Convention, R2Gen, Raw

_DEFAULTS = EvaluationConfig()

EPILOG = """\
input files
  A file holds one report per study, in one of these forms, which the file name decides:
    .csv, .tsv        a table with the columns study_id (or id) and report; commas, semicolons or
                      tabs separate the cells; a report that contains the separator must be quoted
    .jsonl, .ndjson   one JSON object per line, with the keys study_id (or id) and report
    .json             a list of such objects, an object of study id and report, an object of lists
                      ("references", "hypotheses"), or ReXrank's prediction.json
    .txt, .tok, none  plain text, one report per line, in the same order in both files
  Text is UTF-8, or UTF-16 with its mark. Where a file has several texts, the reference is the first
  of reference, ground_truth, report, or findings with impression; the generated report the first of
  hypothesis, model_prediction, prediction, report. A file with both sides, such as
  evaluation/ppo.jsonl of a run, can be given alone, as --reports. Other names: --text-column and
  --id-column.
  Reports are matched by study_id where both files have ids, so their order does not matter. A study
  that is in only one of the files, an id that occurs twice, a missing report (NaN, null, None, n/a,
  \\N, - or .) or an empty reference stops the command with the names of the rows. An empty
  generated report is allowed and gets the worst scores.
  --training-reports may have an id more than once; of R2Gen's annotation.json the list "train" is
  read there, "test" elsewhere.

what the numbers mean
  radcliq_v1, radcliq_v0   how many errors radiologists would find; LOWER is better. Identical
                           reports: -1.44 and -0.24; nothing in common: 2.45 and 5.52.
                           inverse_mean_radcliq_v1 is 1/mean, as ReXrank prints it.
  rg_e, rg_er, rg_bar_er   overlap of findings, anatomy and their relations, 0 to 1; higher is
                           better
  bertscore, semb, bleu2   the other parts of RadCliQ
  micro/macro/example_f1   agreement on 14 findings (or the 5 usual ones), 0 to 1;
                           "uncertain_positive" counts a finding that is reported as possible as
                           present, "uncertain_negative" as absent; "uncertain_class" counts
                           possible findings apart from present ones. weighted_f1: each finding
                           counts as often as the references have it
  coherence                share of reports that do not contradict or repeat themselves, 0 to 1
  bleu_1..4, rouge_l, ...  overlap of words, 0 to 1 (cider 0 to 10). A system that writes one normal
                           report for everyone can win these. Look at RadCliQ, the F1 and "distinct
                           reports" first.
  The brackets are 95% intervals: how far the number would move with other studies of the same kind.

output files
  --out         JSON: "stamp" (every choice), "metrics" with their intervals, "classes", "texts" and
                "sanity" (the failed checks, which stderr shows, too; --strict makes them exit 1)
  --per-report  JSONL, a record per report: study_id, convention, backend, backend_version (as in
                the stamp), and the scores of this report

languages
  RadCliQ and the findings are read from English reports of the chest. References with too few known
  words get neither (null), and the sanity check "unreadable" counts them.

backends
  embedded    rules, nothing to download; its numbers are called radcliq-embedded and are not
              comparable with RadCliQ
  published   the published models (RadGraph, CheXbert, distilroberta), from --published-dir or the
              Hugging Face cache; `lmrrg doctor` names what to fetch. CheXbert then labels the
              findings, too.

example
  lmrrg score --references truth.csv --hypotheses mine.csv \\
      --per-report per_report.jsonl --out results.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``lmrrg score``."""
    parser.add_argument(
        "--references", type=Path, metavar="FILE", help="what the radiologists wrote"
    )
    parser.add_argument("--hypotheses", type=Path, metavar="FILE", help="what the system wrote")
    parser.add_argument(
        "--reports", type=Path, metavar="FILE", help="one file with both sides, instead of the two"
    )
    parser.add_argument(
        "--per-report", type=Path, metavar="OUT.jsonl", help="write the scores of every report here"
    )
    parser.add_argument(
        "--out", type=Path, metavar="OUT.json", help="write all results and every choice here"
    )
    add_column_arguments(parser)
    add_scoring_arguments(parser)


def add_column_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the names of columns, for the commands that read files of reports."""
    parser.add_argument(
        "--text-column",
        nargs="+",
        default=[],
        metavar="NAME",
        help="column of the reports, where it has another name; two: that of the references, and "
        "that of the hypotheses",
    )
    parser.add_argument("--id-column", metavar="NAME", help="column of the study ids, likewise")


def own_columns(args: argparse.Namespace) -> OwnColumns:
    """Return the names of columns that the command line gives.

    Raises:
        MetricError: ``bad_arguments``, more than two names of texts.
    """
    if len(args.text_column) > 2:
        raise MetricError("bad_arguments", "--text-column takes one name, or one for each side")
    return OwnColumns.of(args.text_column, args.id_column)


def add_scoring_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``lmrrg score`` and ``lmrrg compare`` let people choose about the metrics."""
    parser.add_argument(
        "--backend",
        type=backend_name,
        choices=("embedded", "published"),
        default="embedded",
        help="what computes RadCliQ and labels the findings (%(default)s)",
    )
    parser.add_argument(
        "--published-dir",
        type=Path,
        metavar="DIR",
        help="folder with the models of the published backend",
    )
    add_renamed_option(parser, "--weights", "--published-dir")
    parser.add_argument(
        "--metrics",
        metavar="NAMES",
        help=f"comma-separated groups ({', '.join(GROUPS)}) or single metrics; default: all",
    )
    parser.add_argument(
        "--convention",
        choices=("raw", "r2gen", "coco"),
        default="raw",
        help="text handling of BLEU, METEOR, ROUGE-L and CIDEr: untouched, as in R2Gen-style "
        "tables, or as in COCO (lower case, no punctuation) (%(default)s)",
    )
    parser.add_argument(
        "--training-reports",
        type=Path,
        metavar="FILE",
        help="r2gen: the training reports, whose words are the vocabulary; without it no word "
        "becomes <unk>",
    )
    parser.add_argument(
        "--dataset",
        choices=tuple(R2GEN_SETTINGS),
        default="iu-xray",
        help="r2gen: whose published cut and vocabulary threshold to use (%(default)s)",
    )
    parser.add_argument(
        "--bootstrap",
        type=_number_from(1),
        default=_DEFAULTS.bootstrap,
        metavar="N",
        help="resamples of the intervals (%(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=_number_from(0),
        default=0,
        metavar="N",
        help="seed of the resampling (%(default)s)",
    )
    parser.add_argument(
        "--strict", action="store_true", help="exit with code 1 where a sanity check fails"
    )


def run(args: argparse.Namespace) -> int:
    """Score, print the table, and write the files that were asked for."""
    metrics = selected_metrics(args)
    inputs = (args.references, args.hypotheses, args.reports, args.training_reports)
    outputs = (args.out, args.per_report)
    check_outputs(filter(None, outputs), filter(None, inputs))
    pairs = _pairs(args)
    convention = text_convention(args)
    warn_of_case(pairs, convention)
    scores = score_reports(
        pairs.references,
        pairs.hypotheses,
        study_ids=pairs.study_ids,
        convention=convention,
        backend=load_backend(args),
        metrics=metrics,
        bootstrap=args.bootstrap,
        seed=args.seed,
    )
    print(format_scores(scores))
    findings = failed_checks(pairs)
    if args.out is not None:
        scores.save(args.out, findings)
    if args.per_report is not None:
        scores.save_per_report(args.per_report)
    return int(bool(findings) and args.strict)


def selected_metrics(args: argparse.Namespace) -> list[str] | None:
    """Return the names after ``--metrics``; None without it.

    A misspelt name ends the command before files are read and models are loaded.
    """
    if args.metrics is None:
        return None
    names = [name.strip() for name in args.metrics.split(",") if name.strip()]
    select_metrics(names)
    return names


def warn_of_case(pairs: ReportPairs, convention: Convention) -> None:
    """Warn where one side has no capital letter, which no word of the other side would match."""
    lower = [not any(map(_has_capital, side)) for side in (pairs.references, pairs.hypotheses)]
    if isinstance(convention, Raw) and lower[0] != lower[1]:
        side = "references are" if lower[0] else "reports are"
        print(
            f"WARNING: the {side} all in lower case and the other side is not, so that BLEU, "
            "ROUGE-L and CIDEr miss equal words; --convention coco or r2gen compares lower case",
            file=sys.stderr,
        )


def failed_checks(pairs: ReportPairs, name: str = "") -> list[SanityFinding]:
    """Return the sanity checks that the generated reports fail, after printing them on stderr."""
    findings = check_reports(pairs.hypotheses, pairs.references)
    for finding in findings:
        print(f"SANITY CHECK FAILED: {name}{finding.code}: {finding.message}", file=sys.stderr)
    return findings


def _has_capital(text: str) -> bool:
    return text != text.lower()


def _pairs(args: argparse.Namespace) -> ReportPairs:
    """Read the pairs from two files, or from the only one that is given."""
    given = [path for path in (args.reports, args.references, args.hypotheses) if path is not None]
    if len(given) == 1:
        return read_pairs(given[0], own_columns(args))
    if args.reports is not None or not given:
        raise MetricError("bad_arguments", "give --references and --hypotheses, or --reports alone")
    own = own_columns(args)
    references = read_reports(args.references, "references", own)
    return pair_reports(references, read_reports(args.hypotheses, "hypotheses", own))


def _number_from(least: int) -> Callable[[str], int]:
    """Return an argparse type: a whole number of ``least`` or more."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number of {least} or more")
        return value

    return number


def load_backend(args: argparse.Namespace) -> Backend:
    """Return the backend that computes RadCliQ and labels the findings."""
    if args.backend == "embedded":
        return EmbeddedBackend()
    # Imported here because it loads torch, which the rules do without.
    from lmrrg.metrics.published.backend import PublishedBackend

    return PublishedBackend(args.published_dir, cache=RewardConfig().published_cache)


def text_convention(args: argparse.Namespace) -> Convention:
    """Return how texts are prepared for the n-gram metrics."""
    if args.convention == "raw":
        return Raw()
    if args.convention == "coco":
        return Coco()
    threshold, reference_tokens = R2GEN_SETTINGS[args.dataset]
    if args.training_reports is None:
        return R2Gen(None, None, reference_tokens, args.dataset)
    reports = read_training_reports(args.training_reports, own_columns(args))
    return R2Gen.from_training_reports(
        reports, threshold=threshold, reference_tokens=reference_tokens, dataset=args.dataset
    )
