"""The rows of every results table: title, format, better direction and explanation of a metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Style = Literal["score", "percent", "count", "words"]


@dataclass(frozen=True)
class MetricRow:
    """One row of a table; ``key`` is the name of its metric in ``results.json``."""

    key: str
    title: str
    better: Literal["lower", "higher", ""] = ""
    style: Style = "score"

    def text(self, value: float) -> str:
        """Format a value of this row.

        >>> MetricRow("empty", "Empty reports", "lower", "percent").text(0.125)
        '12.5%'
        """
        if self.style == "percent":
            return f"{100 * value:.1f}%"
        if self.style == "count":
            return f"{value:,.0f}"
        return f"{value:.1f}" if self.style == "words" else signed(value)


def signed(value: float, digits: int = 3, *, plus: bool = False) -> str:
    """Format a number with the typographic minus sign, and with a plus sign if ``plus``.

    >>> signed(-0.25), signed(0.3, 1, plus=True)
    ('−0.250', '+0.3')
    """
    value = round(value, digits) + 0.0  # turns −0.0 into 0.0
    text = f"{value:+.{digits}f}" if plus else f"{value:.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class ScoreNames:
    """The names of a metric backend's scores.

    Only the published weights compute RadCliQ and its components; the rules compute stand-ins,
    which have names of their own.
    """

    radcliq: str
    graph: str
    bertscore: str
    labels: str

    @staticmethod
    def of(backend: str) -> ScoreNames:
        """Return the names for a backend by its ``name``."""
        if backend == "radcliq":
            return ScoreNames("RadCliQ-v1", "RadGraph F1", "BERTScore", "CheXbert similarity")
        return ScoreNames(
            "RadCliQ-embedded v1", "Report-graph F1", "Claim overlap", "Finding similarity"
        )


OWN = "own."
"""Prefix of the keys of ``evaluation.extra_metrics`` in ``results.json``."""

Group = tuple[str, list[MetricRow]]
"""The title of some rows, and the rows."""

_MODE_COLLAPSE: Group = (
    "Mode collapse",
    [
        MetricRow("distinct_reports", "Distinct reports", "higher", "count"),
        MetricRow("distinct_ratio", "Distinct reports, % of studies", "higher", "percent"),
        MetricRow("distinct_finding_sets", "Distinct sets of findings", "higher", "count"),
        # Neither direction is better: the right percentage depends on the studies.
        MetricRow("all_normal", "Reports without any finding", "", "percent"),
        MetricRow("unfinished", "Reports cut at the length limit (no EOS)", "lower", "percent"),
        MetricRow("empty", "Empty reports", "lower", "percent"),
        MetricRow("mean_words", "Words per report", "", "words"),
    ],
)

_DETAILS: Group = (
    "Phantom findings that are named",
    [
        MetricRow("side", "Side right", "higher", "percent"),
        MetricRow("severity", "Severity right", "higher", "percent"),
    ],
)

_COHERENCE: Group = (
    "Coherence",
    [
        MetricRow(
            "coherence", "Reports that do not contradict or repeat themselves", "higher", "percent"
        )
    ],
)

_IMAGE_USE: Group = (
    "Use of the image",
    [
        MetricRow("changed_blank", "Reports that change for a blank image", "higher", "percent"),
        MetricRow(
            "changed_other", "Reports that change for another patient's image", "higher", "percent"
        ),
        MetricRow("nll_right", "NLL of the reference, right image (nats/token)", "lower"),
        MetricRow("nll_gap", "NLL increase with another patient's image (nats/token)", "higher"),
        MetricRow("auc_macro", "Classifier, macro AUC", "higher"),
    ],
)

_REGIONS: Group = (
    "Regions, where their location is known",
    [
        MetricRow("region_mass", "Attention inside the region", "higher", "percent"),
        MetricRow("region_mass_chance", "… of a uniform map", "", "percent"),
        MetricRow(
            "region_pointing", "Patch with most attention touches the region", "higher", "percent"
        ),
        MetricRow("region_pointing_chance", "… of a random patch", "", "percent"),
    ],
)

# The conventions differ in the text that these metrics read; no other metric depends on it.
_NGRAM_TITLES = {
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "bleu_4": "BLEU-4",
    "meteor": "METEOR",
    "rouge_l": "ROUGE-L",
    "cider": "CIDEr-D",
}


def metric_groups(policy: str, backend: str) -> list[Group]:
    """Return the title and the rows of every group, in the order of the tables.

    Args:
        policy: how uncertain labels count in the F1, "positive" or "negative".
        backend: name of the metric backend.
    """
    return [
        _clinical_quality(ScoreNames.of(backend)),
        _findings_named(policy),
        _DETAILS,
        _COHERENCE,
        _MODE_COLLAPSE,
        _IMAGE_USE,
        _REGIONS,
        _language("raw"),
        _language("r2gen"),
        _language("coco"),
    ]


def groups_with_values(results: Mapping[str, Any]) -> list[Group]:
    """Return the groups of a results file, with the rows that have a value for any system."""
    stamp = results["stamp"]
    measured: set[str] = set()
    for system in results["systems"]:
        measured |= system["metrics"].keys()
    groups = []
    for title, rows in metric_groups(stamp["uncertain_policy"], stamp["backend"]["name"]):
        with_values = [row for row in rows if row.key in measured]
        if with_values:
            groups.append((title, with_values))
    own = sorted(key for key in measured if key.startswith(OWN))
    if own:
        # Which direction is better, only their author knows.
        rows = [MetricRow(key, key.removeprefix(OWN)) for key in own]
        groups.append(("Metrics of your own", rows))
    return groups


def _clinical_quality(names: ScoreNames) -> Group:
    # The keys are the same for both backends, so that results of either have one schema.
    return (
        "Clinical quality",
        [
            MetricRow("radcliq_v1", names.radcliq, "lower"),
            MetricRow("radgraph", names.graph, "higher"),
            MetricRow("bertscore", names.bertscore, "higher"),
            MetricRow("semb", names.labels, "higher"),
            MetricRow("reward", "Reward, all studies", "higher"),
            MetricRow("reward_abnormal", "Reward, abnormal studies", "higher"),
        ],
    )


def _findings_named(policy: str) -> Group:
    rows = []
    for classes in (14, 5):
        for average in ("micro", "macro", "example"):
            key = f"{average}_f1_{classes}_uncertain_{policy}"
            rows.append(MetricRow(key, f"{classes} classes, {average}", "higher"))
    return ("Findings named: F1 against the labels", rows)


def _language(convention: str) -> Group:
    rows = [
        MetricRow(f"{convention}.{metric}", title, "higher")
        for metric, title in _NGRAM_TITLES.items()
    ]
    return (f"Language, {convention} convention", rows)


NOTES = (
    (
        "RadCliQ",
        "Clinical quality of one report against its reference: a formula that was fitted to the "
        "errors that radiologists counted, from three similarities. Lower is better; a perfect "
        "copy is about −1.4, an empty report 2.45. RadCliQ itself takes RadGraph F1, BERTScore and "
        "CheXbert embeddings from published weights. RadCliQ-embedded replaces them by rules: "
        "report-graph F1, claim overlap and finding similarity. Compare it only within this page.",
    ),
    (
        "Baselines",
        "Systems without a language model. A constant report says the same of everybody. The "
        "template and the report with the image encoder's labels write what its class head finds, "
        "in sentences of training reports: a trained system that is no better adds nothing to its "
        "image encoder. The template from the true labels reads the answer, so it is a bound and "
        "no system: it has every finding right, but no side, size or place.",
    ),
    (
        "Reward",
        "What PPO maximises: the negative of that score, clipped, minus penalties for incoherence, "
        "repetition, length and a missing end-of-sequence token (EOS). A reward.function of your "
        "own takes the place of the score.",
    ),
    (
        "Findings named",
        "F1 of the 14 CheXbert classes (or the 5 of the CheXpert competition) that a labeler reads "
        "from the generated report, against the labels of the study. The labeler is CheXbert with "
        "RadCliQ, and rules otherwise.",
    ),
    (
        "Phantom findings",
        "Only of phantoms is it known on which side a finding is and how severe. Counted are the "
        "one-sided findings, and those with a severity, that the report names: a missed finding "
        "is in the F1. No side, both sides and two severities are as wrong as the other one.",
    ),
    (
        "Coherence",
        "A report that says two things of one finding agrees with more references than an honest "
        "one. Incoherent is a report that states and denies a finding, states it twice, gives it "
        "two severities or sides that exclude each other, puts a device inside a finding, or "
        "repeats a sentence in the same or in other words, unless its reference does so too.",
    ),
    (
        "Mode collapse",
        "A model that writes the same few sentences for every patient can score well on language "
        "metrics. The number of distinct reports, of distinct sets of findings in them, and the "
        "percentage of reports without any finding (support devices count as one) reveal it.",
    ),
    (
        "Use of the image",
        "Every study is repeated with black images, and with the images of another patient (each "
        "study's images are used once). A report that stays the same word for word does not depend "
        "on the image. The NLL increase is how much less likely the reference becomes.",
    ),
    (
        "Regions",
        "Only for phantoms is it known where the 29 regions, or the findings in them, are. "
        "Attention inside the region and the pointing game are means over the known regions of a "
        "study; the level of chance is in the row below.",
    ),
    (
        "Conventions",
        "raw: untouched text. r2gen: the preprocessing of most published results, with rare words "
        "of the references replaced by <unk> and long references cut; only these values can be "
        "compared with published ones. coco: lower case without punctuation.",
    ),
)
"""Title and text of each explanation below a table."""
