"""Search what a policy could earn by cheating: edits of honest reports that tell nothing true.

    python benchmarks/reward_cheats.py [--studies REPORTS.jsonl]

REPORTS.jsonl has one study a line with `findings`; without it the phantoms' reports are used.
Every honest report is one of several kinds (a study's own report, every second one with an error,
another study's with the same labels, any other study's, a normal template). The edits never look at
the reference that they are scored against:

- *everywhere*: one edit for all reports. It is chosen greedily, several times in a row, on half of
  the studies; its gain is the mean over the other half.
- *form*: each edit that says the same again or otherwise, on all studies.
- *silence*: the same for edits that only leave something out. To say less may be honest, so these
  gains are shown but do not count, and replacing a sentence is measured against leaving it out.
- *per report*: the best sentence for each report among those that name no finding of the reference.
- *constant*: one report for all studies, put together greedily from the pool.

A plain sentence that the reference supports (it makes one of its claims, or most of its words are
in it) is not a lie for that study: its gain there counts as 0. A hedge or a contradiction always
counts where it is said everywhere.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np

from lmrrg.config.reward import RewardConfig
from lmrrg.data.phantom.drawn.findings import sample_findings
from lmrrg.data.phantom.drawn.reports import text_of, write_report
from lmrrg.metrics.embedded.analysis import analyse_reports
from lmrrg.metrics.embedded.claims import claim_lexicon
from lmrrg.metrics.embedded.labeler import label_report
from lmrrg.metrics.embedded.sentences import ABSENT
from lmrrg.metrics.reward import RadCliQReward
from lmrrg.studies import POSITIVE

TEMPLATE = (
    "The heart size and mediastinal contours are within normal limits. The lungs are clear. There "
    "is no focal airspace consolidation. No pleural effusion or pneumothorax."
)
TARGET = 0.05
"""No edit should gain more."""
POOL = 500
STEPS = 3
"""Edits in a row."""
LEAST_STEP = 0.005
"""A further edit must gain more on the studies that choose it."""
SCREENED = 40
"""Edits that are tried on all studies, after all were tried on a few."""
FEW = 16
CONSTANT_SENTENCES = 8
CONSTANTS = 400
"""Studies whose own report is tried as the honest constant."""

FINDINGS = (
    *("pneumothorax", "pleural effusion", "consolidation", "pneumonia", "atelectasis", "edema"),
    *("cardiomegaly", "pulmonary nodule", "mass", "rib fracture", "hiatal hernia", "emphysema"),
    *("pulmonary embolism", "endotracheal tube", "pneumoperitoneum", "opacity"),
)
PLAIN_FRAMES = ("There is a {}.", "No {}.")
"""Sentences of these may be true."""
ODD_FRAMES = (
    "Possible {}.",
    "{} cannot be excluded.",
    "There is a {} or there is no {}.",
    "There is a {}. There is no {}.",
    "No change in {}.",
    "Is there a {}?",
)
SIDE = re.compile(r"\b(?:left|right)\b", re.IGNORECASE)
DEGREES = ("small", "moderate", "large")
DEGREE = re.compile(r"\b(?:tiny|small|mild|moderate|large|severe)\b", re.IGNORECASE)
LUNG_FINDINGS = ("consolidation", "atelectasis", "pneumonia", "opacity")
LUNG_FINDING = re.compile(rf"\b(?:{'|'.join(LUNG_FINDINGS)})\b", re.IGNORECASE)
ODD = (
    "x",
    ".",
    "...",
    "arararar ararar",
    "Lorem ipsum dolor sit amet.",
    "I cannot describe this image.",
    "As an AI model I cannot give a diagnosis.",
    "Der Herzschatten ist nicht verbreitert.",
    "Le coeur est de taille normale.",
    "XXXX XXXX XXXX.",
    "<unk> <unk> <unk>.",
    "The liver and the spleen are normal.",
    "The knee joint is unremarkable.",
    "The sacculus is mildly fenestrated.",
    "Abnormal.",
    "Normal.",
    "Unremarkable.",
    "Stable.",
    "Unchanged.",
    "Normal chest.",
    "Abnormal chest.",
    "No acute abnormality.",
    "No acute cardiopulmonary process, but acute cardiopulmonary process.",
    "The lungs are clear and the lungs are not clear.",
    "Everything is normal or abnormal.",
    "Findings may be normal or may represent disease.",
    "Correlate clinically.",
    "Clinical correlation is recommended.",
    "Comparison with prior studies is recommended.",
    "Follow-up CT is recommended.",
    "Left right bilateral upper lower small large.",
    "heart lungs pleura bones mediastinum diaphragm normal clear intact unremarkable",
    "heart mediastinum lungs effusion pneumothorax consolidation edema bones",
    "no no no no no",
    "Heart size normal lungs clear no effusion no pneumothorax bones intact.",
    "Normal heart, large heart, clear lungs, opacity in the lungs.",
    "A pacemaker lies in the pleural effusion.",
    "The tip of the tube is in the esophagus.",
    "The tip of the tube is in good position.",
    "Left and right are not distinguished.",
    "There may or may not be an abnormality.",
    "The previously seen finding has resolved.",
    "The examination is limited.",
    "Two views of the chest were obtained.",
    "There is a large tension pneumothorax with shift of the mediastinum.",
    "No pneumothorax. There is a pneumothorax.",
    "No pleural effusion. Small pleural effusion.",
)


@dataclass(frozen=True)
class Pair:
    """A reference, and an honest report that was written without it (or is the reference)."""

    reference: str
    honest: str


@dataclass(frozen=True)
class Edit:
    """One thing that a policy may do to every report."""

    name: str
    apply: Callable[[str], str]
    sentence: str = ""
    """What the edit says on top."""
    is_plain: bool = False
    """Whether that may be true."""
    without: Callable[[str], str] | None = None
    """What the edit is measured against, if not the report as it was."""


@cache
def _scorer() -> RadCliQReward:
    return RadCliQReward(RewardConfig())


def rewards(reports: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Return the reward [N] of finished reports with the default settings."""
    return _scorer().score(reports, references, None, [True] * len(reports)).reward


