"""Findings of CT phantoms: which go together, and where in space they lie (ours)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lmrrg.data.phantom.ct.bodies import Anatomy
from lmrrg.data.phantom.ct.volume import RIBS

SIDES = ("right", "left")
ZONES = {"upper": 0.80, "mid": 0.52, "lower": 0.26}
"""Height of the middle of a zone, as a fraction of the lung's."""
SIZES = ("small", "moderate", "large")
DEGREES = ("mild", "moderate", "severe")
KINDS = {
    "cardiomegaly": 1.2,
    "pleural effusion": 1.4,
    "pneumothorax": 0.9,
    "consolidation": 1.2,
    "edema": 0.9,
    "atelectasis": 1.0,
    "nodule": 0.9,
    "rib fracture": 0.6,
    "hyperinflation": 0.7,
    "pacemaker": 0.6,
    "central line": 0.6,
    "endotracheal tube": 0.5,
}
"""Kinds with their weight in the draw."""
DEVICES = ("pacemaker", "central line", "endotracheal tube")


@dataclass(frozen=True)
class CTFinding:
    """One finding that is put into the films.

    Attributes:
        kind: one of :data:`KINDS`.
        side: right, left, bilateral, or empty where the finding has no side.
        severity: one of :data:`SIZES` or :data:`DEGREES`, or empty.
        zone: one of :data:`ZONES`, or empty.
        place: z, y, x in mm from the middle of the lungs, where the finding has a point in space.
        change: against the prior: new, larger, smaller, unchanged; empty without a prior.
    """

    kind: str
    side: str = ""
    severity: str = ""
    zone: str = ""
    place: tuple[float, float, float] | None = None
    change: str = ""


def sample_findings(rng: np.random.Generator) -> list[CTFinding]:
    """Draw the findings of one study.

    There are none in a third of the studies and at most three, no two in the same part of a lung.
    """
    wanted = int(rng.choice(4, p=(0.34, 0.33, 0.22, 0.11)))
    weights = np.array(list(KINDS.values()))
    order = rng.choice(list(KINDS), size=len(KINDS), replace=False, p=weights / weights.sum())
    found: list[CTFinding] = []
    for kind in order:
        if len(found) == wanted:
            break
        finding = sample_finding(str(kind), rng)
        if not any(clash(finding, other) for other in found):
            found.append(finding)
    return found


def sample_finding(kind: str, rng: np.random.Generator) -> CTFinding:
    """Draw one finding of a kind, with its side, severity and zone."""
    # Drawn for every kind, also for those without a side: the draws are part of the version.
    finding = CTFinding(kind, side=str(rng.choice(SIDES)))
    if kind in ("cardiomegaly", "edema"):
        side = "bilateral" if kind == "edema" else ""
        return replace(finding, side=side, severity=str(rng.choice(DEGREES)))
    if kind in ("hyperinflation", "endotracheal tube"):
        return CTFinding(kind)
    if kind == "pleural effusion":
        size = str(rng.choice(SIZES, p=(0.4, 0.35, 0.25)))
        both = size != "large" and rng.random() < 0.3
        return replace(finding, severity=size, side="bilateral" if both else finding.side)
    if kind == "pneumothorax":
        return replace(finding, severity=str(rng.choice(SIZES)))
    if kind in ("consolidation", "nodule"):
        return replace(finding, zone=str(rng.choice(list(ZONES))))
    return replace(finding, zone="lower") if kind == "atelectasis" else finding


def clash(a: CTFinding, b: CTFinding) -> bool:
    """Return whether two findings cannot be told apart in one study.

    That is so if both shape the body, or both lie in one lung.
    """
    kinds = {a.kind, b.kind}
    of_body = {"cardiomegaly", "hyperinflation"}
    outside_lung = {"rib fracture", *DEVICES}
    if kinds <= of_body or kinds == {"hyperinflation", "edema"}:
        return True
    if kinds & (of_body | outside_lung):
        return False
    return a.side == b.side or "bilateral" in (a.side, b.side)


def place(finding: CTFinding, anatomy: Anatomy, rng: np.random.Generator) -> CTFinding:
    """Give a finding its point in space: in a lung, on a rib, or where a tube's tip is."""
    point: Sequence[float]
    if finding.kind == "rib fracture":
        point = _point_on_rib(finding.side, anatomy, rng)
    elif finding.kind == "endotracheal tube":
        point = _point_in_windpipe(anatomy, rng)
    elif finding.zone:
        point = _point_in_zone(finding, anatomy, rng)
    else:
        return finding
    z, y, x = (round(float(value), 1) for value in point)
    return replace(finding, place=(z, y, x))


def _point_on_rib(side: str, anatomy: Anatomy, rng: np.random.Generator) -> Sequence[float]:
    """Draw a point on the outer back of a middle rib, which stands alone in front of the lung."""
    points, _ = anatomy.points(int(rng.choice(RIBS[side][4:8])))
    behind = points[points[:, 1] < np.median(points[:, 1])]
    outward = np.abs(behind[:, 2]) / np.abs(behind[:, 2]).max()
    outer = behind[(outward > 0.55) & (outward < 0.72)]
    return outer[int(rng.integers(len(outer)))].tolist()


def _point_in_windpipe(anatomy: Anatomy, rng: np.random.Generator) -> Sequence[float]:
    """Draw a point 16 to 42 mm above the end of the windpipe's middle line."""
    # np.interp wants ascending heights; the line runs downwards.
    line = anatomy.windpipe[::-1]
    z = line[0, 0] + rng.uniform(16, 42)
    y = np.interp(z, line[:, 0], line[:, 1])
    x = np.interp(z, line[:, 0], line[:, 2])
    return z, float(y), float(x)


def _point_in_zone(
    finding: CTFinding, anatomy: Anatomy, rng: np.random.Generator
) -> Sequence[float]:
    """Draw a point in a zone of a lung, away from the heart and the side wall."""
    low, back, lowest_x = anatomy.lungs[finding.side][0]
    high, front, highest_x = anatomy.lungs[finding.side][1]
    z = low + (ZONES[finding.zone] + rng.uniform(-0.04, 0.04)) * (high - low)
    # x grows to the patient's left, so the left lung's inner border is its lowest x.
    is_left = finding.side == "left"
    inner = lowest_x if is_left else highest_x
    outer = highest_x if is_left else lowest_x
    x = inner + (outer - inner) * rng.uniform(0.5, 0.68)
    y = back + (front - back) * rng.uniform(0.3, 0.6)
    return z, y, x
