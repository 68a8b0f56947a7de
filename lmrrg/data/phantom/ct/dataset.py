"""The phantom data set, version 2: films projected from a chest CT, with findings in space.

The truth names findings and all 29 regions. Every study depends only on the seed and its own number
(and its prior's), so the same seed gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmrrg.anatomy import REGIONS
from lmrrg.config.data import PhantomConfig
from lmrrg.data.importing import Import, complete_source
from lmrrg.data.phantom.ct.bodies import BODIES, FILM_VIEWS, POSES, Array, anatomy, projection
from lmrrg.data.phantom.ct.film import Setup, expose, moved_masks
from lmrrg.data.phantom.ct.findings import (
    DEGREES,
    DEVICES,
    SIZES,
    CTFinding,
    clash,
    place,
    sample_finding,
    sample_findings,
)
from lmrrg.data.phantom.ct.implant import Implant
from lmrrg.data.phantom.ct.masks import MASK_SIDE, write_masks
from lmrrg.data.phantom.ct.projection import FilmView
from lmrrg.data.phantom.ct.reports import ct_labels, write_ct_report
from lmrrg.data.phantom.drawn.dataset import write_dicom
from lmrrg.data.phantom.drawn.reports import text_of
from lmrrg.data.source import Source
from lmrrg.imaging.radiograph import MIN_SIDE
from lmrrg.progress import progress_bar
from lmrrg.studies import Section, Split, Study, StudyError, StudyImage

VERSION = 2
"""Part of every seed."""
REVISION = 2
"""Raised when the same seed gives other films, so that a run draws them again."""
_RETURN_PROBABILITY = 0.2
"""Of a study being the second one of the patient before."""
_NEW_FINDING_PROBABILITY = 0.3
"""Of a second study having a finding that the first one had not."""
_GONE_PROBABILITY = 0.25
"""Of a finding of the first study being gone at the second."""
_INDICATIONS = (
    "Shortness of breath.",
    "Cough and fever.",
    "Chest pain.",
    "After a fall.",
    "Line placement.",
    "",
)
_LASTING = ("pacemaker", "hyperinflation", "rib fracture", "nodule", "cardiomegaly")
"""Kinds that are still there at the second study."""
_ACUTE = ("pleural effusion", "consolidation", "pneumothorax", "central line")
"""Kinds that may be new at the second study."""
_STEP_OF_CHANGE = {"larger": 1, "smaller": -1}


@dataclass(frozen=True)
class _Plan:
    """The numbers of a study, its patient, and the patient's first study (``prior``)."""

    number: int
    patient: int
    split: Split
    prior: int | None


@dataclass(frozen=True)
class Film:
    """One view.

    Attributes:
        pixels: brightness [S, S] in [0, 1].
        masks: the regions, bool [29, 64, 64].
        boxes: left, top, right, bottom of each finding in pixels; ``None`` where it does not show.
    """

    pixels: Array
    masks: NDArray[np.bool_]
    boxes: list[list[int] | None]


def import_ct_phantoms(
    folder: Path,
    counts: PhantomConfig,
    cache: Path,
    *,
    seed: int,
    section: Section = "findings",
    progress: bool = True,
) -> Import:
    """Write two films and the region masks of every study into ``folder``, and return the studies.

    Args:
        folder: made when missing.
        counts: studies per split, and the rows and columns of each film (at least 64).
        cache: folder of the projections, made at first use (about a minute) and shared by all
            seeds.
        seed: the same seed gives the same bytes.
        section: labels follow the text of this section.
        progress: whether to show a progress bar.

    Raises:
        CTError: ``ct_missing`` or ``ct_damaged``.
        StudyError: ``phantom_size``, for an image too small to read back.
    """
    if counts.image_size < MIN_SIDE:
        message = f"a phantom needs at least {MIN_SIDE} pixels, not {counts.image_size}"
        raise StudyError("phantom_size", message)
    # Fails fast: a missing CT is an error before anything is written.
    anatomy()
    folder.mkdir(parents=True, exist_ok=True)
    plans = progress_bar(
        list(_plans(counts, seed)), desc="phantoms", unit="study", disable=not progress
    )
    studies = [_make_study(folder, plan, counts.image_size, cache, seed, section) for plan in plans]
    source = Source("phantom", studies, notes={"phantom version": str(VERSION)})
    return complete_source(source, section=section, seed=seed)