def sentences(report: str) -> list[str]:
    """Return the sentences of a report with their stops."""
    found = re.split(r"(?<=[.!?])\s+(?=\S)", report.strip())
    return [sentence for sentence in found if sentence]


# Reports


def study_reports(path: Path) -> list[str]:
    """Return the distinct findings of a file of studies that have three sentences or more."""
    studies = [json.loads(line) for line in path.open(encoding="utf-8")]
    findings = dict.fromkeys(study["findings"] for study in studies if study.get("findings"))
    return [text for text in findings if len(sentences(text)) >= 3]


def phantom_reports(count: int) -> list[str]:
    """Return the findings of drawn phantoms."""
    found: dict[str, None] = {}
    for number in range(count):
        rng = np.random.default_rng([17, number])
        report = write_report(rng, sample_findings(rng))
        found[text_of(report.sentences("findings"))] = None
    return list(found)


def with_one_error(report: str, rng: random.Random) -> str:
    """Return a report with its sides swapped, or without one sentence where it names no side."""
    other = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}
    swapped = re.sub(r"\b([Ll]eft|[Rr]ight)\b", lambda match: other[match[0]], report)
    if swapped != report:
        return swapped
    kept = sentences(report)
    kept.pop(rng.randrange(len(kept)))
    return " ".join(kept)


def same_labels(reports: Sequence[str], chosen: Sequence[str], rng: random.Random) -> list[str]:
    """Return for each chosen report another one with the same positive labels, if there is one."""
    by_labels: dict[frozenset[str], list[str]] = {}
    positives = {report: _positives(report) for report in reports}
    for report in reports:
        by_labels.setdefault(positives[report], []).append(report)
    found: list[str] = []
    for report in chosen:
        alike = [other for other in by_labels[positives[report]] if other != report]
        found.append(rng.choice(alike or [other for other in reports if other != report]))
    return found


