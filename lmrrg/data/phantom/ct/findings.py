"""Findings of CT phantoms: sampled, and put at a place in space into both views (ours)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from lmrrg.data.phantom.ct.bodies import FINE, Anatomy, Array, Projection
from lmrrg.data.phantom.ct.projection import FIELD_MM, FilmView, Pose, to_film
from lmrrg.data.phantom.ct.volume import RIBS

SIDES = ("right", "left")
ZONES = {"upper": 0.80, "mid": 0.52, "lower": 0.26}
"""Height of the middle of a zone, as a share of the lung's."""
SIZES, DEGREES = ("small", "moderate", "large"), ("mild", "moderate", "severe")
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
_MM = FINE / FIELD_MM


@dataclass(frozen=True)
class CTFinding:
    """One finding: the truth about it. ``place`` is z, y, x in mm from the middle of the lungs, where it has one."""

    kind: str
    side: str = ""
    severity: str = ""
    zone: str = ""
    place: tuple[float, float, float] | None = None
    change: str = ""
    """Against the prior: new, larger, smaller, unchanged; empty without a prior."""


def sample_findings(rng: np.random.Generator) -> list[CTFinding]:
    """None in a third of the studies, at most three otherwise, no two in the same part of a lung."""
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
    """One finding of a kind, with its side, severity and zone."""
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
    """Whether two findings cannot be told apart in one study: both shape the body, or both lie in one lung."""
    shapes = {"cardiomegaly", "hyperinflation"}
    apart = {"rib fracture", *DEVICES}
    if {a.kind, b.kind} <= shapes or {a.kind, b.kind} == {"hyperinflation", "edema"}:
        return True
    if {a.kind, b.kind} & (shapes | apart):
        return False
    return a.side == b.side or "bilateral" in (a.side, b.side)


def place(finding: CTFinding, anatomy: Anatomy, rng: np.random.Generator) -> CTFinding:
    """Give a finding of a lung or a rib its place in space, and a tube in the windpipe the place of its tip."""
    if finding.kind == "rib fracture":
        points, _ = anatomy.points(int(rng.choice(RIBS[finding.side][4:8])))
        behind = points[
            points[:, 1] < np.median(points[:, 1])
        ]  # where a rib stands alone in front of the lung
        share = np.abs(behind[:, 2]) / np.abs(behind[:, 2]).max()
        outer = behind[(share > 0.55) & (share < 0.72)]
        z, y, x = outer[int(rng.integers(len(outer)))]
    elif finding.kind == "endotracheal tube":
        z = anatomy.windpipe[-1, 0] + rng.uniform(16, 42)
        y, x = (
            np.interp(z, anatomy.windpipe[::-1, 0], anatomy.windpipe[::-1, axis]) for axis in (1, 2)
        )
    elif finding.zone:
        (low, back, left), (high, front, right) = anatomy.lungs[finding.side]
        z = low + (ZONES[finding.zone] + rng.uniform(-0.04, 0.04)) * (high - low)
        inner, outer = (left, right) if finding.side == "left" else (right, left)
        x = inner + (outer - inner) * rng.uniform(0.5, 0.68)
        y = back + (front - back) * rng.uniform(0.3, 0.6)
    else:
        return finding
    return replace(finding, place=(round(float(z), 1), round(float(y), 1), round(float(x), 1)))


