"""The phantom hospital, version 2: films projected from a chest CT, findings in space, truth for all 29 regions.

Every study depends only on the seed and its own number (and its prior's), so the same seed gives the same bytes.
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
from lmrrg.data.phantom.ct.bodies import BODIES, POSES, VIEWS, Array, anatomy, projection
from lmrrg.data.phantom.ct.film import Setup, expose, moved_masks
from lmrrg.data.phantom.ct.findings import (
    DEGREES,
    DEVICES,
    SIZES,
    CTFinding,
    Implant,
    clash,
    place,
    sample_finding,
    sample_findings,
)
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
REVISION = 2
"""Raised when the same seed gives other films, so that a run draws them again."""
_RETURN = 0.2
"""Share of studies that are the second one of the patient before."""
_INDICATIONS = (
    "Shortness of breath.",
    "Cough and fever.",
    "Chest pain.",
    "After a fall.",
    "Line placement.",
    "",
)
_LASTING = ("pacemaker", "hyperinflation", "rib fracture", "nodule")
_NEXT = {"larger": 1, "smaller": -1}


@dataclass(frozen=True)
class Plan:
    """Who a study is of; ``prior`` is the number of the same patient's first study."""

    number: int
    patient: int
    split: Split
    prior: int | None


@dataclass(frozen=True)
class Film:
    """One view: brightness [S, S], region masks bool [29, 64, 64], and a box per finding in pixels (or None)."""

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
    """Write two films and the region masks of every study into ``folder``; the studies come back with an audit.

    Args:
        cache: folder of the projections, made at first use (about a minute) and shared by all seeds.

    Raises:
        CTError: ``ct_missing`` or ``ct_damaged``.
        StudyError: ``phantom_size``, for an image too small to read back.
    """
    if counts.image_size < MIN_SIDE:
        raise StudyError(
            "phantom_size", f"a phantom needs at least {MIN_SIDE} pixels, not {counts.image_size}"
        )
    anatomy()  # a missing CT is told before anything is written
    folder.mkdir(parents=True, exist_ok=True)
    plan = progress_bar(
        list(_plans(counts, seed)), desc="phantoms", unit="study", disable=not progress
    )
    studies = [_make_study(folder, one, counts.image_size, cache, seed, section) for one in plan]
    source = Source("phantom", studies, notes={"phantom version": str(VERSION)})
    return complete_source(source, section=section, seed=seed)


def _plans(counts: PhantomConfig, seed: int) -> Iterator[Plan]:
    rng = np.random.default_rng([VERSION, seed])
    number = patient = 0
    splits: tuple[tuple[Split, int], ...] = (
        ("train", counts.train),
        ("val", counts.val),
        ("test", counts.test),
    )
    for split, count in splits:
        first = False
        for _ in range(count):
            again = rng.random() < _RETURN and first
            first = not again
            patient += not again
            yield Plan(number, patient, split, number - 1 if again else None)
            number += 1


def findings_of(number: int, prior: int | None, seed: int) -> tuple[list[CTFinding], list[str]]:
    """The findings of a study, placed, and the kinds that the prior had and this study has no longer."""
    rng = np.random.default_rng([VERSION, seed, number, 0])
    if prior is None:
        return [place(finding, anatomy(), rng) for finding in sample_findings(rng)], []
    before, _ = findings_of(prior, None, seed)
    after = [_later(finding, rng) for finding in before]
    now = [finding for finding in after if finding is not None]
    gone = [old.kind for old, new in zip(before, after, strict=True) if new is None]
    if rng.random() < 0.3 and len(now) < 3:
        extra = sample_finding(
            str(rng.choice(["pleural effusion", "consolidation", "pneumothorax", "central line"])),
            rng,
        )
        if extra.kind not in gone and not any(
            clash(extra, other) or extra.kind == other.kind for other in now
        ):
            now.append(replace(place(extra, anatomy(), rng), change="new"))
    return now, [kind for kind in gone if kind not in DEVICES]


def _later(finding: CTFinding, rng: np.random.Generator) -> CTFinding | None:
    """The same finding at the next study; None when it is gone."""
    scale = (
        DEGREES
        if finding.severity in DEGREES and finding.kind in ("cardiomegaly", "edema")
        else SIZES
    )
    if finding.kind not in (*_LASTING, "cardiomegaly") and rng.random() < 0.25:
        return None
    change = str(rng.choice(["unchanged", "larger", "smaller"], p=(0.4, 0.3, 0.3)))
    if finding.severity and change in _NEXT:
        step = scale.index(finding.severity) + _NEXT[change]
        allowed = finding.side != "bilateral" or finding.kind == "edema" or step < 2
        if 0 <= step < len(scale) and allowed:
            return replace(finding, severity=scale[step], change=change)
    return replace(finding, change="unchanged")