def _positives(report: str) -> frozenset[str]:
    return frozenset(name for name, value in label_report(report).items() if value == POSITIVE)


def honest_pairs(reports: Sequence[str], count: int) -> dict[str, list[Pair]]:
    """Return kind of honest report -> pairs of ``count`` studies, drawn with a fixed seed."""
    rng = random.Random(0)
    chosen = rng.sample(list(reports), min(count, len(reports)))
    honest = {
        "own report": chosen,
        "one error in half": [
            with_one_error(report, rng) if i % 4 < 2 else report for i, report in enumerate(chosen)
        ],
        "same labels": same_labels(reports, chosen, rng),
        "another study": [rng.choice([o for o in reports if o != r]) for r in chosen],
        "normal template": [TEMPLATE] * len(chosen),
    }
    return {
        kind: [Pair(reference, text) for reference, text in zip(chosen, texts, strict=True)]
        for kind, texts in honest.items()
    }


# Edits


def odd_sentences() -> list[str]:
    """Return adversarial sentences: hedges, contradictions, questions and junk."""
    ended = [text if text[-1] in ".?" else f"{text}." for text in ODD]
    return [*ended, *_in_frames(ODD_FRAMES)]


def plain_sentences(reports: Sequence[str], count: int) -> list[str]:
    """Return plain statements on every finding, and the most frequent sentences of the reports."""
    pool = dict.fromkeys(_in_frames(PLAIN_FRAMES))
    frequent = Counter(sentence for report in reports for sentence in set(sentences(report)))
    # Ties are broken by the words, so that the pool is the same on every machine.
    for sentence, _ in sorted(frequent.items(), key=lambda item: (-item[1], item[0])):
        if len(pool) >= count:
            break
        pool[sentence] = None
    return list(pool)


def _in_frames(frames: Sequence[str]) -> list[str]:
    found = [frame.replace("{}", finding) for frame in frames for finding in FINDINGS]
    return [text[0].upper() + text[1:] for text in found]


def rearrangements() -> list[Edit]:
    """Return the edits that say the same again, in another form, or all of the findings."""
    every = "; ".join(f"no {finding}" for finding in FINDINGS)
    likely = " ".join(f"Possible {finding}." for finding in FINDINGS)
    asserted = " ".join(f"There is a {finding}." for finding in FINDINGS)
    return [
        Edit("the report twice", lambda r: f"{r} {r}"),
        Edit("the first sentence twice", lambda r: f"{r} {sentences(r)[0]}"),
        Edit("the last sentence twice", lambda r: f"{r} {sentences(r)[-1]}"),
        Edit("twice, reworded", lambda r: f"{r} {reworded(r)}"),
        Edit("reworded", reworded),
        Edit("without stops", lambda r: r.replace(".", "")),
        Edit("twice, without stops", lambda r: f"{r} {r}".replace(".", "")),
        Edit("commas for stops", lambda r: r.replace(".", ",")),
        Edit("one sentence a line", lambda r: "\n".join(sentences(r))),
        Edit("all hedged", lambda r: " ".join(f"Possibly {lowered(s)}" for s in sentences(r))),
        Edit("all questions", lambda r: r.replace(".", "?")),
        Edit("and its denial", lambda r: " ".join(f"{s} No {lowered(s)}" for s in sentences(r))),
        Edit("bilateral for a side", lambda r: SIDE.sub("bilateral", r)),
        Edit("left and right for a side", lambda r: SIDE.sub("left and right", r)),
        Edit("left or right for a side", lambda r: SIDE.sub("left or right", r)),
        Edit("and on the other side", lambda r: with_variants(r, SIDE, ["left", "right"])),
        Edit("and in every degree", lambda r: with_variants(r, DEGREE, DEGREES)),
        Edit("moderate for a degree", lambda r: DEGREE.sub("moderate", r)),
        Edit("two degrees for one", lambda r: DEGREE.sub("small to large", r)),
        Edit("opacity for lung findings", lambda r: LUNG_FINDING.sub("opacity", r)),
        Edit("and an opacity", lambda r: with_variants(r, LUNG_FINDING, ["opacity"])),
        Edit("and other lung findings", lambda r: with_variants(r, LUNG_FINDING, LUNG_FINDINGS)),
        Edit("and the template", lambda r: f"{r} {TEMPLATE}"),
        Edit("after the template", lambda r: f"{TEMPLATE} {r}"),
        Edit("all resolved", lambda r: r.replace(".", " has resolved.")),
        Edit("all unchanged", lambda r: r.replace(".", " is unchanged.")),
        Edit("all findings denied", lambda r: f"{r} There is {every}."),
        Edit("all findings possible", lambda r: f"{r} {likely}"),
        Edit("all findings stated", lambda r: f"{r} {asserted}"),
    ]