class Implant:
    """The change of one view's line integrals, mm of water [320, 320], as findings are added to it."""

    def __init__(self, film: Projection, anatomy: Anatomy, view: FilmView, pose: Pose):
        self.film, self.anatomy, self.view, self.pose = film, anatomy, view, pose
        self.change = np.zeros((FINE, FINE), np.float32)

    def add(self, finding: CTFinding, rng: np.random.Generator) -> None:
        """Add a finding; the same state of ``rng`` puts the same thing into either view."""
        sides = SIDES if finding.side == "bilateral" else (finding.side,)
        for side in sides:
            draw = {
                "pleural effusion": self._effusion,
                "pneumothorax": self._pneumothorax,
                "consolidation": self._consolidation,
                "edema": self._edema,
                "atelectasis": self._atelectasis,
                "nodule": self._nodule,
                "rib fracture": self._fracture,
                "pacemaker": self._pacemaker,
                "central line": self._line,
                "endotracheal tube": self._tube,
            }.get(finding.kind)
            if draw:
                draw(finding, side, rng)

    def _fill(self, side: str, share: Array, density: float) -> None:
        """Fill a share (0 to 1, by cell [16, 80, 80]) of a lung's air; the lung's own border stays sharp."""
        row = SIDES.index(side)
        air = self.film.depths[row]
        part = (air * share).sum(axis=0) / (air.sum(axis=0) + 1e-3)
        fine = np.asarray(Image.fromarray(part).resize((FINE, FINE), Image.Resampling.BICUBIC))
        self.change += density * np.clip(fine, 0, 1) * self.film.air[row]

    def _away(self, middle: NDArray[np.floating] | tuple[float, float, float]) -> Array:
        return self.film.places - np.asarray(middle, np.float32)[:, None, None, None]

    def _effusion(self, finding: CTFinding, side: str, rng: np.random.Generator) -> None:
        low, high = self.anatomy.lungs[side]
        height = {"small": 38.0, "moderate": 85.0, "large": 150.0}[finding.severity] + rng.uniform(
            -6, 6
        )
        z, _, x = self.film.places
        inner, outer = sorted(np.abs([low[2], high[2]]))
        rise = 34 * np.clip((np.abs(x) - inner) / (outer - inner), 0, 1) ** 2.5
        self._fill(side, _step(low[0] + height + rise - z, 4), 0.98)

    def _consolidation(self, finding: CTFinding, side: str, rng: np.random.Generator) -> None:
        radii = rng.uniform((26, 42, 28), (38, 62, 42)).astype(np.float32)
        away = self._away(finding.place or (0, 0, 0))
        radius = np.sqrt(((away / radii[:, None, None, None]) ** 2).sum(axis=0))
        self._fill(side, _step(1 + 0.4 * _waves(away, rng, 13) - radius, 0.4), 1.0)

    def _edema(self, finding: CTFinding, side: str, rng: np.random.Generator) -> None:
        grade = {"mild": 0.3, "moderate": 0.5, "severe": 0.8}[finding.severity]
        away = self._away(self.anatomy.hila[side] + np.array([-15, 0, 0]))
        wing = np.exp(-((away[0] / 85) ** 2) - (away[1] / 80) ** 2 - (away[2] / 58) ** 2)
        self._fill(side, np.clip(wing * (1 + 0.55 * _waves(away, rng, 11)), 0, 1.6), grade)

    def _atelectasis(self, finding: CTFinding, side: str, rng: np.random.Generator) -> None:
        away = self._away(finding.place or (0, 0, 0))
        slope = rng.uniform(0.05, 0.3) * (1 if side == "right" else -1)
        sheet = away[0] - 46 - slope * away[2] + 2 * _waves(away, rng, 40)
        reach = np.sqrt((away[2] / rng.uniform(30, 42)) ** 2 + (away[1] / 75) ** 2)
        self._fill(side, np.exp(-((sheet / 6.0) ** 2)) * _step(1 - reach, 0.1), 1.0)

    def _nodule(self, finding: CTFinding, side: str, rng: np.random.Generator) -> None:
        radius = rng.uniform(7, 13)
        (u, v), line = to_film(np.array(finding.place), self.view, self.pose), _line_mm()
        away = (line[None, :] - u) ** 2 + (line[:, None] - v) ** 2
        self.change += gaussian_filter(2 * np.sqrt(np.maximum(radius**2 - away, 0)), 0.8).astype(
            np.float32
        )

    def _pneumothorax(self, finding: CTFinding, side: str, rng: np.random.Generator) -> None:
        """Air without vessels around a lung that shrank towards its hilum, and the pleural line on its border."""
        shrunk = {"small": 0.88, "moderate": 0.74, "large": 0.55}[finding.severity]
        air = self.film.air[SIDES.index(side)]
        hilum = self._pixel(self.anatomy.hila[side])
        inside = np.clip(gaussian_filter(_scaled(air, hilum, shrunk), 1) / 25, 0, 1)
        space = np.clip(air / 25, 0, 1) * (1 - inside)
        edge = np.abs(np.gradient(inside)[0]) + np.abs(np.gradient(inside)[1])
        envelope = np.maximum(1.04 * gaussian_filter(air, 9), air)
        faint = 1.0 if self.view == "PA" else 0.5
        lung = np.clip(air / 25, 0, 1) * inside
        line = 34 * np.clip(edge, 0, 0.5) * np.clip(air / 25, 0, 1)
        self.change += faint * ((air - envelope - 16) * space + 60 * (1 - shrunk) * lung + line)

    def _fracture(self, finding: CTFinding, side: str, rng: np.random.Generator) -> None:
        """The outer piece of a rib behind the lung drops by more than its own height: erased here, drawn there."""
        at = np.array(finding.place)
        for organ in RIBS[side]:
            points, _ = self.anatomy.points(organ)
            if np.linalg.norm(points - at, axis=1).min() < 2:
                away = np.abs(points[:, 2]) - abs(at[2])
                arc = (np.abs(points[:, 1] - at[1]) < 45) & (points[:, 0] > at[0] - 40)
                steps = [
                    points[arc & (np.abs(away - step) < 2.5)] for step in np.arange(0, 34, 4.0)
                ]
                middle = np.array([step.mean(axis=0) for step in steps if len(step)])
                self._strokes([middle], 9, -11)
                self._strokes([middle[1:] - np.array([12.0, 0.0, 0.0])], 7, 16)

    def _pacemaker(self, finding: CTFinding, side: str, rng: np.random.Generator) -> None:
        sign = 1 if side == "left" else -1
        z0, x0 = 88 + rng.uniform(-8, 8), sign * rng.uniform(78, 90)
        turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        can = np.stack([z0 + 19 * np.sin(turn), np.full(24, 105.0), x0 + 23 * np.cos(turn)], axis=1)
        self._strokes([can], 0, 60, filled=True)
        z, y, x = self.anatomy.heart
        end = [z - 32, y + 25, x + 22]
        lead = [
            [z0 + 18, 100, x0],
            [118, 70, sign * 45],
            [95, 40, -12],
            [45, 25, -30],
            [-5, 25, -32],
            end,
        ]
        self._strokes([_curve(np.array(lead, float))], 2.4, 22)

    def _line(self, finding: CTFinding, side: str, rng: np.random.Generator) -> None:
        sign = 1 if side == "left" else -1
        tip = rng.uniform(5, 35)
        path = [
            [170, 30, sign * 38],
            [125, 35, sign * 28],
            [92, 35, -14],
            [60, 30, -28],
            [tip, 25, -30],
        ]
        self._strokes([_curve(np.array(path, float))], 2.4, 24)

    def _tube(self, finding: CTFinding, side: str, rng: np.random.Generator) -> None:
        """A wide, faint tube down the windpipe, and in its wall the thin line that is made to show."""
        tip, pipe = np.array([finding.place]), self.anatomy.windpipe
        path = _curve(np.concatenate([pipe[pipe[:, 0] > tip[0, 0] + 5], tip]))
        self._strokes([path], 8, 7)
        self._strokes([path + np.array([0.0, 1.5, rng.choice((-2.5, 2.5))])], 2.0, 30)

    def _strokes(
        self, lines: list[NDArray[np.floating]], width: float, density: float, filled: bool = False
    ) -> None:
        canvas = Image.new("L", (3 * FINE, 3 * FINE))
        draw = ImageDraw.Draw(canvas)
        for line in lines:
            pixels = [tuple(p) for p in (3 * self._pixel(line)).tolist()]
            if filled:
                draw.polygon(pixels, fill=255)
            else:
                draw.line(pixels, fill=255, width=max(1, round(width * _MM * 3)), joint="curve")
        self.change += density * np.asarray(canvas.reduce(3), np.float32) / 255

    def _pixel(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        return (to_film(points, self.view, self.pose) + FIELD_MM / 2) * _MM - 0.5


def _line_mm() -> Array:
    return ((np.arange(FINE) + 0.5) / _MM - FIELD_MM / 2).astype(np.float32)


def _step(distance: Array, edge: float) -> Array:
    return np.asarray(0.5 + 0.5 * np.tanh(distance / edge), np.float32)


def _waves(away: Array, rng: np.random.Generator, length: float) -> Array:
    """Smooth noise in space of about unit size, the same in either view."""
    total: Array = np.zeros(away.shape[1:], np.float32)
    for _ in range(7):
        direction = (rng.normal(size=3) / length).astype(np.float32)
        total += np.cos(np.tensordot(direction, away, 1) + np.float32(rng.uniform(0, 2 * np.pi)))
    return np.asarray(total / 2, np.float32)


def _curve(points: NDArray[np.floating]) -> NDArray[np.floating]:
    """A rounded line through points, by cutting corners."""
    for _ in range(4):
        near, far = 0.75 * points[:-1] + 0.25 * points[1:], 0.25 * points[:-1] + 0.75 * points[1:]
        middle = np.stack([near, far], axis=1).reshape(-1, 3)
        points = np.concatenate([points[:1], middle, points[-1:]])
    return points


def _scaled(image: Array, middle: NDArray[np.floating], factor: float) -> Array:
    """An image shrunk towards a pixel."""
    u, v = middle
    coefficients = (1 / factor, 0, u - u / factor, 0, 1 / factor, v - v / factor)
    return np.asarray(
        Image.fromarray(image).transform(
            image.shape, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
        )
    )
