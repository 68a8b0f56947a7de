"""The findings that a phantom can carry: which go together, how each is drawn, and where it lies."""

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
_COUNTS = (0.37, 0.32, 0.21, 0.10)
"""Probability of 0, 1, 2 and 3 findings."""

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Finding:
    """One implanted finding: the truth about it.

    ``box`` is (left, top, right, bottom) in pixels, half open; it is known once the film is drawn.
    """

    kind: Kind
    side: Literal["right", "left", "bilateral", ""] = ""
    severity: str = ""
    zone: str = ""
    box: Box | None = None

    def cells(self) -> set[tuple[str, str]]:
        """The (side, zone) cells of the lungs that it fills; two findings never share one."""
        sides = ("right", "left") if self.side == "bilateral" else (self.side,)
        if self.kind in ("cardiomegaly", "pacemaker", "central line"):
            return set()
        if self.kind == "edema":
            return {(side, zone) for side in SIDES for zone in ("mid", "lower")}
        if self.kind == "pneumothorax":
            return {(side, zone) for side in sides for zone in ZONES}
        if self.kind == "pleural effusion":
            reach = {"small": ("lower",), "moderate": ("lower", "mid"), "large": ZONES}[
                self.severity
            ]
            return {(side, zone) for side in sides for zone in reach}
        return {(side, self.zone or "lower") for side in sides}


def sample_findings(rng: np.random.Generator) -> list[Finding]:
    """Draw the findings of one study: none in 37 % of studies, at most three, each in its own part of the lungs."""
    wanted = rng.choice(len(_COUNTS), p=_COUNTS)
    kinds = list(_WEIGHTS)
    weights = np.array(list(_WEIGHTS.values()))
    order = rng.choice(len(kinds), size=len(kinds), replace=False, p=weights / weights.sum())
    found: list[Finding] = []
    for kind in (kinds[index] for index in order):
        if len(found) == wanted:
            break
        finding = _sample(kind, rng)
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
        return replace(
            finding, side="bilateral", severity=str(rng.choice(_DEGREES, p=(0.3, 0.4, 0.3)))
        )
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
    normal, abnormal, exposure = rng.spawn(3)  # apart, so that a finding changes nothing but itself
    degree = next((f.severity for f in findings if f.kind == "cardiomegaly"), "")
    anatomy = sample_anatomy(patient, patient.uniform(*_HEART_RATIO[degree]))
    scene = Scene(anatomy, sample_pose(normal), size)
    vessels = {side: np.ones_like(scene.x) for side in SIDES}
    for finding in findings:
        if finding.kind == "pneumothorax":
            vessels[finding.side] = 1 - _free_air(scene, finding)
    congestion = sum(_EDEMA[f.severity] for f in findings if f.kind == "edema")
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
_EDEMA = {"mild": 0.45, "moderate": 0.75, "severe": 1.0}
_EFFUSION = {"small": -0.02, "moderate": 0.28, "large": 0.72}
_AIR = {"small": 0.16, "moderate": 0.27, "large": 0.42}


def _cardiomegaly(scene: Scene, finding: Finding, rng: np.random.Generator) -> Map:
    return soft(1 - heart_outline(scene), 0.01) * soft(scene.diaphragm + 0.05 - scene.y, 0.02)


def _effusion(scene: Scene, finding: Finding, rng: np.random.Generator) -> Map:
    """Fluid that fills the recess, its upper border rising to the side wall."""
    shown = np.zeros_like(scene.x)
    for side in SIDES if finding.side == "bilateral" else (finding.side,):
        height = _EFFUSION[finding.severity] + rng.uniform(-0.03, 0.03)
        across = np.clip((scene.u - 0.15) / (scene.anatomy.half_width - 0.15), 0, 1)
        level = scene.anatomy.dome(side) - height - 0.22 * across**2.5
        fluid = soft(scene.y - level, 0.018) * scene.lung[side]
        # Over the heart or the diaphragm fluid adds little: the film is nearly white there already.
        scene.attenuation += fluid * np.clip(1.9 - scene.attenuation, 0.1, 0.9)
        shown = np.maximum(shown, fluid)
    return shown


