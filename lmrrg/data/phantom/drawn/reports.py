"""Reports of drawn phantoms: random wording of fixed facts.

Every sentence carries the labels that it states, so that a report's labels follow its text. The
wording is drawn at random, independent of the film. Sentences are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from lmrrg.data.phantom.drawn.findings import Finding
from lmrrg.studies import NEGATIVE, POSITIVE, Section

Labels = Mapping[str, int]


@dataclass(frozen=True)
class Sentence:
    """A sentence and the classes that it states."""

    text: str
    labels: Labels


@dataclass(frozen=True)
class PhantomReport:
    """The two sections of a report, as sentences in order."""

    findings: tuple[Sentence, ...]
    impression: tuple[Sentence, ...]

    def sentences(self, section: Section) -> tuple[Sentence, ...]:
        """Return the sentences of a section of a study."""
        if section == "findings":
            return self.findings
        return self.impression if section == "impression" else self.findings + self.impression


_HEART = ("Cardiomegaly",)
_BOTH = ("Cardiomegaly", "Enlarged Cardiomediastinum")
_NORMAL_HEART: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("The heart is normal in size.", _HEART),
    ("Heart size is within normal limits.", _HEART),
    ("The cardiac silhouette is normal in size.", _HEART),
    ("The heart size and mediastinal contours are normal.", _BOTH),
    ("Heart size and mediastinal contours are within normal limits.", _BOTH),
    ("There is no cardiomegaly and the mediastinal contours are unremarkable.", _BOTH),
)
_MEDIASTINUM: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("The mediastinal contours are within normal limits.", ("Enlarged Cardiomediastinum",)),
    ("The mediastinum is normal in width.", ("Enlarged Cardiomediastinum",)),
)
_CLEAR_LUNGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("The lungs are clear.", ()),
    ("Both lungs are clear and well expanded.", ()),
    ("The lungs are well expanded without focal consolidation.", ("Consolidation",)),
    (
        "The lungs are clear, with no focal consolidation or pulmonary edema.",
        ("Consolidation", "Edema"),
    ),
    ("Lung volumes are normal and the lungs are clear.", ()),
)
_NO: dict[str, tuple[str, ...]] = {
    "Consolidation": ("No focal consolidation is seen.", "There is no focal consolidation."),
    "Edema": ("There is no pulmonary edema.", "No evidence of pulmonary edema."),
    "Pneumothorax": (
        "There is no pneumothorax.",
        "No pneumothorax is identified.",
        "No evidence of pneumothorax.",
    ),
    "Pleural Effusion": ("There is no pleural effusion.", "No pleural effusion is seen."),
    "Lung Lesion": (
        "No pulmonary nodule or mass is seen.",
        "There is no suspicious pulmonary nodule.",
    ),
}
_NO_PLEURA = (
    "No pleural effusion or pneumothorax is seen.",
    "There is no pneumothorax or pleural effusion.",
    "There is no evidence of pleural effusion or pneumothorax.",
    "No pneumothorax or pleural effusion.",
)
_BONES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("The visualized bony structures are intact.", ()),
    ("The bones are unremarkable.", ()),
    ("No acute fracture is identified.", ("Fracture",)),
    ("There is no acute displaced fracture.", ("Fracture",)),
)
_AIRWAY: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("The trachea is midline.", ()),
    ("The hilar contours are unremarkable.", ()),
    ("The soft tissues are unremarkable.", ()),
)
_VESSELS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("The pulmonary vascularity is normal.", ()),
    ("Pulmonary vasculature is within normal limits.", ()),
)
# Sentences on unremarkable parts are added until a report has so many words (drawn from this range,
# the end excluded), about as many as real findings have.
_WORDS_WANTED = (25, 34)
_MAX_SENTENCES = 6
_ZONES = {
    "upper": ("upper lung zone", "upper zone", "upper lung"),
    "mid": ("mid lung zone", "mid zone", "mid lung"),
    "lower": ("lower lung zone", "lower zone", "lower lung"),
}
_WORDS = {
    "small": ("small",),
    "moderate": ("moderate",),
    "large": ("large",),
    "mild": ("mild",),
    "severe": ("severe", "marked"),
}
_ADVERBS = {"mild": ("mildly",), "moderate": ("moderately",), "severe": ("severely", "markedly")}

_POSITIVE: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "cardiomegaly": (
        ("Cardiomegaly",),
        (
            "The heart is {adverb} enlarged.",
            "There is {word} cardiomegaly.",
            "The cardiac silhouette is {adverb} enlarged.",
            "{Word} enlargement of the cardiac silhouette is present.",
        ),
    ),
    "pleural effusion": (
        ("Pleural Effusion",),
        (
            "There is a {word} {side} pleural effusion.",
            "A {word} {side} pleural effusion is present.",
            "{Word} {side}-sided pleural effusion is noted.",
            "A {word} pleural effusion is seen on the {side}.",
        ),
    ),
    "bilateral effusion": (
        ("Pleural Effusion",),
        (
            "There are {word} bilateral pleural effusions.",
            "Bilateral {word} pleural effusions are present.",
            "{Word} pleural effusions are seen on both sides.",
        ),
    ),
    "pneumothorax": (
        ("Pneumothorax",),
        (
            "There is a {word} {side} pneumothorax.",
            "A {word} {side}-sided pneumothorax is present.",
            "{Word} {side} pneumothorax with a visible pleural edge.",
            "A {word} pneumothorax is seen on the {side}.",
        ),
    ),
    "consolidation": (
        ("Consolidation", "Lung Opacity"),
        (
            "There is an airspace opacity in the {side} {zone}, consistent with consolidation.",
            "Focal opacity in the {side} {zone} represents consolidation.",
            "Patchy consolidation with dense opacity is seen in the {side} {zone}.",
            "The {side} {zone} contains a confluent opacity compatible with consolidation.",
        ),
    ),
    "edema": (
        ("Edema",),
        (
            "There is {word} pulmonary edema.",
            "{Word} pulmonary edema with vascular congestion.",
            "Perihilar vascular congestion is present, with {word} pulmonary edema.",
            "Increased perihilar markings are in keeping with {word} pulmonary edema.",
        ),
    ),
    "atelectasis": (
        ("Atelectasis",),
        (
            "There is bandlike atelectasis at the {side} lung base.",
            "Linear atelectasis is seen at the {side} base.",
            "Subsegmental atelectasis at the {side} lung base.",
            "{Side} basilar atelectasis is present.",
        ),
    ),
    "nodule": (
        ("Lung Lesion",),
        (
            "There is a pulmonary nodule in the {side} {zone}.",
            "A round nodule is present in the {side} {zone}.",
            "A well-defined nodule projects over the {side} {zone}.",
            "The {side} {zone} contains a solitary pulmonary nodule.",
        ),
    ),
    "pacemaker": (
        ("Support Devices",),
        (
            "A {side}-sided pacemaker is in place with its lead over the right ventricle.",
            "{Side} chest pacemaker, lead tip in the right ventricle.",
            "There is a pacemaker in the {side} chest wall.",
        ),
    ),
    "central line": (
        ("Support Devices",),
        (
            "A {side} central venous catheter ends in the superior vena cava.",
            "{Side} internal jugular central line with its tip in the superior vena cava.",
            "The tip of a {side} central venous catheter is in the superior vena cava.",
        ),
    ),
}
_NO_ACUTE = (
    "No acute cardiopulmonary abnormality.",
    "Normal chest radiograph.",
    "No acute disease.",
    "No acute cardiopulmonary process.",
)
_SHORT = {
    "cardiomegaly": "{Word} cardiomegaly.",
    "pleural effusion": "{Word} {side} pleural effusion.",
    "bilateral effusion": "{Word} bilateral pleural effusions.",
    "pneumothorax": "{Word} {side} pneumothorax.",
    "consolidation": "{Side} {zone} opacity representing consolidation.",
    "edema": "{Word} pulmonary edema.",
    "atelectasis": "{Side} basilar atelectasis.",
    "nodule": "{Side} {zone} pulmonary nodule.",
    "pacemaker": "{Side} pacemaker in place.",
    "central line": "{Side} central venous catheter in the superior vena cava.",
}
_LUNG_KINDS = ("consolidation", "edema", "atelectasis", "nodule")


def write_report(rng: np.random.Generator, findings: Sequence[Finding]) -> PhantomReport:
    """Write the report of one film: three to six sentences of findings, and an impression."""
    # The order of the draws is part of the phantom's version: another one gives other reports.
    kinds: set[str] = {finding.kind for finding in findings}
    stated: dict[str, list[Sentence]] = {}
    for kind in _POSITIVE:
        stated[kind] = [_positive(rng, one) for one in findings if one.kind == kind]
    heart = stated["cardiomegaly"] or [_negative(rng, _NORMAL_HEART)]
    if "cardiomegaly" in kinds and rng.random() < 0.3:
        heart.append(_negative(rng, _MEDIASTINUM))
    lungs = [sentence for kind in _LUNG_KINDS for sentence in stated[kind]]
    pleura = stated["pleural effusion"] + stated["pneumothorax"]
    devices = stated["pacemaker"] + stated["central line"]
    blocks = [heart, _lungs(rng, kinds, lungs), _pleura(rng, kinds, pleura)]
    # In half of the reports the order is the usual one.
    if rng.random() < 0.5:
        blocks = [blocks[index] for index in rng.permutation(3)]
    body = list(chain.from_iterable(blocks))
    body = devices + body if rng.random() < 0.5 else body + devices
    return PhantomReport(tuple(_filled(rng, kinds, body)), _impression(rng, findings))


def _filled(rng: np.random.Generator, kinds: set[str], body: list[Sentence]) -> list[Sentence]:
    """Add sentences on unremarkable parts, until the report has its usual length."""
    more = [_negative(rng, _BONES), _negative(rng, _AIRWAY)]
    if "edema" not in kinds:
        more.append(_negative(rng, _VESSELS))
    wanted = rng.integers(_WORDS_WANTED[0], _WORDS_WANTED[1])
    for index in rng.permutation(len(more)):
        if len(body) < _MAX_SENTENCES and len(text_of(body).split()) < wanted:
            body = [*body, more[index]]
    return body


def text_of(sentences: Iterable[Sentence]) -> str:
    """Return the sentences as one text."""
    return " ".join(sentence.text for sentence in sentences)


def labels_of(sentences: Iterable[Sentence]) -> dict[str, int]:
    """Return the CheXbert labels that the sentences state; a class without mention is absent.

    "No Finding" is positive when nothing but a support device is, and some sentence speaks of
    anything but devices; otherwise it is absent, as CheXbert leaves it.
    """
    labels: dict[str, int] = {}
    is_examined = False
    for sentence in sentences:
        is_examined = is_examined or sentence.labels.keys() != {"Support Devices"}
        for label, value in sentence.labels.items():
            # One sentence may deny what another one states; the positive one counts.
            labels[label] = max(value, labels.get(label, value))
    found = [label for label, value in labels.items() if value == POSITIVE]
    if is_examined and set(found) <= {"Support Devices"}:
        labels["No Finding"] = POSITIVE
    return labels


def _lungs(rng: np.random.Generator, kinds: set[str], stated: list[Sentence]) -> list[Sentence]:
    if not stated:
        # With fluid or air around a lung, no radiologist calls the lungs clear.
        if kinds & {"pleural effusion", "pneumothorax"}:
            return [_none_of(rng, str(rng.choice(["Consolidation", "Edema"])))]
        return [_negative(rng, _CLEAR_LUNGS)]
    absent = [label for kind, label in _LUNG_NEGATIVES if kind not in kinds]
    if len(stated) < 2 and rng.random() < 0.7:
        stated = [*stated, _none_of(rng, str(rng.choice(absent)))]
    return stated


_LUNG_NEGATIVES = (
    ("consolidation", "Consolidation"),
    ("edema", "Edema"),
    ("nodule", "Lung Lesion"),
)


def _pleura(rng: np.random.Generator, kinds: set[str], stated: list[Sentence]) -> list[Sentence]:
    if not stated:
        text = _NO_PLEURA[int(rng.integers(len(_NO_PLEURA)))]
        return [Sentence(text, {"Pleural Effusion": NEGATIVE, "Pneumothorax": NEGATIVE})]
    if "pneumothorax" not in kinds:
        return [*stated, _none_of(rng, "Pneumothorax")]
    return stated if "pleural effusion" in kinds else [*stated, _none_of(rng, "Pleural Effusion")]


def _impression(rng: np.random.Generator, findings: Sequence[Finding]) -> tuple[Sentence, ...]:
    if not findings:
        return (Sentence(str(rng.choice(_NO_ACUTE)), {}),)
    return tuple(_sentence(rng, _SHORT[_key(f)], f, _POSITIVE[_key(f)][0]) for f in findings)


def _key(finding: Finding) -> str:
    both = finding.kind == "pleural effusion" and finding.side == "bilateral"
    return "bilateral effusion" if both else finding.kind


def _positive(rng: np.random.Generator, finding: Finding) -> Sentence:
    labels, templates = _POSITIVE[_key(finding)]
    return _sentence(rng, str(rng.choice(templates)), finding, labels)


def _sentence(
    rng: np.random.Generator, template: str, finding: Finding, labels: Sequence[str]
) -> Sentence:
    words = {
        "word": str(rng.choice(_WORDS.get(finding.severity, ("",)))),
        "adverb": str(rng.choice(_ADVERBS.get(finding.severity, ("",)))),
        "side": finding.side,
        "zone": str(rng.choice(_ZONES.get(finding.zone, ("",)))),
    }
    capitals = {"Word": words["word"].capitalize(), "Side": words["side"].capitalize()}
    return Sentence(template.format(**words, **capitals), dict.fromkeys(labels, POSITIVE))


def _negative(rng: np.random.Generator, choices: Sequence[tuple[str, tuple[str, ...]]]) -> Sentence:
    text, labels = choices[int(rng.integers(len(choices)))]
    return Sentence(text, dict.fromkeys(labels, NEGATIVE))


def _none_of(rng: np.random.Generator, label: str) -> Sentence:
    return Sentence(str(rng.choice(_NO[label])), {label: NEGATIVE})
