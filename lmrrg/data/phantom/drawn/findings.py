"""The findings of a drawn phantom: which go together, how each is drawn, and where it lies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import uniform_filter

from lmrrg.data.phantom.drawn.anatomy import (
    SIDES,
    Map,
    Scene,
    blurred,
    draw_normal,
    ellipse,
    heart_outline,
    rib_cage,
    sample_anatomy,
    sample_pose,
    soft,
)

Kind = Literal[
    "cardiomegaly",
    "pleural effusion",
    "pneumothorax",
    "consolidation",
    "edema",
    "atelectasis",
    "nodule",
    "pacemaker",
    "central line",
]
ZONES = ("upper", "mid", "lower")
_SIZES = ("small", "moderate", "large")
_DEGREES = ("mild", "moderate", "severe")

_WEIGHTS: dict[Kind, float] = {
    "cardiomegaly": 1.3,
    "pleural effusion": 1.5,
    "pneumothorax": 1.0,
    "consolidation": 1.3,
    "edema": 0.9,
    "atelectasis": 1.0,
    "nodule": 1.0,
    "pacemaker": 0.6,
    "central line": 0.6,
}
"""Weight of each kind in the draw."""
_COUNT_PROBABILITIES = (0.37, 0.32, 0.21, 0.10)
"""Probability of 0, 1, 2 and 3 findings."""
_ZONES_OF_EFFUSION: dict[str, tuple[str, ...]] = {
    "small": ("lower",),
    "moderate": ("lower", "mid"),
    "large": ZONES,
}

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels, half open."""


@dataclass(frozen=True)
class Finding:
    """One finding that is drawn into the film; ``box`` is known once the film is drawn."""

    kind: Kind
    side: Literal["right", "left", "bilateral", ""] = ""
    severity: str = ""
    zone: str = ""
    box: Box | None = None

    def cells(self) -> set[tuple[str, str]]:
        """Return the (side, zone) cells of the lungs that it fills; no two findings share one."""
        if self.kind in ("cardiomegaly", "pacemaker", "central line"):
            return set()
        zones: tuple[str, ...] = (self.zone or "lower",)
        if self.kind == "edema":
            zones = ("mid", "lower")
        elif self.kind == "pneumothorax":
            zones = ZONES
        elif self.kind == "pleural effusion":
            zones = _ZONES_OF_EFFUSION[self.severity]
        is_bilateral = self.side == "bilateral" or self.kind == "edema"
        sides = SIDES if is_bilateral else (self.side,)
        return {(side, zone) for side in sides for zone in zones}


def sample_findings(rng: np.random.Generator) -> list[Finding]:
    """Draw the findings of one study.

    There are none in 37 % of studies and at most three, each in its own part of the lungs.
    """
    wanted = rng.choice(len(_COUNT_PROBABILITIES), p=_COUNT_PROBABILITIES)
    kinds = list(_WEIGHTS)
    weights = np.array(list(_WEIGHTS.values()))
    order = rng.choice(len(kinds), size=len(kinds), replace=False, p=weights / weights.sum())
    found: list[Finding] = []
    for index in order:
        if len(found) == wanted:
            break
        finding = _sample(kinds[index], rng)
        if not any(finding.cells() & other.cells() for other in found):
            found.append(finding)
    return found


def _sample(kind: Kind, rng: np.random.Generator) -> Finding:
    side = str(rng.choice(["right", "left"]))
    finding = Finding(kind, side=side)  # type: ignore[arg-type]
    if kind == "cardiomegaly":
        return replace(finding, side="", severity=str(rng.choice(_DEGREES, p=(0.35, 0.4, 0.25))))
    if kind == "pleural effusion":
        severity = str(rng.choice(_SIZES, p=(0.4, 0.35, 0.25)))
        both = severity != "large" and rng.random() < 0.3
        return replace(finding, side="bilateral" if both else finding.side, severity=severity)
    if kind == "pneumothorax":
        return replace(finding, severity=str(rng.choice(_SIZES, p=(0.3, 0.4, 0.3))))
    if kind == "edema":
        severity = str(rng.choice(_DEGREES, p=(0.3, 0.4, 0.3)))
        return replace(finding, side="bilateral", severity=severity)
    if kind in ("consolidation", "nodule"):
        return replace(finding, zone=str(rng.choice(ZONES)))
    if kind == "atelectasis":
        return replace(finding, zone="lower")
    if kind == "pacemaker":
        return replace(finding, side="left" if rng.random() < 0.8 else "right")
    return finding


