"""What happens to a text before n-grams are counted: untouched, or exactly as R2Gen and its successors do it.

Published BLEU, METEOR, ROUGE-L and CIDEr of this field are only comparable under R2Gen's convention: its cleaning of
the text, its vocabulary on the *reference* side (rare words become ``<unk>``), and its cut of the references. Two
details are easily missed: the cut counts the start token, so "60 tokens" leave 59 words; and the punctuation pattern
has no hyphen in it (what looks like one is a range of characters), so hyphens stay.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from lmrrg.config.evaluation import EvaluationConfig

Dataset = Literal["iu-xray", "mimic-cxr"]

R2GEN_SETTINGS: Mapping[Dataset, tuple[int, int]] = {"iu-xray": (3, 60), "mimic-cxr": (10, 100)}
"""The published vocabulary threshold (occurrences) and cut of the references (tokens, start token included)."""
UNKNOWN = "<unk>"
_REMOVED = re.compile(r"""[.,?;*!%^&_+():<=>@\[\]{}"'/\\]""")
_MIMIC_UNDERSCORES, _MIMIC_SPACES, _MIMIC_DOTS, _IU_DOTS = (
    7,
    6,
    8,
    3,
)  # passes of R2Gen's pairwise replacements


class Convention(Protocol):
    """Prepares texts for the n-gram metrics, and says how."""

    def reference(self, text: str) -> str:
        """The reference as the metrics see it."""

    def hypothesis(self, text: str) -> str:
        """The generated report as the metrics see it."""

    def describe(self) -> dict[str, object]:
        """Every choice, for the stamp of a results file."""


class Raw:
    """Untouched text; tokens are what white space separates."""

    def reference(self, text: str) -> str:
        """The text itself."""
        return text

    def hypothesis(self, text: str) -> str:
        """The text itself."""
        return text

    def describe(self) -> dict[str, object]:
        """Its name."""
        return {"name": "raw"}


@dataclass(frozen=True)
class R2Gen:
    """R2Gen's convention (Chen et al., EMNLP 2020, and everything compared with it).

    ``vocabulary`` None leaves rare words of the references as they are, for those who have no training reports; the
    stamp says so.
    """

    vocabulary: frozenset[str] | None
    threshold: int | None
    reference_tokens: int = 60
    """The cut of a reference, start token included: 60 for IU X-ray, 100 for MIMIC-CXR."""
    dataset: Dataset = "iu-xray"

    @classmethod
    def from_training_reports(
        cls,
        reports: Iterable[str],
        *,
        threshold: int,
        reference_tokens: int,
        dataset: Dataset = "iu-xray",
    ) -> R2Gen:
        """Collect the words that occur at least ``threshold`` times (3 for IU X-ray, 10 for MIMIC-CXR)."""
        counts = Counter(
            word for report in reports for word in clean_r2gen(report, dataset).split()
        )
        words = frozenset(word for word, count in counts.items() if count >= threshold)
        return cls(words, threshold, reference_tokens, dataset)

    def reference(self, text: str) -> str:
        """Cleaned, rare words replaced, cut to ``reference_tokens - 1`` words."""
        words = self.hypothesis(text).split()[: self.reference_tokens - 1]
        if self.vocabulary is None:
            return " ".join(words)
        return " ".join(word if word in self.vocabulary else UNKNOWN for word in words)

    def hypothesis(self, text: str) -> str:
        """Cleaned; a generated report is not cut. An empty report stays empty."""
        return clean_r2gen(text, self.dataset) if text.strip() else ""

    def describe(self) -> dict[str, object]:
        """Name, cleaning, vocabulary and cut."""
        return {
            "name": "r2gen",
            "dataset": self.dataset,
            "vocabulary_threshold": self.threshold,
            "vocabulary_words": None if self.vocabulary is None else len(self.vocabulary),
            "reference_tokens": self.reference_tokens,
        }


def r2gen_dataset(sources: Iterable[str]) -> Dataset:
    """Whose cleaning the studies of these sources get: MIMIC-CXR's when all are from there, else IU X-ray's."""
    return "mimic-cxr" if set(sources) == {"mimic-cxr"} else "iu-xray"


def make_convention(
    evaluation: EvaluationConfig, training_reports: Collection[str], dataset: Dataset = "iu-xray"
) -> Convention:
    """The convention that the settings name; what they leave open is as published for ``dataset``.

    ``training_reports`` make the vocabulary of r2gen; where there are none, no word becomes ``<unk>``.
    """
    if evaluation.convention == "raw":
        return Raw()
    threshold, tokens = R2GEN_SETTINGS[dataset]
    threshold = evaluation.vocabulary_threshold or threshold
    tokens = evaluation.reference_tokens or tokens
    if not training_reports:
        return R2Gen(None, None, tokens, dataset)
    return R2Gen.from_training_reports(
        training_reports, threshold=threshold, reference_tokens=tokens, dataset=dataset
    )


def clean_r2gen(text: str, dataset: Dataset = "iu-xray") -> str:
    """Lower case, list numbers and punctuation removed, sentences joined with " . " and closed with " .".

    The number of passes of each replacement is R2Gen's: a run of dots longer than they can shorten survives there too.
    """
    if dataset == "mimic-cxr":
        text = text.replace("\n", " ")
        text = _squeeze(text, "_", _MIMIC_UNDERSCORES)
        text = _squeeze(text, " ", _MIMIC_SPACES)
    text = _squeeze(text, ".", _MIMIC_DOTS if dataset == "mimic-cxr" else _IU_DOTS)
    text = text.replace("1. ", "")
    for before in (". ", " "):
        for number in "2345":
            text = text.replace(f"{before}{number}. ", ". ")
    sentences = text.strip().lower().split(". ")
    return " . ".join(_clean_sentence(sentence) for sentence in sentences) + " ."


def _squeeze(text: str, character: str, passes: int) -> str:
    for _ in range(passes):
        text = text.replace(character * 2, character)
    return text


def _clean_sentence(sentence: str) -> str:
    # Quotes and slashes go before the strip, the other punctuation after it: "( x" keeps its inner space.
    bare = re.sub(r"""["'/\\]""", "", sentence).strip().lower()
    return _REMOVED.sub("", bare)