def _inner_lung(scene: Scene, finding: Finding) -> Map:
    """Signed distance to the edge of the collapsed lung, positive inside it."""
    gap = _AIR[finding.severity]
    lowered = scene.y - 1.1 * gap * soft(0.1 - scene.y, 0.15)
    return rib_cage(scene.anatomy, lowered) - 0.8 * gap - scene.u


def _free_air(scene: Scene, finding: Finding) -> Map:
    return soft(-_inner_lung(scene, finding), 0.008) * scene.lung[finding.side]


def _pneumothorax(scene: Scene, finding: Finding, rng: np.random.Generator) -> Map:
    """Black air without markings, the thin pleural line, and a denser lung inside it."""
    air = _free_air(scene, finding)
    lung = scene.lung[finding.side]
    distance = _inner_lung(scene, finding)
    line = np.exp(-((distance / 0.011) ** 2)) * lung
    scene.attenuation += (
        0.30 * line - 0.14 * air + (0.10 + 0.3 * _AIR[finding.severity]) * lung * (1 - air)
    )
    return air


def _zone_centre(scene: Scene, finding: Finding, rng: np.random.Generator) -> tuple[float, float]:
    """A place inside a zone, clear of the heart and the mediastinum."""
    a, sign = scene.anatomy, SIDES[finding.side]
    part = {"upper": 0.27, "mid": 0.54, "lower": 0.80}[finding.zone]
    y = a.apex + part * (a.dome(finding.side) - a.apex) + rng.uniform(-0.04, 0.04)
    far = {"upper": (0.33, 0.42), "mid": (0.40, 0.55), "lower": (0.42, 0.56)}[finding.zone]
    if finding.side == "left" and finding.zone == "lower":
        far = (0.50, 0.58)
    return sign * rng.uniform(*far), y


def _consolidation(scene: Scene, finding: Finding, rng: np.random.Generator) -> Map:
    """A dense cloud with an irregular border and mottled inside."""
    radius = ellipse(
        scene, _zone_centre(scene, finding, rng), (rng.uniform(0.18, 0.24), rng.uniform(0.16, 0.21))
    )
    rough = _clouds(rng, scene.size, 0.05)
    cloud = soft(1 + 0.20 * rough - radius, 0.14) * scene.lung[finding.side]
    scene.attenuation += (0.80 + 0.06 * _clouds(rng, scene.size, 0.02)) * cloud
    return cloud


def _edema(scene: Scene, finding: Finding, rng: np.random.Generator) -> Map:
    """Haze that spreads from both hila, with short septal lines at the outer bases."""
    amount = _EDEMA[finding.severity]
    haze = np.zeros_like(scene.x)
    lines = []
    for side, sign in SIDES.items():
        wing = np.exp(-(ellipse(scene, (sign * 0.27, 0.05), (0.30, 0.42), angle=0.15 * sign) ** 2))
        haze = np.maximum(haze, wing * scene.lung[side])
        for y in rng.uniform(0.05, 0.42, 7):
            x = sign * (scene.anatomy.half_width - 0.02)
            lines.append((np.array([[[x, y], [x - sign * 0.09, y + rng.normal(0, 0.008)]]]), 0.012))
    mottled = 1 + 0.30 * _clouds(rng, scene.size, 0.02)
    scene.attenuation += 0.62 * amount * haze * mottled
    scene.attenuation += (
        0.22 * amount * scene.strokes(lines) * (scene.lung["left"] + scene.lung["right"])
    )
    return haze * 1.6


