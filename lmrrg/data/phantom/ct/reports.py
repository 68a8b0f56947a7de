"""Reports of CT phantoms: phrases put together from parts, so that no class has a template (sentences are ours).

A sentence about a finding is a frame (where the finding stands in it) around a noun phrase (degree, side, name, place),
so the number of wordings is the product of its parts. Order, negatives, impression and the change against a prior are
drawn as well. Labels are those of the facts and of the negatives that were written.
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
_LUNG = {
    "pleural effusion",
    "pneumothorax",
    "consolidation",
    "edema",
    "atelectasis",
    "nodule",
    "hyperinflation",
}


def write_ct_report(
    rng: np.random.Generator, findings: Sequence[CTFinding], gone: Sequence[str] = ()
) -> PhantomReport:
    """Write findings and impression; ``gone`` are kinds that the prior had and this film has no longer."""
    kinds = {finding.kind for finding in findings}
    stated = [[_state(rng, finding)] for finding in findings]
    normal: list[list[Sentence]] = []
    if "cardiomegaly" not in kinds:
        normal.append([_free(rng, _HEART, {"Cardiomegaly": NEGATIVE})])
    if rng.random() < 0.4:
        normal.append([_free(rng, _WIDTH, {"Enlarged Cardiomediastinum": NEGATIVE})])
    if not kinds & _LUNG and rng.random() < 0.7:
        normal.append([_free(rng, _CLEAR, {})])
    normal += [[sentence] for sentence in _negatives(rng, kinds, gone)]
    normal += [
        [_free(rng, (str(text),), {})]
        for text in rng.choice(_REST, size=rng.integers(0, 3), replace=False)
    ]
    blocks = _ordered(rng, stated, normal)
    resolved = [
        Sentence(f"The previous {kind} has resolved.", _values(kind, NEGATIVE)) for kind in gone
    ]
    return PhantomReport(
        tuple(s for block in blocks for s in block) + tuple(resolved), _impression(rng, findings)
    )


def ct_labels(findings: Sequence[CTFinding], sentences: Sequence[Sentence]) -> dict[str, int]:
    """The labels that sentences state; "No Finding" only where the film shows nothing but devices."""
    labels = labels_of(sentences)
    if any(LABELS_OF[finding.kind] != ("Support Devices",) for finding in findings):
        labels.pop("No Finding", None)
    return labels


def _ordered(
    rng: np.random.Generator, stated: list[list[Sentence]], normal: list[list[Sentence]]
) -> list[list[Sentence]]:
    """Findings first, in between, or all in one random order."""
    normal = [normal[i] for i in rng.permutation(len(normal))]
    if rng.random() < 0.5:
        return stated + normal
    blocks = stated + normal
    return [blocks[i] for i in rng.permutation(len(blocks))]


def _negatives(rng: np.random.Generator, kinds: set[str], gone: Sequence[str]) -> list[Sentence]:
    """One to three sentences that deny findings, some two at once."""
    positive = {label for kind in kinds for label in LABELS_OF[kind]}
    told = {label for kind in gone for label in LABELS_OF[kind]}
    absent = [label for label in _ABSENT if label not in positive | told]
    absent = [str(label) for label in rng.permutation(absent)][: int(rng.integers(1, 5))]
    sentences = []
    while absent:
        taken, absent = (
            (absent[:2], absent[2:]) if rng.random() < 0.55 else (absent[:1], absent[1:])
        )
        words = " or ".join(str(rng.choice(_ABSENT[label])) for label in taken)
        sentences.append(
            Sentence(str(rng.choice(_NONE)).format(x=words), dict.fromkeys(taken, NEGATIVE))
        )
    return sentences


def _impression(rng: np.random.Generator, findings: Sequence[CTFinding]) -> tuple[Sentence, ...]:
    if not findings:
        return (_free(rng, _HEALTHY, {}),)
    chosen = [findings[i] for i in rng.permutation(len(findings))]
    lines = [
        (_capital(_noun(rng, f)) + _changed(rng, f, 0.5) + ".", _values(f.kind, POSITIVE))
        for f in chosen
    ]
    numbered = len(lines) > 1 and rng.random() < 0.4
    return tuple(
        Sentence(f"{i}. {t}" if numbered else t, v) for i, (t, v) in enumerate(lines, start=1)
    )


def _state(rng: np.random.Generator, finding: CTFinding) -> Sentence:
    noun = _noun(rng, finding)
    doubtful = finding.kind in ("consolidation", "atelectasis", "nodule") and not finding.change
    if doubtful and rng.random() < 0.06:
        text = str(rng.choice(_HEDGED)).format(n=noun, N=_capital(noun))
        return Sentence(text, _values(finding.kind, UNCERTAIN))
    plural = "effusions" in noun
    frames = _PLURAL if plural else _FRAME
    again = finding.change == "unchanged"
    frame = str(rng.choice([frame for frame in frames if again or not frame.startswith("Again")]))
    one = (
        noun
        if finding.kind in ("atelectasis", "hyperinflation", "edema", "cardiomegaly")
        else _article(noun)
    )
    text = frame.format(a=one, A=_capital(one), n=noun, N=_capital(noun))
    return Sentence(text[:-1] + _changed(rng, finding, 1.0) + ".", _values(finding.kind, POSITIVE))


def _noun(rng: np.random.Generator, finding: CTFinding) -> str:
    both = finding.kind == "pleural effusion" and finding.side == "bilateral"
    forms = _NOUN["pleural effusion both" if both else finding.kind]
    sizeless = finding.severity == "moderate" and finding.kind in ("cardiomegaly", "edema")
    degrees: Sequence[str] = _MODERATE if sizeless else _DEGREE.get(finding.severity, ("",))
    places = _PLACE.get(finding.zone, ("",))
    words = {"d": str(rng.choice(degrees)), "s": finding.side, "p": str(rng.choice(places))}
    return str(rng.choice(forms)).format(**words).strip()


def _changed(rng: np.random.Generator, finding: CTFinding, chance: float) -> str:
    if not finding.change or rng.random() >= chance:
        return ""
    return ", " + str(rng.choice(_CHANGE[finding.change]))


def _values(kind: str, value: int) -> Mapping[str, int]:
    return dict.fromkeys(LABELS_OF[kind], value)


def _free(rng: np.random.Generator, texts: Sequence[str], labels: Mapping[str, int]) -> Sentence:
    return Sentence(str(rng.choice(texts)), labels)


def _article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