def draw_phantom(
    rng: np.random.Generator, findings: list[Finding], size: int, *, patient: np.random.Generator
) -> tuple[Map, list[Finding]]:
    """Draw a film.

    Args:
        rng: decides everything that differs between two films of one patient.
        patient: decides the patient's shape; the heart's size follows the findings as well.
        size: rows and columns, pixels.

    Returns:
        brightness float32 [size, size] in [0, 1], and the findings with their boxes.
    """
    # Three streams, so that a finding changes nothing else on the film.
    normal, abnormal, exposure = rng.spawn(3)
    degree = next((f.severity for f in findings if f.kind == "cardiomegaly"), "")
    anatomy = sample_anatomy(patient, patient.uniform(*_HEART_RATIO[degree]))
    scene = Scene(anatomy, sample_pose(normal), size)
    vessels = {side: np.ones_like(scene.x) for side in SIDES}
    for finding in findings:
        if finding.kind == "pneumothorax":
            # Free air has no lung markings.
            vessels[finding.side] = 1 - _free_air(scene, finding)
    congestion = sum(_EDEMA_AMOUNT[f.severity] for f in findings if f.kind == "edema")
    draw_normal(scene, normal, vessels=vessels, congestion=congestion)
    placed = [replace(f, box=_box(_DRAW[f.kind](scene, f, abnormal))) for f in findings]
    return _expose(scene, exposure), placed


_HEART_RATIO = {
    "": (0.37, 0.46),
    "mild": (0.56, 0.60),
    "moderate": (0.63, 0.68),
    "severe": (0.72, 0.79),
}
"""Heart width over chest width, by the degree of cardiomegaly."""
_EDEMA_AMOUNT = {"mild": 0.45, "moderate": 0.75, "severe": 1.0}
_EFFUSION_HEIGHT = {"small": -0.02, "moderate": 0.28, "large": 0.72}
"""Height of the fluid above the dome of the diaphragm."""
_COLLAPSE = {"small": 0.16, "moderate": 0.27, "large": 0.42}
"""Distance between the collapsed lung and the rib cage."""


# Each of the functions below draws one kind of finding into the scene, and returns the mask whose
# bounding box is the finding's.


def _cardiomegaly(scene: Scene, finding: Finding, rng: np.random.Generator) -> Map:
    return soft(1 - heart_outline(scene), 0.01) * soft(scene.diaphragm + 0.05 - scene.y, 0.02)


def _effusion(scene: Scene, finding: Finding, rng: np.random.Generator) -> Map:
    """Draw fluid that fills the recess, its upper border rising to the side wall."""
    shown = np.zeros_like(scene.x)
    for side in SIDES if finding.side == "bilateral" else (finding.side,):
        height = _EFFUSION_HEIGHT[finding.severity] + rng.uniform(-0.03, 0.03)
        across = np.clip((scene.u - 0.15) / (scene.anatomy.half_width - 0.15), 0, 1)
        level = scene.anatomy.dome(side) - height - 0.22 * across**2.5
        fluid = soft(scene.y - level, 0.018) * scene.lung[side]
        # Over the heart or the diaphragm fluid adds little: the film is nearly white there already.
        scene.attenuation += fluid * np.clip(1.9 - scene.attenuation, 0.1, 0.9)
        shown = np.maximum(shown, fluid)
    return shown


def _inner_lung(scene: Scene, finding: Finding) -> Map:
    """Return the signed distance to the edge of the collapsed lung, positive inside it."""
    gap = _COLLAPSE[finding.severity]
    # The lung collapses more at its top: free air rises when the patient stands.
    lowered = scene.y - 1.1 * gap * soft(0.1 - scene.y, 0.15)
    return rib_cage(scene.anatomy, lowered) - 0.8 * gap - scene.u


def _free_air(scene: Scene, finding: Finding) -> Map:
    """Return where the hemithorax holds air outside of the lung, as a mask."""
    return soft(-_inner_lung(scene, finding), 0.008) * scene.lung[finding.side]