def films_of(
    findings: list[CTFinding], size: int, cache: Path, *, patient: list[int], study: list[int]
) -> dict[FilmView, Film]:
    """Both views with the same findings in the same body; ``patient`` and ``study`` are seeds."""
    person, pose = np.random.default_rng([*patient, 1]), np.random.default_rng([*study, 1])
    shape = next((f.severity for f in findings if f.kind == "cardiomegaly"), "")
    shape = "hyperinflation" if any(f.kind == "hyperinflation" for f in findings) else shape
    body, turn = int(person.integers(60)) % len(BODIES[shape]), int(pose.integers(len(POSES)))
    setup = Setup.sample(person, pose)
    return {
        view: _film(view, findings, shape, body, turn, setup, size, cache, study) for view in VIEWS
    }


def _film(
    view: FilmView,
    findings: list[CTFinding],
    shape: str,
    body: int,
    turn: int,
    setup: Setup,
    size: int,
    cache: Path,
    study: list[int],
) -> Film:
    film = projection(cache, shape, body, turn, view)
    implant = Implant(film, anatomy(), view, POSES[turn])
    masks = moved_masks(film.masks, setup)
    boxes: list[list[int] | None] = []
    for index, finding in enumerate(findings):
        before = implant.change.copy()
        implant.add(finding, np.random.default_rng([*study, 2, index]))  # the same in either view
        shown = np.abs(setup.moved(implant.change - before, size))
        heart = masks[REGIONS.index("cardiac silhouette")]
        enlarged = finding.kind == "cardiomegaly"
        strong = shown > max(0.25 * float(shown.max()), 0.5)
        boxes.append(_box(heart, size / MASK_SIDE) if enlarged else _box(strong, 1.0))
    noise = np.random.default_rng([*study, 3, VIEWS.index(view)])
    return Film(expose(film, implant.change, setup, view, size, noise), masks, boxes)


def _make_study(
    folder: Path, plan: Plan, size: int, cache: Path, seed: int, section: Section
) -> Study:
    study = [VERSION, seed, plan.number]
    findings, gone = findings_of(plan.number, plan.prior, seed)
    films = films_of(findings, size, cache, patient=[VERSION, seed, plan.patient, 9], study=study)
    wording, acquisition = np.random.default_rng([*study, 4]), np.random.default_rng([*study, 5])
    report = write_ct_report(wording, findings, gone)
    name = _name(plan.number)
    images = []
    for view, film in films.items():
        path = folder / f"{name}-{view.lower()}.dcm"
        tag, entropy = ("PA", "pa") if view == "PA" else ("LATERAL", "lateral")
        about = {
            "view": tag,
            "patient": plan.patient,
            "entropy": f"{VERSION}/{seed}/{plan.number}/{entropy}",
        }
        write_dicom(path, film.pixels, acquisition, **about, version=VERSION)  # type: ignore[arg-type]
        images.append(StudyImage(path, view))
    masks = f"{name}.regions.npz"
    write_masks(folder / masks, np.stack([film.masks for film in films.values()]))
    sentences = {"findings": report.findings, "impression": report.impression}
    return Study(
        id=name,
        patient=f"phantom-ct-patient-{plan.patient:05d}",
        images=tuple(images),
        findings=text_of(report.findings),
        impression=text_of(report.impression),
        indication=str(wording.choice(_INDICATIONS)),
        comparison="" if plan.prior is None else "Prior chest radiograph.",
        labels=ct_labels(findings, sentences.get(section, report.findings + report.impression)),
        split=plan.split,
        source=f"phantom-v{VERSION}",
        prior=None if plan.prior is None else _name(plan.prior),
        truth=_truth(findings, films, size) | {"masks": masks},
    )


def _truth(findings: list[CTFinding], films: dict[FilmView, Film], size: int) -> dict[str, Any]:
    facts = []
    for index, finding in enumerate(findings):
        known = {key: value for key, value in asdict(finding).items() if value not in ("", None)}
        known["type"] = known.pop("kind")
        known["boxes"] = {
            view: film.boxes[index] for view, film in films.items() if film.boxes[index]
        }
        facts.append(known)
    scale = size / MASK_SIDE
    regions = {
        view: {
            name: box
            for name, mask in zip(REGIONS, film.masks, strict=True)
            if (box := _box(mask, scale))
        }
        for view, film in films.items()
    }
    return {"findings": facts, "regions": regions}


def _box(mask: NDArray[np.bool_], scale: float) -> list[int] | None:
    """The box (left, top, right, bottom; half open) around a mask, in pixels of the film; None where it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    edges = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    return [round(float(edge) * scale) for edge in edges]


def _name(number: int) -> str:
    return f"phantom-ct-{number:05d}"
