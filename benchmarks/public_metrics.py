"""Compare our n-gram metrics with public packages on the same synthetic reports.

The packages are pycocoevalcap, rouge-score and sacrebleu.

    python benchmarks/public_metrics.py [--studies 16] [--samples 4]

Equal where the definition is the same; the other lines show how far a definition moves a number.
"""

from __future__ import annotations

import argparse

import numpy as np
import sacrebleu
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from rouge_score.rouge_scorer import RougeScorer
from speed.common.reports import write_reports

from lmrrg.metrics.text.bleu import bleu2
from lmrrg.metrics.text.ngram import BLEU_NAMES, nlg_scores


def main() -> None:
    """Print one line per comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=16, help="references (default %(default)s)")
    parser.add_argument(
        "--samples", type=int, default=4, help="reports per reference (default %(default)s)"
    )
    args = parser.parse_args()
    hypotheses, references = write_reports(args.studies, args.samples)
    _, ours = nlg_scores(hypotheses, references)
    gold = {row: [text] for row, text in enumerate(references)}
    found = {row: [text] for row, text in enumerate(hypotheses)}
    bleu, _ = Bleu(4).compute_score(gold, found, verbose=0)
    cider, _ = Cider().compute_score(gold, found)
    rouge, _ = Rouge().compute_score(gold, found)
    print(f"{len(hypotheses)} pairs, {len(references[0].split())} words in the first report")
    print(f"{'ours':30} {'':8} {'package':44} {'':8}")
    for name, theirs in zip(BLEU_NAMES, bleu, strict=True):
        _line(name, ours[name].value, "pycocoevalcap, corpus BLEU", theirs)
    _line("cider", ours["cider"].value, "pycocoevalcap", float(cider))
    _line("rouge_l", ours["rouge_l"].value, "pycocoevalcap (beta 1.2)", float(rouge))
    scorer = RougeScorer(["rougeL"])
    f1 = [
        scorer.score(r, h)["rougeL"].fmeasure for h, r in zip(hypotheses, references, strict=True)
    ]
    _line(
        "rouge_l",
        ours["rouge_l"].value,
        "rouge-score (F1, letters and digits only)",
        float(np.mean(f1)),
    )
    _line(
        "bleu_4",
        ours["bleu_4"].value,
        "sacrebleu corpus (13a tokens)",
        sacrebleu.corpus_bleu(hypotheses, [references]).score / 100,
    )
    sentences = [
        sacrebleu.sentence_bleu(h, [r]).score / 100
        for h, r in zip(hypotheses, references, strict=True)
    ]
    _line(
        "bleu_4",
        ours["bleu_4"].value,
        "sacrebleu, mean of sentences (exp smoothing)",
        float(np.mean(sentences)),
    )
    _line(
        "bleu2 (RadCliQ, mean)",
        float(bleu2(hypotheses, references).mean()),
        "pycocoevalcap, corpus BLEU-2",
        bleu[1],
    )
    _line("meteor", ours["meteor"].value, "(the Java scorer: see docs/metrics.md)", None)


def _line(name: str, ours: float, package: str, theirs: float | None) -> None:
    print(f"{name:30} {ours:8.4f} {package:44} " + ("" if theirs is None else f"{theirs:8.4f}"))


if __name__ == "__main__":
    main()
