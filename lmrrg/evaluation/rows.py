"""The rows of every results table: which metric, how it is printed, which way is better, and what it means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Style = Literal["score", "share", "count", "words"]


@dataclass(frozen=True)
class MetricRow:
    """One row; ``key`` is its name in results.json, ``{policy}`` stands for the uncertain policy."""

    key: str
    title: str
    better: Literal["lower", "higher", ""] = ""
    style: Style = "score"

    def text(self, value: float) -> str:
        """A value of this row for people."""
        if self.style == "share":
            return f"{100 * value:.1f}%"
        if self.style == "count":
            return f"{value:,.0f}"
        return f"{value:.1f}" if self.style == "words" else signed(value)


def signed(value: float, digits: int = 3, *, plus: bool = False) -> str:
    """A number with a true minus sign, and a plus sign where asked."""
    value = round(value, digits) + 0.0  # no negative zero
    text = f"{value:+.{digits}f}" if plus else f"{value:.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class ScoreNames:
    """What a backend's scores may be called: only the published weights give RadCliQ and its parts."""

    radcliq: str
    graph: str
    bertscore: str
    labels: str

    @staticmethod
    def of(backend: str) -> ScoreNames:
        """The names for a backend's ``name``."""
        if backend == "radcliq":
            return ScoreNames("RadCliQ-v1", "RadGraph F1", "BERTScore", "CheXbert similarity")
        return ScoreNames(
            "RadCliQ-embedded v1", "Report-graph F1", "Claim overlap", "Finding similarity"
        )


_NLG = (
    ("bleu_1", "BLEU-1"),
    ("bleu_2", "BLEU-2"),
    ("bleu_3", "BLEU-3"),
    ("bleu_4", "BLEU-4"),
    ("meteor", "METEOR"),
    ("rouge_l", "ROUGE-L"),
    ("cider", "CIDEr-D"),
)


def metric_groups(policy: str, backend: str) -> list[tuple[str, list[MetricRow]]]:
    """All rows by group, with the names that the scores of ``backend`` may have."""
    names = ScoreNames.of(backend)
    return [
        (
            "Clinical quality",
            [
                MetricRow("radcliq_v1", names.radcliq, "lower"),
                MetricRow("radgraph", names.graph, "higher"),
                MetricRow("bertscore", names.bertscore, "higher"),
                MetricRow("semb", names.labels, "higher"),
                MetricRow("reward", "Reward, all studies", "higher"),
                MetricRow("reward_abnormal", "Reward, abnormal studies", "higher"),
            ],
        ),
        (
            "Findings named: F1 against the labels",
            [
                MetricRow(
                    f"{kind}_f1_{classes}_uncertain_{policy}",
                    f"{classes} classes, {kind}",
                    "higher",
                )
                for classes in (14, 5)
                for kind in ("micro", "macro", "example")
            ],
        ),
        (
            "Collapse",
            [
                MetricRow("distinct_reports", "Distinct reports", "higher", "count"),
                MetricRow(
                    "distinct_ratio", "Distinct reports, share of studies", "higher", "share"
                ),
                MetricRow("all_normal", "Reports without any finding", "", "share"),
                MetricRow("unfinished", "Reports without an end (EOS)", "lower", "share"),
                MetricRow("empty", "Empty reports", "lower", "share"),
                MetricRow("mean_words", "Words per report", "", "words"),
            ],
        ),
        (
            "Use of the image",
            [
                MetricRow(
                    "changed_blank", "Reports that change for a blank image", "higher", "share"
                ),
                MetricRow(
                    "changed_other",
                    "Reports that change for another patient's image",
                    "higher",
                    "share",
                ),
                MetricRow("nll_right", "NLL of the reference, right image (nats/token)", "lower"),
                MetricRow(
                    "nll_gap", "NLL rise with another patient's image (nats/token)", "higher"
                ),
                MetricRow("auc_macro", "Class head, macro AUC", "higher"),
            ],
        ),
        (
            "Regions, where their place is known",
            [
                MetricRow("region_mass", "Attention inside the region", "higher", "share"),
                MetricRow("region_mass_chance", "… of a uniform map", "", "share"),
                MetricRow("region_pointing", "Hottest patch touches the region", "higher", "share"),
                MetricRow("region_pointing_chance", "… of a random patch", "", "share"),
            ],
        ),
        *[
            (
                f"Language, {name} convention",
                [MetricRow(f"{name}.{key}", title, "higher") for key, title in _NLG],
            )
            for name in ("raw", "r2gen")
        ],
    ]


NOTES = (
    (
        "RadCliQ",
        "Clinical quality of one report against its reference: a formula that was fitted to radiologists' error "
        "counts, from three similarities. Lower is better; a perfect copy is about −1.4, an empty report 2.45. RadCliQ "
        "itself takes RadGraph F1, BERTScore and CheXbert embeddings from published weights. RadCliQ-embedded computes "
        "stand-ins by rules: report-graph F1, claim overlap and finding similarity. Compare it within this page only.",
    ),
    (
        "Reward",
        "What PPO maximises: minus that score, clipped, less the penalties for repetition, length and a missing end.",
    ),
    (
        "Findings named",
        "F1 of the 14 CheXbert classes (or the 5 of the CheXpert competition) that a labeler reads from the generated "
        "report, against the labels of the study. The labeler is CheXbert beside RadCliQ, and rules otherwise.",
    ),
    (
        "Collapse",
        "A model that writes one template for everybody can score well on language metrics. Distinct reports and the "
        "share of reports without any finding (support devices count as one) show it.",
    ),
    (
        "Use of the image",
        "The same study is shown with black images, and with the images of another patient (every patient's images are "
        "used once). A report that stays word for word the same did not come from the image. The NLL rise is how much "
        "less likely the reference becomes.",
    ),
    (
        "Regions",
        "Only phantoms know where the 29 regions or the findings in them are. Attention inside the region and the "
        "pointing game are means over the known regions of a study; the level of chance stands below each.",
    ),
    (
        "Conventions",
        "raw: untouched text. r2gen: the field's usual cleaning, rare words of the references replaced by <unk>, "
        "references cut; only these figures may be set beside published ones.",
    ),
)
"""(title, text) pairs for readers of a table."""