def _atelectasis(scene: Scene, finding: Finding, rng: np.random.Generator) -> Map:
    """Two or three dense bands above the hemidiaphragm."""
    sign, dome = SIDES[finding.side], scene.anatomy.dome(finding.side)
    lines = []
    for step in range(int(rng.integers(2, 4))):
        y = dome - 0.07 - 0.085 * step + rng.normal(0, 0.01)
        start, length = rng.uniform(0.27, 0.33), rng.uniform(0.26, 0.34)
        tilt = rng.uniform(-0.10, 0.02)
        points = [
            [sign * (start + length * s), y + tilt * s + 0.02 * np.sin(np.pi * s)]
            for s in np.linspace(0, 1, 6)
        ]
        lines.append((np.array([points]), rng.uniform(0.040, 0.055)))
    bands = scene.strokes(lines, blur=0.007) * scene.lung[finding.side]
    scene.attenuation += 0.65 * bands
    return bands


def _nodule(scene: Scene, finding: Finding, rng: np.random.Generator) -> Map:
    radius = rng.uniform(0.065, 0.095)
    ball = ellipse(
        scene, _zone_centre(scene, finding, rng), (radius, radius * rng.uniform(0.9, 1.1))
    )
    mass = soft(1 - ball, 0.07) * scene.lung[finding.side]
    scene.attenuation += 0.55 * mass
    return mass


def _pacemaker(scene: Scene, finding: Finding, rng: np.random.Generator) -> Map:
    """A metal box under the clavicle and a lead to the right ventricle."""
    sign, a = SIDES[finding.side], scene.anatomy
    x, y = sign * rng.uniform(0.52, 0.58), a.apex + rng.uniform(0.34, 0.40)
    box = np.array([[[x - 0.045, y], [x + 0.045, y + 0.02]]])
    tip = a.dome_left - 0.10
    lead = [
        [x, y],
        [sign * 0.42, y - 0.13],
        [sign * 0.2, y - 0.10],
        [-0.07, y + 0.12],
        [-0.12, 0.0],
        [0.0, tip],
    ]
    wire = _smooth(np.array([*lead, [0.22, tip - 0.02]]))
    shown = np.maximum(
        scene.strokes([(box, 0.13)], blur=0.005), scene.strokes([(wire[None], 0.016)])
    )
    scene.attenuation += 2.2 * shown
    return shown


def _line(scene: Scene, finding: Finding, rng: np.random.Generator) -> Map:
    """A central venous catheter from the neck to the superior vena cava."""
    sign, a = SIDES[finding.side], scene.anatomy
    start = [[sign * 0.20, -1.05], [sign * 0.17, -0.85], [sign * 0.12, a.apex + 0.22]]
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
    """A curve [samples, 2] through the points (monotone in its parameter, no overshoot)."""
    steps = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    return PchipInterpolator(steps, points)(np.linspace(0, steps[-1], samples))


def _clouds(rng: np.random.Generator, size: int, scale: float) -> Map:
    """Smooth noise [size, size] of unit variance; ``scale`` in patient units."""
    noise = blurred(rng.standard_normal((size, size), dtype=np.float32), scale * size / 2)
    return noise / noise.std()


def _box(mask: Map) -> Box:
    """The bounding box of the pixels where the mask is above one half."""
    rows, columns = (
        np.flatnonzero((mask > 0.5).any(axis=1)),
        np.flatnonzero((mask > 0.5).any(axis=0)),
    )
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _expose(scene: Scene, rng: np.random.Generator) -> Map:
    """Attenuation to brightness: exposure, scatter, unsharp detector, quantum noise, a side marker."""
    size = scene.size
    a = np.maximum(scene.attenuation, 0)
    reach = int(0.15 * size)
    scatter = 0.10 * uniform_filter(uniform_filter(a, reach), reach)
    bright = 1 - np.exp(-rng.uniform(1.05, 1.45) * (0.9 * a + scatter))
    bright = blurred(bright, 0.0022 * size)
    grain = rng.uniform(0.006, 0.016) * (1.2 - bright)
    bright = bright + grain * rng.standard_normal(bright.shape, dtype=np.float32)
    bright = bright + 0.012 * _clouds(rng, size, 0.015)
    return np.clip(bright, 0, 1).astype(np.float32)