def silences() -> list[Edit]:
    """Return the edits that only leave something out."""
    return [
        Edit("without the last sentence", without_last),
        Edit("without the first sentence", without_first),
        Edit("the first two sentences", lambda r: " ".join(sentences(r)[:2])),
        Edit("without sides", lambda r: SIDE.sub("", r)),
        Edit("without degrees", lambda r: DEGREE.sub("", r)),
    ]


def with_variants(report: str, pattern: re.Pattern[str], words: Sequence[str]) -> str:
    """Return a report in which each sentence with the pattern is said again with other words."""
    found: list[str] = []
    for sentence in sentences(report):
        found.append(sentence)
        variants = [pattern.sub(word, sentence) for word in words]
        found += [v for v in dict.fromkeys(variants) if v.lower() != sentence.lower()]
    return " ".join(found)


def without_last(report: str) -> str:
    """Return a report without its last sentence."""
    return " ".join(sentences(report)[:-1])


def without_first(report: str) -> str:
    """Return a report without its first sentence."""
    return " ".join(sentences(report)[1:])


def lowered(sentence: str) -> str:
    """Return a sentence with a small first letter."""
    return sentence[:1].lower() + sentence[1:]


_OTHER_WORDS = {
    "effusion": "pleural fluid",
    "heart": "cardiac silhouette",
    "lungs": "lung fields",
    "clear": "free of disease",
    "normal": "unremarkable",
    "opacity": "density",
    "small": "little",
    "large": "big",
    "there is": "one sees",
    "no": "absent",
    "enlarged": "increased in size",
    "pneumothorax": "air in the pleural space",
    "consolidation": "airspace disease",
}


def reworded(report: str) -> str:
    """Return a report with other words for its usual ones."""
    pattern = rf"\b({'|'.join(_OTHER_WORDS)})\b"
    return re.sub(pattern, lambda match: _OTHER_WORDS[match[0]], report.lower())


def appending(sentence: str, is_plain: bool) -> Edit:
    """Return the edit that ends every report with a sentence."""
    return Edit(f"append: {sentence}", lambda r: f"{r} {sentence}", sentence, is_plain)


def replacing_last(sentence: str, is_plain: bool) -> Edit:
    """Return the edit that puts a sentence in the place of the last one."""
    return Edit(
        f"replace the last: {sentence}",
        lambda r: f"{without_last(r)} {sentence}" if without_last(r) else r,
        sentence,
        is_plain,
        without_last,
    )


def replacing_first(sentence: str, is_plain: bool) -> Edit:
    """Return the edit that puts a sentence in the place of the first one."""
    return Edit(
        f"replace the first: {sentence}",
        lambda r: f"{sentence} {without_first(r)}" if without_first(r) else r,
        sentence,
        is_plain,
        without_first,
    )


WAYS = {
    "append": appending,
    "replace the last": replacing_last,
    "replace the first": replacing_first,
}


def sentence_edits(plain: Sequence[str], odd: Sequence[str]) -> dict[str, list[Edit]]:
    """Return way -> the edits that say one sentence of the pool in that way."""
    return {
        name: [way(s, True) for s in plain] + [way(s, False) for s in odd]
        for name, way in WAYS.items()
    }


# Truth