def _plans(counts: PhantomConfig, seed: int) -> Iterator[_Plan]:
    """Yield the plan of every study; a patient has one or two studies, in one split."""
    rng = np.random.default_rng([VERSION, seed])
    number = 0
    patient = 0
    splits: tuple[tuple[Split, int], ...] = (
        ("train", counts.train),
        ("val", counts.val),
        ("test", counts.test),
    )
    for split, count in splits:
        # Whether the study before is of this split and the first one of its patient.
        may_return = False
        for _ in range(count):
            returns = rng.random() < _RETURN_PROBABILITY and may_return
            may_return = not returns
            if not returns:
                patient += 1
            yield _Plan(number, patient, split, prior=number - 1 if returns else None)
            number += 1


def findings_of(number: int, prior: int | None, seed: int) -> tuple[list[CTFinding], list[str]]:
    """Return the findings of a study, and the kinds that its prior had and it has no longer.

    Args:
        number: number of the study.
        prior: number of the patient's first study; ``None`` for a first study.
        seed: of the data set.

    Returns:
        The findings with their points in space, and the kinds. Devices that were removed are left
        out of the kinds: no report mentions them.
    """
    rng = np.random.default_rng([VERSION, seed, number, 0])
    if prior is None:
        return [place(finding, anatomy(), rng) for finding in sample_findings(rng)], []
    before, _ = findings_of(prior, None, seed)
    after = [_later(finding, rng) for finding in before]
    now = [finding for finding in after if finding is not None]
    gone = [old.kind for old, new in zip(before, after, strict=True) if new is None]
    if rng.random() < _NEW_FINDING_PROBABILITY and len(now) < 3:
        extra = sample_finding(str(rng.choice(_ACUTE)), rng)
        kinds = {finding.kind for finding in now}
        fits = not any(clash(extra, other) for other in now)
        if fits and extra.kind not in kinds.union(gone):
            now.append(replace(place(extra, anatomy(), rng), change="new"))
    return now, [kind for kind in gone if kind not in DEVICES]


def _later(finding: CTFinding, rng: np.random.Generator) -> CTFinding | None:
    """Return the same finding at the next study; ``None`` when it is gone."""
    if finding.kind not in _LASTING and rng.random() < _GONE_PROBABILITY:
        return None
    # "moderate" is in both scales, so the kind decides.
    scale = DEGREES if finding.kind in ("cardiomegaly", "edema") else SIZES
    change = str(rng.choice(["unchanged", "larger", "smaller"], p=(0.4, 0.3, 0.3)))
    if finding.severity and change in _STEP_OF_CHANGE:
        step = scale.index(finding.severity) + _STEP_OF_CHANGE[change]
        # An effusion on both sides is never large, as with those of first studies.
        is_allowed = finding.side != "bilateral" or finding.kind == "edema" or step < 2
        if 0 <= step < len(scale) and is_allowed:
            return replace(finding, severity=scale[step], change=change)
    return replace(finding, change="unchanged")


def films_of(
    findings: list[CTFinding], size: int, cache: Path, *, patient: list[int], study: list[int]
) -> dict[FilmView, Film]:
    """Return both views with the same findings in the same body.

    Args:
        findings: with their points in space.
        size: rows and columns of a film.
        cache: folder of the projections.
        patient: seed of the patient.
        study: seed of the study.
    """
    person = np.random.default_rng([*patient, 1])
    pose = np.random.default_rng([*study, 1])
    shape = _body_shape(findings)
    # Drawn from 60 for any shape, so that a patient keeps the other numbers of its stream; 60 can
    # be divided by every number of bodies.
    body = int(person.integers(60)) % len(BODIES[shape])
    turn = int(pose.integers(len(POSES)))
    setup = Setup.sample(person, pose)
    films = {}
    for view in FILM_VIEWS:
        film = projection(cache, shape, body, turn, view)
        implant = Implant(film, anatomy(), view, POSES[turn])
        films[view] = _film(implant, findings, setup, size, study)
    return films


def _body_shape(findings: list[CTFinding]) -> str:
    """Return the key of :data:`BODIES` for a body with these findings."""
    severity_of = {finding.kind: finding.severity for finding in findings}
    if "hyperinflation" in severity_of:
        return "hyperinflation"
    return severity_of.get("cardiomegaly", "")


