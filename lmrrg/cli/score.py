"""``lmrrg score``: compare generated reports with reference reports, both given as files."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from lmrrg.cli.renamed import add_renamed_option, backend_name
from lmrrg.config.evaluation import EvaluationConfig
from lmrrg.config.reward import RewardConfig
from lmrrg.files import check_outputs
from lmrrg.metrics.embedded.backend import EmbeddedBackend
from lmrrg.metrics.interfaces import Backend
from lmrrg.metrics.report_files import pair_reports, read_reports
from lmrrg.metrics.score_table import format_scores
from lmrrg.metrics.suite import GROUPS, score_reports, select_metrics
from lmrrg.metrics.text.conventions import R2GEN_SETTINGS, Convention, R2Gen, Raw

_DEFAULTS = EvaluationConfig()

EPILOG = """\
input files
  Both files hold one report per study, in one of three forms, which the file name decides:
    .csv             a table with the columns study_id and report; a report with commas in it must
                     be quoted
    .jsonl, .ndjson  one JSON object per line, with the keys study_id and report
    .txt, no suffix  plain text, one report per line, in the same order in both files
  Reports are matched by study_id where both files have ids, so their order does not matter. A study
  that is in only one of the files, an id that occurs twice, a missing report (NaN) or an empty
  reference stops the command with the names of the rows. An empty generated report is allowed and
  gets the worst scores.

what the numbers mean
  radcliq_v1, radcliq_v0   how many errors radiologists would find; LOWER is better. Identical
                           reports: -1.44 and -0.24; nothing in common: 2.45 and 5.52.
                           inverse_mean_radcliq_v1 is 1/mean, as ReXrank prints it.
  rg_e, rg_er, rg_bar_er   overlap of findings, anatomy and their relations, 0 to 1; higher is
                           better
  bertscore, semb, bleu2   the other parts of RadCliQ
  micro/macro/example_f1   agreement on 14 findings (or the 5 usual ones), 0 to 1;
                           "uncertain_positive" counts a finding that is reported as possible as
                           present, "uncertain_negative" as absent
  bleu_1..4, rouge_l, ...  overlap of words, 0 to 1 (cider 0 to 10). A system that writes one normal
                           report for everyone can win these. Look at RadCliQ, the F1 and "distinct
                           reports" first.
  The brackets are 95% intervals: how far the number would move with other studies of the same kind.

output files
  --out         JSON: "stamp" (every choice), "metrics" with their intervals, "classes" and "texts"
  --per-report  JSONL, a record per report: study_id, convention, backend, backend_version (as in
                the stamp), and the scores of this report

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
        "--references", type=Path, required=True, metavar="FILE", help="what the radiologists wrote"
    )
    parser.add_argument(
        "--hypotheses", type=Path, required=True, metavar="FILE", help="what the system wrote"
    )
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
        "--per-report", type=Path, metavar="OUT.jsonl", help="write the scores of every report here"
    )
    parser.add_argument(
        "--out", type=Path, metavar="OUT.json", help="write all results and every choice here"
    )
    parser.add_argument(
        "--convention",
        choices=("raw", "r2gen"),
        default="raw",
        help="text handling of BLEU, METEOR, ROUGE-L and CIDEr: untouched, or as in R2Gen-style "
        "tables (%(default)s)",
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


def run(args: argparse.Namespace) -> int:
    """Score, print the table, and write the files that were asked for."""
    metrics = None if args.metrics is None else _names(args.metrics)
    # A misspelt name, or a path that cannot be written, ends the command before models are loaded.
    select_metrics(metrics)
    inputs = (args.references, args.hypotheses, args.training_reports)
    outputs = (args.out, args.per_report)
    check_outputs(filter(None, outputs), filter(None, inputs))
    pairs = pair_reports(read_reports(args.references), read_reports(args.hypotheses))
    backend = _backend(args)
    scores = score_reports(
        pairs.references,
        pairs.hypotheses,
        study_ids=pairs.study_ids,
        convention=_convention(args),
        backend=backend,
        metrics=metrics,
        bootstrap=args.bootstrap,
        seed=args.seed,
    )
    print(format_scores(scores))
    if args.out is not None:
        scores.save(args.out)
    if args.per_report is not None:
        scores.save_per_report(args.per_report)
    return 0


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


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


def _backend(args: argparse.Namespace) -> Backend:
    """Return the backend that computes RadCliQ and labels the findings."""
    if args.backend == "embedded":
        return EmbeddedBackend()
    # Imported here because it loads torch, which the rules do without.
    from lmrrg.metrics.published.backend import PublishedBackend

    return PublishedBackend(args.published_dir, cache=RewardConfig().published_cache)


def _convention(args: argparse.Namespace) -> Convention:
    if args.convention == "raw":
        return Raw()
    threshold, reference_tokens = R2GEN_SETTINGS[args.dataset]
    if args.training_reports is None:
        return R2Gen(None, None, reference_tokens, args.dataset)
    reports = read_reports(args.training_reports).reports
    return R2Gen.from_training_reports(
        reports, threshold=threshold, reference_tokens=reference_tokens, dataset=args.dataset
    )