def _pneumothorax(scene: Scene, finding: Finding, rng: np.random.Generator) -> Map:
    """Draw black air without markings, the thin pleural line, and a denser lung inside it."""
    air = _free_air(scene, finding)
    lung = scene.lung[finding.side]
    distance = _inner_lung(scene, finding)
    line = np.exp(-((distance / 0.011) ** 2)) * lung
    denser = 0.10 + 0.3 * _COLLAPSE[finding.severity]
    scene.attenuation += 0.30 * line - 0.14 * air + denser * lung * (1 - air)
    return air


def _zone_centre(scene: Scene, finding: Finding, rng: np.random.Generator) -> tuple[float, float]:
    """Draw a point inside a zone, clear of the heart and the mediastinum."""
    anatomy = scene.anatomy
    part = {"upper": 0.27, "mid": 0.54, "lower": 0.80}[finding.zone]
    height = anatomy.dome(finding.side) - anatomy.apex
    y = anatomy.apex + part * height + rng.uniform(-0.04, 0.04)
    distance = {"upper": (0.33, 0.42), "mid": (0.40, 0.55), "lower": (0.42, 0.56)}[finding.zone]
    if finding.side == "left" and finding.zone == "lower":
        distance = (0.50, 0.58)  # beside the heart
    return SIDES[finding.side] * rng.uniform(*distance), y


def _consolidation(scene: Scene, finding: Finding, rng: np.random.Generator) -> Map:
    """Draw a dense cloud with an irregular border and a mottled inside."""
    centre = _zone_centre(scene, finding, rng)
    radius = ellipse(scene, centre, (rng.uniform(0.18, 0.24), rng.uniform(0.16, 0.21)))
    rough = _clouds(rng, scene.size, 0.05)
    cloud = soft(1 + 0.20 * rough - radius, 0.14) * scene.lung[finding.side]
    scene.attenuation += (0.80 + 0.06 * _clouds(rng, scene.size, 0.02)) * cloud
    return cloud


def _edema(scene: Scene, finding: Finding, rng: np.random.Generator) -> Map:
    """Draw haze that spreads from both hila, with short septal lines at the outer bases."""
    amount = _EDEMA_AMOUNT[finding.severity]
    haze = np.zeros_like(scene.x)
    lines = []
    for side, sign in SIDES.items():
        wing = np.exp(-(ellipse(scene, (sign * 0.27, 0.05), (0.30, 0.42), angle=0.15 * sign) ** 2))
        haze = np.maximum(haze, wing * scene.lung[side])
        for y in rng.uniform(0.05, 0.42, 7):
            x = sign * (scene.anatomy.half_width - 0.02)
            inner_end = [x - sign * 0.09, y + rng.normal(0, 0.008)]
            lines.append((np.array([[[x, y], inner_end]]), 0.012))
    mottled = 1 + 0.30 * _clouds(rng, scene.size, 0.02)
    scene.attenuation += 0.62 * amount * haze * mottled
    lungs = scene.lung["left"] + scene.lung["right"]
    scene.attenuation += 0.22 * amount * scene.strokes(lines) * lungs
    # The haze fades out slowly: with this factor its box ends where it falls below 0.5 / 1.6.
    return haze * 1.6


def _atelectasis(scene: Scene, finding: Finding, rng: np.random.Generator) -> Map:
    """Draw two or three dense bands above the hemidiaphragm."""
    sign = SIDES[finding.side]
    dome = scene.anatomy.dome(finding.side)
    along = np.linspace(0, 1, 6)
    lines = []
    for step in range(int(rng.integers(2, 4))):
        y = dome - 0.07 - 0.085 * step + rng.normal(0, 0.01)
        start = rng.uniform(0.27, 0.33)
        length = rng.uniform(0.26, 0.34)
        tilt = rng.uniform(-0.10, 0.02)
        across = sign * (start + length * along)
        down = y + tilt * along + 0.02 * np.sin(np.pi * along)
        lines.append((np.stack([across, down], axis=1)[None], rng.uniform(0.040, 0.055)))
    bands = scene.strokes(lines, blur=0.007) * scene.lung[finding.side]
    scene.attenuation += 0.65 * bands
    return bands


