"""What a policy may do to a report without a look at its reference."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cheats.reports import TEMPLATE, sentences

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
