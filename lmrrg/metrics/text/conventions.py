"""Prepare texts for the n-gram metrics: untouched, as COCO does it, or exactly as R2Gen does it.

Published BLEU, METEOR, ROUGE-L and CIDEr of this field are only comparable under R2Gen's
convention: its cleaning of the text, its vocabulary on the *reference* side (rare words become
``<unk>``), and its cut of the references. Two details are easily missed. The cut counts the start
token, so "60 tokens" leave 59 words. The punctuation pattern has no hyphen in it (what looks like
one is a range of characters), so hyphens stay.
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
"""The published vocabulary threshold and cut of the references.

The threshold is a number of occurrences, the cut a number of tokens, start token included.
"""
UNKNOWN = "<unk>"
# A generated "<unk>" is a word of the model's vocabulary, so it keeps its angle brackets.
_REMOVED = re.compile(r"""[.,?;*!%^&_+():=@\[\]{}"'/\\]|<(?!unk>)|(?<!<unk)>""")
# What PTB's tokenizer takes for a token, contractions aside: a word or number with the hyphens,
# slashes, apostrophes and decimal points inside of it, or any other character alone.
_PTB_TOKEN = re.compile(r"<unk>|\w+(?:[-/'.,:]\w+)*|[^\w\s]")
_CONTRACTION = re.compile(r"(\w)(n't|'(?:s|re|ve|ll|d|m))\b")
# The tokens that COCO's evaluation drops, and brackets, which it means to drop but misses.
_COCO_DROPPED = frozenset("'\"`.?!,:-;()[]{}")
# How often R2Gen repeats "replace two of a character by one". A longer run stays partly doubled in
# its output, so the numbers are part of the convention.
_MIMIC_UNDERSCORE_PASSES = 7
_MIMIC_SPACE_PASSES = 6
_MIMIC_DOT_PASSES = 8
_IU_DOT_PASSES = 3


class Convention(Protocol):
    """Prepares texts for the n-gram metrics and describes its choices."""

    def reference(self, text: str) -> str:
        """Return the reference as the metrics read it."""

    def hypothesis(self, text: str) -> str:
        """Return the generated report as the metrics read it."""

    def describe(self) -> dict[str, object]:
        """Return every choice, for the stamp of a results file."""


class Raw:
    """Leaves texts untouched; tokens are split at white space."""

    def reference(self, text: str) -> str:
        """Return the text itself."""
        return text

    def hypothesis(self, text: str) -> str:
        """Return the text itself."""
        return text

    def describe(self) -> dict[str, object]:
        """Return the name of the convention."""
        return {"name": "raw"}


