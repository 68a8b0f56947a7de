"""Put the findings of a CT phantom into the line integrals of both views (ours)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from lmrrg.data.phantom.ct.bodies import FINE, Anatomy, Array, Projection
from lmrrg.data.phantom.ct.findings import SIDES, CTFinding
from lmrrg.data.phantom.ct.projection import FIELD_MM, FilmView, Pose, to_film
from lmrrg.data.phantom.ct.volume import RIBS

_CELLS_PER_MM = FINE / FIELD_MM


class Implant:
    """Findings as a change of one view's line integrals.

    ``change``, float32 [320, 320] in mm of water, grows as findings are added.
    """

    def __init__(self, film: Projection, anatomy: Anatomy, view: FilmView, pose: Pose):
        self.film = film
        self.anatomy = anatomy
        self.view = view
        self.pose = pose
        self.change = np.zeros((FINE, FINE), np.float32)

    def add(self, finding: CTFinding, rng: np.random.Generator) -> None:
        """Add a finding; the same state of ``rng`` puts the same thing into either view."""
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
        if draw is None:
            # Cardiomegaly and hyperinflation are shapes of the body, not put into it.
            return
        for side in SIDES if finding.side == "bilateral" else (finding.side,):
            draw(finding, side, rng)

    def _fill(self, side: str, fraction: Array, density: float) -> None:
        """Fill a fraction of a lung's air, given by cell [16, 80, 80], with tissue.

        The fraction is found at the low resolution of the depths, and applied to the lung's air at
        the full one, so that the lung's own border stays sharp.
        """
        row = SIDES.index(side)
        air = self.film.depths[row]
        # The small constant avoids 0 / 0 where there is no lung.
        part = (air * fraction).sum(axis=0) / (air.sum(axis=0) + 1e-3)
        fine = np.asarray(Image.fromarray(part).resize((FINE, FINE), Image.Resampling.BICUBIC))
        self.change += density * np.clip(fine, 0, 1) * self.film.air[row]

    def _away(self, middle: NDArray[np.floating] | tuple[float, float, float]) -> Array:
        """Return z, y, x of the cells, in mm from a point: [3, 16, 80, 80]."""
        return self.film.places - np.asarray(middle, np.float32)[:, None, None, None]

    def _effusion(self, finding: CTFinding, side: str, rng: np.random.Generator) -> None:
        """Draw fluid at the bottom of the lung, its border rising towards the side wall."""
        low, high = self.anatomy.lungs[side]
        height = {"small": 38.0, "moderate": 85.0, "large": 150.0}[finding.severity]
        height = height + rng.uniform(-6, 6)
        z, _, x = self.film.places
        inner, outer = sorted(np.abs([low[2], high[2]]))
        rise = 34 * np.clip((np.abs(x) - inner) / (outer - inner), 0, 1) ** 2.5
        self._fill(side, _step(low[0] + height + rise - z, 4), 0.98)

    def _consolidation(self, finding: CTFinding, side: str, rng: np.random.Generator) -> None:
        """Draw an ellipsoid of tissue with an irregular border."""
        radii = rng.uniform((26, 42, 28), (38, 62, 42)).astype(np.float32)
        away = self._away(finding.place or (0, 0, 0))
        radius = np.sqrt(((away / radii[:, None, None, None]) ** 2).sum(axis=0))
        self._fill(side, _step(1 + 0.4 * _waves(away, rng, 13) - radius, 0.4), 1.0)

    def _edema(self, finding: CTFinding, side: str, rng: np.random.Generator) -> None:
        """Draw haze that fades with the distance from the hilum."""
        grade = {"mild": 0.3, "moderate": 0.5, "severe": 0.8}[finding.severity]
        away = self._away(self.anatomy.hila[side] + np.array([-15, 0, 0]))
        wing = np.exp(-((away[0] / 85) ** 2) - (away[1] / 80) ** 2 - (away[2] / 58) ** 2)
        self._fill(side, np.clip(wing * (1 + 0.55 * _waves(away, rng, 11)), 0, 1.6), grade)

    def _atelectasis(self, finding: CTFinding, side: str, rng: np.random.Generator) -> None:
        """Draw a thin sheet of tissue, which is a line on the film."""
        away = self._away(finding.place or (0, 0, 0))
        slope = rng.uniform(0.05, 0.3) * (1 if side == "right" else -1)
        sheet = away[0] - 46 - slope * away[2] + 2 * _waves(away, rng, 40)
        reach = np.sqrt((away[2] / rng.uniform(30, 42)) ** 2 + (away[1] / 75) ** 2)
        self._fill(side, np.exp(-((sheet / 6.0) ** 2)) * _step(1 - reach, 0.1), 1.0)

    def _nodule(self, finding: CTFinding, side: str, rng: np.random.Generator) -> None:
        """Draw a ball: its thickness along the ray at every distance from its middle."""
        radius = rng.uniform(7, 13)
        u, v = to_film(np.array(finding.place), self.view, self.pose)
        line = _cell_middles_mm()
        squared_distance = (line[None, :] - u) ** 2 + (line[:, None] - v) ** 2
        thickness = 2 * np.sqrt(np.maximum(radius**2 - squared_distance, 0))
        self.change += gaussian_filter(thickness, 0.8).astype(np.float32)

    def _pneumothorax(self, finding: CTFinding, side: str, rng: np.random.Generator) -> None:
        """Draw a lung that shrank towards its hilum, air without vessels around it, its border.

        25 mm of air along the ray count as inside of the lung.
        """
        shrunk = {"small": 0.88, "moderate": 0.74, "large": 0.55}[finding.severity]
        air = self.film.air[SIDES.index(side)]
        hilum = self._pixel(self.anatomy.hila[side])
        inside = np.clip(gaussian_filter(_scaled(air, hilum, shrunk), 1) / 25, 0, 1)
        space = np.clip(air / 25, 0, 1) * (1 - inside)
        edge = np.abs(np.gradient(inside)[0]) + np.abs(np.gradient(inside)[1])
        # The air of the space as it would be without the vessels: smoothed, and never less.
        envelope = np.maximum(1.04 * gaussian_filter(air, 9), air)
        # In a lateral film the other lung lies in front.
        visible = 1.0 if self.view == "PA" else 0.5
        lung = np.clip(air / 25, 0, 1) * inside
        line = 34 * np.clip(edge, 0, 0.5) * np.clip(air / 25, 0, 1)
        self.change += visible * ((air - envelope - 16) * space + 60 * (1 - shrunk) * lung + line)

    def _fracture(self, finding: CTFinding, side: str, rng: np.random.Generator) -> None:
        """Draw a broken rib: its outer piece is erased, and drawn more than its height below."""
        at = np.array(finding.place)
        for organ in RIBS[side]:
            points, _ = self.anatomy.points(organ)
            if np.linalg.norm(points - at, axis=1).min() < 2:
                line = _rib_from(points, at)
                self._strokes([line], 9, -11)
                self._strokes([line[1:] - np.array([12.0, 0.0, 0.0])], 7, 16)

    def _pacemaker(self, finding: CTFinding, side: str, rng: np.random.Generator) -> None:
        """Draw a case on the chest wall and a lead to the tip of the right ventricle."""
        sign = 1 if side == "left" else -1
        z0 = 88 + rng.uniform(-8, 8)
        x0 = sign * rng.uniform(78, 90)
        turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        case_z = z0 + 19 * np.sin(turn)
        case_x = x0 + 23 * np.cos(turn)
        self._strokes([np.stack([case_z, np.full(24, 105.0), case_x], axis=1)], 0, 60, filled=True)
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
        """Draw a catheter from the side of the neck into the superior vena cava."""
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
        """Draw a wide, faint tube down the windpipe, and in its wall a thin radiopaque line."""
        tip = np.array([finding.place])
        line = self.anatomy.windpipe
        path = _curve(np.concatenate([line[line[:, 0] > tip[0, 0] + 5], tip]))
        self._strokes([path], 8, 7)
        self._strokes([path + np.array([0.0, 1.5, rng.choice((-2.5, 2.5))])], 2.0, 30)

    def _strokes(
        self, lines: list[NDArray[np.floating]], width: float, density: float, filled: bool = False
    ) -> None:
        """Add lines in space, or filled polygons, to the film.

        Args:
            lines: points [N, 3] (z, y, x in mm).
            width: of the lines, mm.
            density: what they add to the line integrals, mm of water.
            filled: whether the lines are borders of polygons.
        """
        # Drawn at three times the size and reduced: Pillow's lines have hard edges.
        canvas = Image.new("L", (3 * FINE, 3 * FINE))
        draw = ImageDraw.Draw(canvas)
        thickness = max(1, round(width * _CELLS_PER_MM * 3))
        for line in lines:
            pixels = [tuple(p) for p in (3 * self._pixel(line)).tolist()]
            if filled:
                draw.polygon(pixels, fill=255)
            else:
                draw.line(pixels, fill=255, width=thickness, joint="curve")
        self.change += density * np.asarray(canvas.reduce(3), np.float32) / 255

    def _pixel(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return points in space [..., 3] as columns and rows of cells [..., 2]."""
        return (to_film(points, self.view, self.pose) + FIELD_MM / 2) * _CELLS_PER_MM - 0.5