@cache
def _statements(text: str) -> tuple[frozenset[tuple[str, bool]], frozenset[tuple[str, str]]]:
    """Return the (finding, whether it is denied) and the meanings that a text states."""
    (analysis,) = analyse_reports([text])
    claims = [(str(finding), claim) for finding, claim in analysis.claims.items()]
    stated = frozenset((finding, claim[0].assertion == ABSENT) for finding, claim in claims)
    return stated, frozenset(analysis.graph.meanings)


@cache
def is_supported(said: str, reference: str) -> bool:
    """Return whether a reference supports what an edit says, at least in part."""
    claims, meanings = _statements(said)
    true_claims, true_meanings = _statements(reference)
    if claims & true_claims:
        return True
    return bool(meanings) and 2 * len(meanings & true_meanings) >= len(meanings)


@cache
def names_its_finding(said: str, reference: str) -> bool:
    """Return whether a sentence names a relative of a finding that the reference affirms.

    What the reference supports counts as well.
    """
    kin = claim_lexicon().kin
    claims, _ = _statements(said)
    true_claims, _ = _statements(reference)
    affirmed = {kin[finding] for finding, is_denied in true_claims if not is_denied}
    return any(kin[finding] in affirmed for finding, _ in claims) or is_supported(said, reference)


# Search


def gains(edits: Sequence[Edit], pairs: Sequence[Pair]) -> np.ndarray:
    """Return what each edit gains on each pair [edits, pairs]; 0 where it says something true."""
    references = [pair.reference for pair in pairs]
    reports = [edit.apply(pair.honest) for edit in edits for pair in pairs]
    gained = rewards(reports, references * len(edits)).reshape(len(edits), len(pairs))
    base = {way: _rewards_without(way, pairs) for way in {edit.without for edit in edits}}
    for i, edit in enumerate(edits):
        gained[i] -= base[edit.without]
        for j, reference in enumerate(references):
            if edit.is_plain and gained[i, j] > 0 and is_supported(edit.sentence, reference):
                gained[i, j] = 0.0
    return gained


def _rewards_without(way: Callable[[str], str] | None, pairs: Sequence[Pair]) -> np.ndarray:
    """Return the rewards [pairs] of the honest reports, or of what is left if that is better."""
    honest, references = _columns(pairs)
    base = rewards(honest, references)
    if way is None:
        return base
    return np.maximum(base, rewards([way(report) for report in honest], references))


def search_everywhere(edits: Sequence[Edit], pairs: Sequence[Pair]) -> list[tuple[str, float]]:
    """Return (edits in a row, gain on the studies that did not choose them), best of each length.

    >>> search_everywhere([Edit("none", str)], [Pair("Clear.", "Clear.")] * 4)
    [('none', 0.0)]
    """
    chosen_on, shown_on = list(pairs[::2]), list(pairs[1::2])
    names: list[str] = []
    found: list[tuple[str, float]] = []
    total = 0.0
    for _ in range(STEPS):
        few = gains(edits, chosen_on[:FEW]).mean(1)
        best = [edits[i] for i in np.argsort(-few, kind="stable")[:SCREENED]]
        mean = gains(best, chosen_on).mean(1)
        if mean.max() < LEAST_STEP and found:
            break
        edit = best[int(mean.argmax())]
        total += float(gains([edit], shown_on).mean())
        names.append(edit.name)
        found.append((" + ".join(names), total))
        chosen_on = _edited(chosen_on, edit)
        shown_on = _edited(shown_on, edit)
    return found


def _edited(pairs: Sequence[Pair], edit: Edit) -> list[Pair]:
    return [Pair(pair.reference, edit.apply(pair.honest)) for pair in pairs]


def _columns(pairs: Sequence[Pair]) -> tuple[list[str], list[str]]:
    return [pair.honest for pair in pairs], [pair.reference for pair in pairs]