def _nodule(scene: Scene, finding: Finding, rng: np.random.Generator) -> Map:
    radius = rng.uniform(0.065, 0.095)
    centre = _zone_centre(scene, finding, rng)
    ball = ellipse(scene, centre, (radius, radius * rng.uniform(0.9, 1.1)))
    mass = soft(1 - ball, 0.07) * scene.lung[finding.side]
    scene.attenuation += 0.55 * mass
    return mass


def _pacemaker(scene: Scene, finding: Finding, rng: np.random.Generator) -> Map:
    """Draw a metal box under the clavicle and a lead to the right ventricle."""
    sign = SIDES[finding.side]
    anatomy = scene.anatomy
    x = sign * rng.uniform(0.52, 0.58)
    y = anatomy.apex + rng.uniform(0.34, 0.40)
    box = np.array([[[x - 0.045, y], [x + 0.045, y + 0.02]]])
    tip = anatomy.dome_left - 0.10
    lead = [
        [x, y],
        [sign * 0.42, y - 0.13],
        [sign * 0.2, y - 0.10],
        [-0.07, y + 0.12],
        [-0.12, 0.0],
        [0.0, tip],
    ]
    wire = _smooth(np.array([*lead, [0.22, tip - 0.02]]))
    case = scene.strokes([(box, 0.13)], blur=0.005)
    shown = np.maximum(case, scene.strokes([(wire[None], 0.016)]))
    scene.attenuation += 2.2 * shown
    return shown


def _line(scene: Scene, finding: Finding, rng: np.random.Generator) -> Map:
    """Draw a central venous catheter from the neck to the superior vena cava."""
    sign = SIDES[finding.side]
    below_neck = [sign * 0.12, scene.anatomy.apex + 0.22]
    start = [[sign * 0.20, -1.05], [sign * 0.17, -0.85], below_neck]
    path = _smooth(np.array([*start, [-0.09, -0.36], [-0.105, rng.uniform(-0.20, -0.10)]]))
    shown = scene.strokes([(path[None], 0.022)])
    scene.attenuation += 1.1 * shown
    return shown


_DRAW = {
    "cardiomegaly": _cardiomegaly,
    "pleural effusion": _effusion,
    "pneumothorax": _pneumothorax,
    "consolidation": _consolidation,
    "edema": _edema,
    "atelectasis": _atelectasis,
    "nodule": _nodule,
    "pacemaker": _pacemaker,
    "central line": _line,
}


def _smooth(points: np.ndarray, samples: int = 40) -> np.ndarray:
    """Return a curve [samples, 2] through the points, monotone in its parameter, no overshoot."""
    steps = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    return PchipInterpolator(steps, points)(np.linspace(0, steps[-1], samples))


def _clouds(rng: np.random.Generator, size: int, scale: float) -> Map:
    """Return smooth noise [size, size] of unit variance; ``scale`` in patient units."""
    noise = blurred(rng.standard_normal((size, size), dtype=np.float32), scale * size / 2)
    return noise / noise.std()


def _box(mask: Map) -> Box:
    """Return the bounding box of the pixels where the mask is above one half."""
    inside = mask > 0.5
    rows = np.flatnonzero(inside.any(axis=1))
    columns = np.flatnonzero(inside.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _expose(scene: Scene, rng: np.random.Generator) -> Map:
    """Convert attenuation to brightness: exposure, scatter, unsharp detector, quantum noise."""
    size = scene.size
    attenuation = np.maximum(scene.attenuation, 0)
    reach = int(0.15 * size)
    scatter = 0.10 * uniform_filter(uniform_filter(attenuation, reach), reach)
    bright = 1 - np.exp(-rng.uniform(1.05, 1.45) * (0.9 * attenuation + scatter))
    bright = blurred(bright, 0.0022 * size)
    # Less grain in bright areas, which lie near the flat end of the saturating curve.
    grain = rng.uniform(0.006, 0.016) * (1.2 - bright)
    bright = bright + grain * rng.standard_normal(bright.shape, dtype=np.float32)
    bright = bright + 0.012 * _clouds(rng, size, 0.015)
    return np.clip(bright, 0, 1).astype(np.float32)