def _rib_from(points: NDArray[np.float64], start: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the middle line of a rib, from a point on it 34 mm outwards in steps of 4 mm.

    Args:
        points: all points of the rib, [N, 3] (z, y, x in mm).
        start: the point.
    """
    outward = np.abs(points[:, 2]) - abs(start[2])
    # Not the front end of the rib, which has the same distance from the middle.
    near = (np.abs(points[:, 1] - start[1]) < 45) & (points[:, 0] > start[0] - 40)
    line = []
    for step in np.arange(0, 34, 4.0):
        slab = points[near & (np.abs(outward - step) < 2.5)]
        if len(slab):
            line.append(slab.mean(axis=0))
    return np.array(line)


def _cell_middles_mm() -> Array:
    return ((np.arange(FINE) + 0.5) / _CELLS_PER_MM - FIELD_MM / 2).astype(np.float32)


def _step(distance: Array, edge: float) -> Array:
    """Return a soft step: 0 at negative distances, 1 at positive ones, 0.5 at 0."""
    return np.asarray(0.5 + 0.5 * np.tanh(distance / edge), np.float32)


def _waves(away: Array, rng: np.random.Generator, length: float) -> Array:
    """Return smooth noise in space of about unit size, the same in either view.

    It is a sum of plane waves, so it can be computed at any point; ``length`` is in mm.
    """
    total: Array = np.zeros(away.shape[1:], np.float32)
    for _ in range(7):
        direction = (rng.normal(size=3) / length).astype(np.float32)
        total += np.cos(np.tensordot(direction, away, 1) + np.float32(rng.uniform(0, 2 * np.pi)))
    return np.asarray(total / 2, np.float32)


def _curve(points: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return a rounded line along points [N, 3], by cutting corners four times (Chaikin)."""
    for _ in range(4):
        near = 0.75 * points[:-1] + 0.25 * points[1:]
        far = 0.25 * points[:-1] + 0.75 * points[1:]
        middle = np.stack([near, far], axis=1).reshape(-1, 3)
        points = np.concatenate([points[:1], middle, points[-1:]])
    return points


def _scaled(image: Array, middle: NDArray[np.floating], factor: float) -> Array:
    """Return an image shrunk towards a pixel."""
    u, v = middle
    coefficients = (1 / factor, 0, u - u / factor, 0, 1 / factor, v - v / factor)
    shrunk = Image.fromarray(image).transform(
        image.shape, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
    )
    return np.asarray(shrunk)