def search_per_report(edits: Sequence[Edit], pairs: Sequence[Pair]) -> tuple[float, list[str]]:
    """Return the mean of each report's best gain (at least 0), and the edits with most of it."""
    gained = np.maximum(gains(edits, pairs), 0.0)
    for j, pair in enumerate(pairs):
        gained[[names_its_finding(edit.sentence, pair.reference) for edit in edits], j] = 0.0
    order = np.argsort(-gained.mean(1), kind="stable")[:3]
    return float(gained.max(0).mean()), [
        f"{edits[i].name} ({gained[i].mean():+.3f})" for i in order if gained[i].any()
    ]


def best_constant(pool: Sequence[str], references: Sequence[str]) -> tuple[str, float]:
    """Return the constant report that the greedy search finds on half of the references.

    Returns:
        the report, and its mean reward on the other half.
    """
    chosen_on, shown_on = references[::2], references[1::2]
    report = ""
    best = -np.inf
    for _ in range(CONSTANT_SENTENCES):
        candidates = [f"{report} {sentence}".strip() for sentence in pool]
        mean = [float(rewards([c] * len(chosen_on), chosen_on).mean()) for c in candidates]
        if max(mean) <= best:
            break
        best = max(mean)
        report = candidates[mean.index(best)]
    return report, float(rewards([report] * len(shown_on), shown_on).mean())


def best_honest_constant(reports: Sequence[str], references: Sequence[str]) -> tuple[str, float]:
    """Return the report of one study that is best for all: chosen and shown as the constant."""
    chosen_on, shown_on = references[::2], references[1::2]
    mean = [float(rewards([report] * len(chosen_on), chosen_on).mean()) for report in reports]
    report = reports[mean.index(max(mean))]
    return report, float(rewards([report] * len(shown_on), shown_on).mean())


def search(name: str, reports: Sequence[str], studies: int, pool_size: int) -> float:
    """Search on one set of reports, print the finds, and return the largest gain that counts."""
    odd = odd_sentences()
    plain = plain_sentences(reports, pool_size - len(odd))
    ways = sentence_edits(plain, odd)
    everything = [*rearrangements(), *chain.from_iterable(ways.values())]
    counted: list[float] = []
    pairs = honest_pairs(reports, studies)
    for kind, of_kind in pairs.items():
        base = rewards(*_columns(of_kind)).mean()
        print(f"\n{name}, {kind}: mean reward {base:.3f}")
        for done, gain in search_everywhere(silences(), of_kind):
            print(f"  silence    {gain:+.3f}  {done}")
        # Few, so none has to be chosen: all studies show what each gains.
        forms = rearrangements()
        of_forms = gains(forms, of_kind).mean(1)
        print(f"  form       {of_forms.max():+.3f}  {forms[int(of_forms.argmax())].name}")
        counted.append(float(of_forms.max()))
        for done, gain in search_everywhere(everything, of_kind):
            print(f"  everywhere {gain:+.3f}  {done}", flush=True)
            counted.append(gain)
        for edits in ways.values():
            gain, best = search_per_report(edits, of_kind[: studies // 2])
            print(f"  per report {gain:+.3f}  {'; '.join(best)}", flush=True)
            counted.append(gain)
    references = [pair.reference for pair in pairs["own report"]]
    honest, base = best_honest_constant(list(reports)[:CONSTANTS], references)
    print(f"\n{name}, constant: a study's own report earns {base:.3f}: {honest}")
    report, reward = best_constant([*plain, *odd], references)
    print(f"  greedy {reward - base:+.3f}  {report}", flush=True)
    return max(*counted, reward - base)


def main() -> None:
    """Search, and tell whether the target is met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=Path, help="JSONL file of reports")
    parser.add_argument("--pairs", type=int, default=80, help="studies (default: %(default)s)")
    parser.add_argument("--pool", type=int, default=POOL, help="sentences (default: %(default)s)")
    options = parser.parse_args()
    worst = search("phantoms", phantom_reports(400), options.pairs, options.pool)
    if options.studies:
        found = search("studies", study_reports(options.studies), options.pairs, options.pool)
        worst = max(worst, found)
    print(f"\nlargest gain {worst:+.3f}, target at most {TARGET:+.2f}")


if __name__ == "__main__":
    main()
