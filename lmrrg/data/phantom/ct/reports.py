"""Reports of CT phantoms: phrases put together from parts, so that no class has a fixed sentence.

A sentence about a finding is a frame (where the finding stands in it) around a noun phrase (degree,
side, name, place), so the number of wordings is the product of its parts. Order, negatives,
impression and the change against a prior are drawn as well. Labels are those of the facts and of
the negatives that were written. The sentences are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lmrrg.data.phantom.ct.findings import CTFinding
from lmrrg.data.phantom.drawn.reports import PhantomReport, Sentence, labels_of
from lmrrg.studies import NEGATIVE, POSITIVE, UNCERTAIN

LABELS_OF: dict[str, tuple[str, ...]] = {
    "cardiomegaly": ("Cardiomegaly",),
    "pleural effusion": ("Pleural Effusion",),
    "pneumothorax": ("Pneumothorax",),
    "consolidation": ("Consolidation",),
    "edema": ("Edema",),
    "atelectasis": ("Atelectasis",),
    "nodule": ("Lung Lesion",),
    "rib fracture": ("Fracture",),
    "hyperinflation": (),
    "pacemaker": ("Support Devices",),
    "central line": ("Support Devices",),
    "endotracheal tube": ("Support Devices",),
}
_DEGREE = {
    "small": ("small", "minor", "minimal"),
    "moderate": ("moderate", "moderately sized", "medium"),
    "large": ("large", "sizable", "extensive"),
    "mild": ("mild", "slight", "minimal"),
    "severe": ("severe", "marked", "pronounced"),
}
_MODERATE = ("moderate", "moderately severe")
_PLACE = {
    "upper": ("upper lung zone", "upper lung", "upper zone", "upper hemithorax"),
    "mid": ("mid lung zone", "mid lung", "middle zone", "perihilar mid lung"),
    "lower": ("lower lung zone", "lower lung", "lower zone", "lung base"),
}
# {d} is the degree, {s} the side, {p} the place.
_NOUN: dict[str, tuple[str, ...]] = {
    "cardiomegaly": (
        "{d} cardiomegaly",
        "{d} enlargement of the cardiac silhouette",
        "{d} cardiac enlargement",
    ),
    "pleural effusion": (
        "{d} {s} pleural effusion",
        "{d} {s} effusion",
        "{d} {s} pleural fluid collection",
    ),
    "pleural effusion both": ("{d} bilateral pleural effusions", "{d} effusions on both sides"),
    "pneumothorax": ("{d} {s} pneumothorax", "{d} {s}-sided pneumothorax"),
    "consolidation": (
        "focal consolidation in the {s} {p}",
        "{s} {p} consolidation",
        "area of consolidation in the {s} {p}",
        "patchy consolidation projecting over the {s} {p}",
    ),
    "edema": (
        "{d} pulmonary edema",
        "{d} interstitial edema",
        "{d} pulmonary edema, worst around the hila",
    ),
    "atelectasis": (
        "linear atelectasis at the {s} base",
        "{s} basilar atelectasis",
        "plate-like atelectasis in the {s} lower lung",
        "bandlike {s} lower lobe atelectasis",
    ),
    "nodule": (
        "pulmonary nodule in the {s} {p}",
        "{s} {p} nodule",
        "solitary nodule overlying the {s} {p}",
    ),
    "rib fracture": (
        "displaced {s} rib fracture",
        "fracture of a {s} lateral rib",
        "acute {s}-sided rib fracture",
    ),
    "hyperinflation": (
        "hyperinflation of both lungs",
        "hyperinflation with flattened hemidiaphragms",
    ),
    "pacemaker": (
        "{s} chest wall pacemaker with its lead in the right ventricle",
        "{s}-sided pacemaker",
    ),
    "central line": (
        "{s} internal jugular central venous catheter ending in the superior vena cava",
        "{s} central line with its tip in the superior vena cava",
    ),
    "endotracheal tube": (
        "endotracheal tube with its tip above the carina",
        "endotracheal tube ending in the mid trachea",
        "endotracheal tube terminating above the carina",
        "endotracheal tube in standard position",
    ),
}
# {n} is the noun phrase, {a} the same with its article, {N} and {A} the same with a capital.
_FRAME = (
    "There is {a}.",
    "{A} is present.",
    "{A} is seen.",
    "{A} is noted.",
    "{N}.",
    "The film shows {a}.",
    "Again there is {a}.",
)
_PLURAL = ("There are {n}.", "{N} are present.", "{N} are seen.", "{N}.", "Again there are {n}.")
_CHANGE = {
    "new": (
        "which is new since the prior study",
        "new from the prior radiograph",
        "not present previously",
    ),
    "larger": (
        "increased since the prior study",
        "larger than on the prior radiograph",
        "with interval worsening",
    ),
    "smaller": (
        "decreased since the prior study",
        "smaller than before",
        "with interval improvement",
    ),
    "unchanged": (
        "unchanged since the prior study",
        "stable from the prior radiograph",
        "similar to before",
    ),
}
_HEDGED = ("Possible {n}.", "Findings may represent {n}.", "{N} cannot be excluded.")
_ABSENT: dict[str, tuple[str, ...]] = {
    "Pleural Effusion": ("pleural effusion", "effusion"),
    "Pneumothorax": ("pneumothorax",),
    "Consolidation": ("focal consolidation", "consolidation"),
    "Edema": ("pulmonary edema", "edema"),
    "Fracture": ("acute fracture", "displaced fracture"),
    "Lung Lesion": ("pulmonary nodule", "nodule or mass"),
}
_NONE = (
    "No {x}.",
    "There is no {x}.",
    "No evidence of {x}.",
    "No {x} is seen.",
    "No {x} is identified.",
)
_HEART = (
    "The heart is normal in size.",
    "Heart size is normal.",
    "Heart size is within normal limits.",
    "The cardiac silhouette is not enlarged.",
    "Normal heart size.",
    "The heart is not enlarged.",
)
_WIDTH = (
    "The mediastinum is normal.",
    "Mediastinal contours are normal.",
    "The mediastinal contours are unremarkable.",
)
_CLEAR = (
    "The lungs are clear.",
    "Both lungs are clear.",
    "Clear lungs.",
    "The lungs are well aerated and clear.",
)
_REST = (
    "The trachea is midline.",
    "The hila are normal.",
    "The osseous structures are unremarkable.",
    "The visualized upper abdomen is unremarkable.",
    "The soft tissues are unremarkable.",
)
_HEALTHY = (
    "No acute cardiopulmonary process.",
    "Normal chest radiograph.",
    "No acute abnormality.",
    "Normal study.",
)
_LUNG_KINDS = {
    "pleural effusion",
    "pneumothorax",
    "consolidation",
    "edema",
    "atelectasis",
    "nodule",
    "hyperinflation",
}
_DOUBTFUL_KINDS = ("consolidation", "atelectasis", "nodule")
_UNCOUNTABLE_KINDS = ("atelectasis", "hyperinflation", "edema", "cardiomegaly")


def write_ct_report(
    rng: np.random.Generator, findings: Sequence[CTFinding], gone: Sequence[str] = ()
) -> PhantomReport:
    """Write findings and impression.

    Args:
        rng: draws the wording.
        findings: those that the films show.
        gone: kinds that the prior had and these films have no longer.
    """
    # The order of the draws is part of the phantom's version: another one gives other reports.
    kinds = {finding.kind for finding in findings}
    stated = [_state(rng, finding) for finding in findings]
    normal: list[Sentence] = []
    if "cardiomegaly" not in kinds:
        normal.append(_one_of(rng, _HEART, {"Cardiomegaly": NEGATIVE}))
    if rng.random() < 0.4:
        normal.append(_one_of(rng, _WIDTH, {"Enlarged Cardiomediastinum": NEGATIVE}))
    if not kinds & _LUNG_KINDS and rng.random() < 0.7:
        normal.append(_one_of(rng, _CLEAR, {}))
    normal += _negatives(rng, kinds, gone)
    for text in rng.choice(_REST, size=rng.integers(0, 3), replace=False):
        normal.append(_one_of(rng, (str(text),), {}))
    sentences = _ordered(rng, stated, normal)
    for kind in gone:
        text = f"The previous {kind} has resolved."
        sentences.append(Sentence(text, _labels(kind, NEGATIVE)))
    return PhantomReport(tuple(sentences), _impression(rng, findings))


def ct_labels(findings: Sequence[CTFinding], sentences: Sequence[Sentence]) -> dict[str, int]:
    """Return the labels that sentences state.

    "No Finding" is only kept where the films show nothing but devices: hyperinflation, for one,
    has no class of its own.
    """
    labels = labels_of(sentences)
    if any(LABELS_OF[finding.kind] != ("Support Devices",) for finding in findings):
        labels.pop("No Finding", None)
    return labels


def _ordered(
    rng: np.random.Generator, stated: list[Sentence], normal: list[Sentence]
) -> list[Sentence]:
    """Return all sentences: in half of the reports the findings first, else in random order."""
    normal = [normal[index] for index in rng.permutation(len(normal))]
    sentences = stated + normal
    if rng.random() < 0.5:
        return sentences
    return [sentences[index] for index in rng.permutation(len(sentences))]


def _negatives(rng: np.random.Generator, kinds: set[str], gone: Sequence[str]) -> list[Sentence]:
    """Return sentences that deny one to four classes, some of them two at once."""
    # A finding that has gone gets its own sentence.
    mentioned: set[str] = set()
    for kind in kinds.union(gone):
        mentioned.update(LABELS_OF[kind])
    absent = [label for label in _ABSENT if label not in mentioned]
    absent = [str(label) for label in rng.permutation(absent)][: int(rng.integers(1, 5))]
    sentences = []
    while absent:
        count = 2 if rng.random() < 0.55 else 1
        denied = absent[:count]
        absent = absent[count:]
        words = " or ".join(str(rng.choice(_ABSENT[label])) for label in denied)
        text = str(rng.choice(_NONE)).format(x=words)
        sentences.append(Sentence(text, dict.fromkeys(denied, NEGATIVE)))
    return sentences


def _impression(rng: np.random.Generator, findings: Sequence[CTFinding]) -> tuple[Sentence, ...]:
    """Return one line per finding, in random order, sometimes numbered."""
    if not findings:
        return (_one_of(rng, _HEALTHY, {}),)
    sentences = []
    for index in rng.permutation(len(findings)):
        finding = findings[index]
        text = _capitalised(_noun_phrase(rng, finding)) + _change(rng, finding, 0.5) + "."
        sentences.append(Sentence(text, _labels(finding.kind, POSITIVE)))
    if len(sentences) > 1 and rng.random() < 0.4:
        numbered = enumerate(sentences, start=1)
        return tuple(Sentence(f"{i}. {line.text}", line.labels) for i, line in numbered)
    return tuple(sentences)


def _state(rng: np.random.Generator, finding: CTFinding) -> Sentence:
    """Return a sentence that states a finding."""
    noun = _noun_phrase(rng, finding)
    may_be_doubtful = finding.kind in _DOUBTFUL_KINDS and not finding.change
    if may_be_doubtful and rng.random() < 0.06:
        text = str(rng.choice(_HEDGED)).format(n=noun, N=_capitalised(noun))
        return Sentence(text, _labels(finding.kind, UNCERTAIN))
    frames: Sequence[str] = _PLURAL if "effusions" in noun else _FRAME
    if finding.change != "unchanged":
        frames = [frame for frame in frames if not frame.startswith("Again")]
    frame = str(rng.choice(frames))
    one = noun if finding.kind in _UNCOUNTABLE_KINDS else _with_article(noun)
    text = frame.format(a=one, A=_capitalised(one), n=noun, N=_capitalised(noun))
    # The change goes before the full stop.
    text = text.removesuffix(".") + _change(rng, finding, 1.0) + "."
    return Sentence(text, _labels(finding.kind, POSITIVE))


def _noun_phrase(rng: np.random.Generator, finding: CTFinding) -> str:
    is_on_both_sides = finding.kind == "pleural effusion" and finding.side == "bilateral"
    forms = _NOUN["pleural effusion both" if is_on_both_sides else finding.kind]
    # "moderately sized" goes with effusions, not with an enlarged heart or an edema.
    has_no_size = finding.severity == "moderate" and finding.kind in ("cardiomegaly", "edema")
    degrees: Sequence[str] = _MODERATE if has_no_size else _DEGREE.get(finding.severity, ("",))
    places = _PLACE.get(finding.zone, ("",))
    words = {"d": str(rng.choice(degrees)), "s": finding.side, "p": str(rng.choice(places))}
    return str(rng.choice(forms)).format(**words).strip()


def _change(rng: np.random.Generator, finding: CTFinding, probability: float) -> str:
    """Return the change against the prior, with its comma, or "" if it is not mentioned."""
    if not finding.change or rng.random() >= probability:
        return ""
    return ", " + str(rng.choice(_CHANGE[finding.change]))


def _labels(kind: str, value: int) -> Mapping[str, int]:
    return dict.fromkeys(LABELS_OF[kind], value)


def _one_of(rng: np.random.Generator, texts: Sequence[str], labels: Mapping[str, int]) -> Sentence:
    return Sentence(str(rng.choice(texts)), labels)


def _with_article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]