def _film(
    implant: Implant, findings: list[CTFinding], setup: Setup, size: int, study: list[int]
) -> Film:
    masks = moved_masks(implant.film.masks, setup)
    boxes: list[list[int] | None] = []
    for index, finding in enumerate(findings):
        before = implant.change.copy()
        # The seed does not depend on the view, so that both views show the same.
        implant.add(finding, np.random.default_rng([*study, 2, index]))
        if finding.kind == "cardiomegaly":
            heart = masks[REGIONS.index("cardiac silhouette")]
            boxes.append(_box(heart, size / MASK_SIDE))
        else:
            shown = np.abs(setup.moved(implant.change - before, size))
            # A quarter of the strongest change, and at least 0.5 mm of water.
            boxes.append(_box(shown > max(0.25 * float(shown.max()), 0.5), 1.0))
    view = implant.view
    noise = np.random.default_rng([*study, 3, FILM_VIEWS.index(view)])
    pixels = expose(implant.film, implant.change, setup, view, size, noise)
    return Film(pixels, masks, boxes)


def _make_study(
    folder: Path, plan: _Plan, size: int, cache: Path, seed: int, section: Section
) -> Study:
    study_seed = [VERSION, seed, plan.number]
    patient_seed = [VERSION, seed, plan.patient, 9]
    findings, gone = findings_of(plan.number, plan.prior, seed)
    films = films_of(findings, size, cache, patient=patient_seed, study=study_seed)
    wording = np.random.default_rng([*study_seed, 4])
    report = write_ct_report(wording, findings, gone)
    name = _name(plan.number)
    masks = f"{name}.regions.npz"
    write_masks(folder / masks, np.stack([film.masks for film in films.values()]))
    return Study(
        id=name,
        patient=f"phantom-ct-patient-{plan.patient:05d}",
        images=_write_films(folder, plan, films, seed),
        findings=text_of(report.findings),
        impression=text_of(report.impression),
        indication=str(wording.choice(_INDICATIONS)),
        comparison="" if plan.prior is None else "Prior chest radiograph.",
        labels=ct_labels(findings, report.sentences(section)),
        split=plan.split,
        source=f"phantom-v{VERSION}",
        prior=None if plan.prior is None else _name(plan.prior),
        truth=_truth(findings, films, size) | {"masks": masks},
    )


def _write_films(
    folder: Path, plan: _Plan, films: dict[FilmView, Film], seed: int
) -> tuple[StudyImage, ...]:
    acquisition = np.random.default_rng([VERSION, seed, plan.number, 5])
    images = []
    for view, film in films.items():
        path = folder / f"{_name(plan.number)}-{view.lower()}.dcm"
        write_dicom(
            path,
            film.pixels,
            acquisition,
            view=view.upper(),
            patient=plan.patient,
            entropy=f"{VERSION}/{seed}/{plan.number}/{view.lower()}",
            version=VERSION,
        )
        images.append(StudyImage(path, view))
    return tuple(images)


def _truth(findings: list[CTFinding], films: dict[FilmView, Film], size: int) -> dict[str, Any]:
    """Return the findings with their boxes per view, and the boxes of the regions per view."""
    facts = []
    for index, finding in enumerate(findings):
        known = {key: value for key, value in asdict(finding).items() if value not in ("", None)}
        known["type"] = known.pop("kind")
        boxes = {view: film.boxes[index] for view, film in films.items()}
        known["boxes"] = {view: box for view, box in boxes.items() if box}
        facts.append(known)
    regions = {view: _region_boxes(film.masks, size) for view, film in films.items()}
    return {"findings": facts, "regions": regions}


def _region_boxes(masks: NDArray[np.bool_], size: int) -> dict[str, list[int]]:
    """Return the boxes of the regions that show, in pixels of the film, by their names."""
    boxes = {}
    for name, mask in zip(REGIONS, masks, strict=True):
        box = _box(mask, size / MASK_SIDE)
        if box:
            boxes[name] = box
    return boxes


def _box(mask: NDArray[np.bool_], scale: float) -> list[int] | None:
    """Return the box around a mask: left, top, right, bottom, half open.

    Args:
        mask: of any size.
        scale: pixels of the film per pixel of the mask.

    Returns:
        Pixels of the film; ``None`` where the mask is empty.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    edges = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    return [round(float(edge) * scale) for edge in edges]


def _name(number: int) -> str:
    return f"phantom-ct-{number:05d}"