@dataclass(frozen=True)
class R2Gen:
    """R2Gen's convention (Chen et al., EMNLP 2020, and everything compared with it).

    ``vocabulary`` None keeps the rare words of the references, for users without training reports;
    the stamp records it.

    >>> convention = R2Gen(frozenset({"no", "effusion", "."}), threshold=3, reference_tokens=5)
    >>> convention.reference("No pleural effusion. Clear lungs.")  # 5 tokens are 4 words
    'no <unk> effusion .'
    >>> convention.hypothesis("No pleural effusion. Clear lungs.")
    'no pleural effusion . clear lungs .'
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
        """Use the words that occur at least ``threshold`` times in the training reports.

        The published thresholds are 3 for IU X-ray and 10 for MIMIC-CXR.
        """
        counts = Counter(
            word for report in reports for word in clean_r2gen(report, dataset).split()
        )
        words = frozenset(word for word, count in counts.items() if count >= threshold)
        return cls(words, threshold, reference_tokens, dataset)

    def reference(self, text: str) -> str:
        """Clean a reference, cut it to ``reference_tokens - 1`` words and replace rare words."""
        words = self.hypothesis(text).split()[: self.reference_tokens - 1]
        if self.vocabulary is None:
            return " ".join(words)
        return " ".join(word if word in self.vocabulary else UNKNOWN for word in words)

    def hypothesis(self, text: str) -> str:
        """Clean a generated report; it is not cut.

        An empty report stays empty: the cleaning alone would add a full stop.
        """
        return clean_r2gen(text, self.dataset) if text.strip() else ""

    def describe(self) -> dict[str, object]:
        """Return name, cleaning, vocabulary and cut."""
        return {
            "name": "r2gen",
            "dataset": self.dataset,
            "vocabulary_threshold": self.threshold,
            "vocabulary_words": None if self.vocabulary is None else len(self.vocabulary),
            "reference_tokens": self.reference_tokens,
        }


class Coco:
    """COCO's captioning convention: lower case, tokens as in the Penn Treebank, no punctuation.

    It is written without the Java tokenizer of COCO's package and follows its rules for clinical
    English. Abbreviations such as "dr." lose their stop here.

    >>> Coco().reference("Heart isn't enlarged; follow-up (2.5 cm).")
    "heart is n't enlarged follow-up 2.5 cm"
    """

    def reference(self, text: str) -> str:
        """Return the tokens of the text, joined by blanks."""
        spaced = _CONTRACTION.sub(r"\1 \2", text.lower())
        words = (_ptb_tokens(piece) for piece in spaced.split())
        return " ".join(token for tokens in words for token in tokens)

    def hypothesis(self, text: str) -> str:
        """Return the tokens of the text, joined by blanks."""
        return self.reference(text)

    def describe(self) -> dict[str, object]:
        """Return the name of the convention."""
        return {"name": "coco"}


def _ptb_tokens(piece: str) -> list[str]:
    """Return the tokens of a text without blanks, contractions kept whole and stops dropped."""
    if _CONTRACTION.fullmatch(f"x{piece}"):
        return [piece]
    return [token for token in _PTB_TOKEN.findall(piece) if token not in _COCO_DROPPED]


def r2gen_dataset(sources: Iterable[str]) -> Dataset:
    """Return which data set's cleaning the studies of these sources get.

    It is MIMIC-CXR's if all are from there, else IU X-ray's.

    >>> r2gen_dataset(["mimic-cxr"]), r2gen_dataset(["mimic-cxr", "phantom"])
    ('mimic-cxr', 'iu-xray')
    """
    return "mimic-cxr" if set(sources) == {"mimic-cxr"} else "iu-xray"


def make_convention(
    evaluation: EvaluationConfig, training_reports: Collection[str], dataset: Dataset = "iu-xray"
) -> Convention:
    """Return the convention that the settings name.

    What the settings leave open is as published for ``dataset``. The words of ``training_reports``
    are the vocabulary of r2gen; where there are none, no word becomes ``<unk>``.
    """
    if evaluation.convention == "raw":
        return Raw()
    if evaluation.convention == "coco":
        return Coco()
    threshold, tokens = R2GEN_SETTINGS[dataset]
    threshold = evaluation.vocabulary_threshold or threshold
    tokens = evaluation.reference_tokens or tokens
    if not training_reports:
        return R2Gen(None, None, tokens, dataset)
    return R2Gen.from_training_reports(
        training_reports, threshold=threshold, reference_tokens=tokens, dataset=dataset
    )


def clean_r2gen(text: str, dataset: Dataset = "iu-xray") -> str:
    """Clean a report as R2Gen does.

    The text is put into lower case, list numbers and punctuation are removed, sentences are joined
    with " . " and closed with " .". Runs of dots are shortened as often as R2Gen does it, so a long
    run survives here as it does there.

    >>> clean_r2gen("1. Heart size is normal. 2. T-spine: mild, old change.")
    'heart size is normal . t-spine mild old change .'
    """
    if dataset == "mimic-cxr":
        text = text.replace("\n", " ")
        text = _squeeze(text, "_", _MIMIC_UNDERSCORE_PASSES)
        text = _squeeze(text, " ", _MIMIC_SPACE_PASSES)
    text = _squeeze(text, ".", _MIMIC_DOT_PASSES if dataset == "mimic-cxr" else _IU_DOT_PASSES)
    # R2Gen knows list numbers up to 5; the first is removed everywhere, the others after a sentence
    # end or a space.
    text = text.replace("1. ", "")
    for before in (". ", " "):
        for number in "2345":
            text = text.replace(f"{before}{number}. ", ". ")
    sentences = text.strip().lower().split(". ")
    return " . ".join(_clean_sentence(sentence) for sentence in sentences) + " ."


def _squeeze(text: str, character: str, passes: int) -> str:
    """Replace two of a character by one, ``passes`` times."""
    for _ in range(passes):
        text = text.replace(character * 2, character)
    return text


def _clean_sentence(sentence: str) -> str:
    # Quotes and slashes are removed before the strip, the other punctuation after it: "( x" keeps
    # its inner space.
    bare = re.sub(r"""["'/\\]""", "", sentence).strip().lower()
    return _REMOVED.sub("", bare)
