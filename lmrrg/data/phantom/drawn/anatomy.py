"""A normal chest film, drawn from formulas: the body that the phantom's findings are put into.

The drawing is a map of attenuation (0 air, about 1 soft tissue), which a saturating curve turns
into brightness. Coordinates are the patient's own: x from -1 (patient's right, the left of the
film) to 1, y from -1 (top) to 1. All shapes and constants are ours, chosen by eye.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

Map = NDArray[np.floating]
"""A value for every pixel, [S, S], or a part of a film that broadcasts to it."""
Strokes = tuple[Map, float]
"""Lines [N, K, 2] (x and y in patient coordinates) that share one width (same unit)."""

SIDES = {"right": -1, "left": 1}
"""The sign of x on each side of the patient."""


@dataclass(frozen=True)
class Anatomy:
    """One patient's shape, in patient coordinates (the film is 2 wide).

    Attributes:
        half_width: from the spine to the side wall of the rib cage.
        apex: y of the top of the lungs.
        dome_right: y of the right hemidiaphragm's dome.
        dome_left: y of the left one.
        heart_ratio: heart width over chest width; normal below 0.5.
        spacing: distance of neighbouring ribs.
        thickness: attenuation of the soft tissue around the chest.
        breasts: attenuation of the breasts; 0 for none.
        gastric_bubble: air in the stomach; 0 for none.
        bone: factor of the attenuation of bones.
    """

    half_width: float
    apex: float
    dome_right: float
    dome_left: float
    heart_ratio: float
    spacing: float
    thickness: float
    breasts: float
    gastric_bubble: float
    bone: float

    def dome(self, side: str) -> float:
        """Return the height of a hemidiaphragm's dome."""
        return self.dome_right if side == "right" else self.dome_left


@dataclass(frozen=True)
class Pose:
    """How the patient stands before the film: rotation (radians), scale, shift."""

    angle: float
    scale: float
    shift: tuple[float, float]

    def to_patient(self, u: Map, v: Map) -> tuple[Map, Map]:
        """Convert film coordinates in [-1, 1] to patient coordinates."""
        u = (u - self.shift[0]) / self.scale
        v = (v - self.shift[1]) / self.scale
        # float32, as the maps are: a float64 here would make them twice as large.
        cosine = np.float32(np.cos(self.angle))
        sine = np.float32(np.sin(self.angle))
        return cosine * u + sine * v, cosine * v - sine * u

    def to_film(self, x: Map, y: Map) -> tuple[Map, Map]:
        """Convert patient coordinates to film coordinates: the inverse of :meth:`to_patient`."""
        cosine = np.cos(self.angle)
        sine = np.sin(self.angle)
        u = self.scale * (cosine * x - sine * y) + self.shift[0]
        v = self.scale * (sine * x + cosine * y) + self.shift[1]
        return u, v


class Scene:
    """A film that is being drawn; all maps are float32 [S, S].

    Attributes:
        x, y: patient coordinates of every pixel.
        u: distance from the middle line.
        wall: half width of the rib cage at the height of every pixel.
        diaphragm: y of the diaphragm at the x of every pixel.
        left: 1 on the patient's left, 0 on the right.
        hemithorax: per side, 1 inside of the rib cage and beside the mediastinum.
        lung: per side, the part of the hemithorax above the diaphragm.
        attenuation: the drawing.
    """

    def __init__(self, anatomy: Anatomy, pose: Pose, size: int):
        self.anatomy = anatomy
        self.pose = pose
        self.size = size
        line = ((np.arange(size, dtype=np.float32) + 0.5) / size) * 2 - 1
        self.x, self.y = pose.to_patient(line[None, :], line[:, None])
        self.u = np.abs(self.x)
        self.wall = rib_cage(anatomy, self.y)
        self.diaphragm = _diaphragm(anatomy, self.x, self.u)
        self.left = soft(self.x, 0.01)
        chest = soft(self.wall - self.u, 0.018) * soft(self.u - 0.10, 0.02)
        self.hemithorax = {"right": chest * (1 - self.left), "left": chest * self.left}
        aerated = soft(self.diaphragm - self.y, 0.012)
        self.lung = {side: part * aerated for side, part in self.hemithorax.items()}
        self.attenuation = np.zeros((size, size), np.float32)

    def strokes(self, groups: Sequence[Strokes], blur: float = 0.0) -> Map:
        """Return lines as a map [S, S] in [0, 1].

        Args:
            groups: the lines.
            blur: standard deviation of a Gaussian blur, in patient units.
        """
        # Drawn at twice the size and reduced: Pillow's lines have hard edges.
        fine = 2 * self.size
        canvas = Image.new("L", (fine, fine))
        draw = ImageDraw.Draw(canvas)
        for lines, width in groups:
            across, down = self.pose.to_film(lines[..., 0], lines[..., 1])
            pixels = (np.stack([across, down], axis=2) + 1) / 2 * fine
            thickness = max(1, round(width / 2 * fine))
            # Wide lines show gaps at their corners unless these are rounded, which takes longer.
            joint = "curve" if thickness > 6 else None
            for path in pixels.reshape(len(pixels), -1).tolist():
                draw.line(path, fill=255, width=thickness, joint=joint)
        drawn = np.asarray(canvas.reduce(2), dtype=np.float32) / 255
        return blurred(drawn, blur * self.size / 2) if blur else drawn


def blurred(values: Map, sigma: float) -> Map:
    """Return a map with a Gaussian blur; ``sigma`` in pixels."""
    return gaussian_filter(values, sigma, truncate=2.5)


def soft(distance: Map, edge: float) -> Map:
    """Return a soft mask of a signed distance.

    It is 1 well inside (positive distance), 0 outside, and 0.5 on the border; ``edge`` is how wide
    the transition is.
    """
    return (0.5 + 0.5 * np.tanh(distance / (2 * edge))).astype(np.float32)


def ellipse(
    scene: Scene, centre: tuple[float, float], radii: tuple[float, float], angle: float = 0.0
) -> Map:
    """Return the normalised radius of every pixel: below 1 inside the ellipse."""
    dx = scene.x - centre[0]
    dy = scene.y - centre[1]
    cosine = np.float32(np.cos(angle))
    sine = np.float32(np.sin(angle))
    along = (cosine * dx + sine * dy) / radii[0]
    across = (cosine * dy - sine * dx) / radii[1]
    return np.sqrt(along * along + across * across)


def sample_anatomy(rng: np.random.Generator, heart_ratio: float) -> Anatomy:
    """Draw one patient; the heart's size is given, since it may be a finding."""
    dome = rng.uniform(0.34, 0.50)
    return Anatomy(
        half_width=rng.uniform(0.70, 0.80),
        apex=rng.uniform(-0.86, -0.76),
        dome_right=dome,
        # The left dome is lower than the right one, which lies on the liver.
        dome_left=dome + rng.uniform(0.02, 0.08),
        heart_ratio=heart_ratio,
        spacing=rng.uniform(0.135, 0.16),
        thickness=rng.uniform(0.9, 1.15),
        breasts=rng.uniform(0.05, 0.22) * float(rng.random() < 0.5),
        gastric_bubble=rng.uniform(0.15, 0.4) * float(rng.random() < 0.6),
        bone=rng.uniform(0.8, 1.2),
    )


def sample_pose(rng: np.random.Generator) -> Pose:
    """Draw a pose: up to about 4 degrees, 8 % in size and 5 % in position."""
    return Pose(
        rng.normal(0, 0.025),
        rng.uniform(0.93, 1.07),
        (rng.normal(0, 0.03), rng.uniform(-0.03, 0.06)),
    )


def draw_normal(
    scene: Scene, rng: np.random.Generator, *, vessels: dict[str, Map], congestion: float = 0.0
) -> None:
    """Draw everything but the findings.

    Args:
        scene: the film.
        rng: draws what differs between two films of a patient.
        vessels: per side, where lung markings are visible (a map in [0, 1]).
        congestion: from 0 to 1, how much wider the vessels are.
    """
    _draw_body(scene)
    _draw_lungs(scene, rng, vessels, congestion)
    _draw_mediastinum(scene)
    _draw_heart(scene)
    _draw_abdomen(scene, rng)
    _draw_ribs(scene)
    _draw_shoulders(scene, rng)


def heart_outline(scene: Scene) -> Map:
    """Return the normalised radius of the heart: below 1 inside."""
    anatomy = scene.anatomy
    width = 2 * anatomy.half_width * anatomy.heart_ratio
    # A larger heart grows to the patient's left and upwards, as it rests on the diaphragm.
    x = 0.15 * width + 0.02
    height = 0.20 + 0.22 * width
    y = anatomy.dome_left - 0.62 * height
    return ellipse(scene, (x, y), (width / 2, height), angle=-0.30)


def rib_cage(anatomy: Anatomy, y: Map) -> Map:
    """Return the rib cage's half width at every height.

    It is a pointed arch above, and widens slightly below.
    """
    waist = -0.05
    up = np.clip((waist - y) / (waist - anatomy.apex), 0, 1)
    return anatomy.half_width * ((1 - up**2.4) ** 0.55 + 0.07 * np.maximum(y - waist, 0))


def _diaphragm(anatomy: Anatomy, x: Map, u: Map) -> Map:
    """Return the diaphragm's height at every x: two domes with a deep outer recess."""
    dome = np.where(x < 0, np.float32(anatomy.dome_right), np.float32(anatomy.dome_left))
    inner = 0.25 * np.maximum(0.36 - u, 0) ** 2 / 0.36
    outer = 0.30 * (np.maximum(u - 0.36, 0) / (anatomy.half_width - 0.30)) ** 2
    return (dome + inner + outer).astype(np.float32)


def _draw_body(scene: Scene) -> None:
    anatomy = scene.anatomy
    shoulder = 0.26 + 0.95 / (1 + np.exp(-(scene.y + 0.80) / 0.055))
    torso = shoulder - 0.17 * soft(scene.y + 0.25, 0.12)
    body = soft(torso - scene.u, 0.02)
    # The body is thickest in the middle.
    depth = 0.78 + 0.42 * np.exp(-((scene.u / 0.75) ** 2))
    scene.attenuation += body * anatomy.thickness * depth
    for sign in SIDES.values():
        breast = ellipse(scene, (sign * 0.45, 0.22), (0.30, 0.26))
        shape = soft(1 - breast, 0.08)
        scene.attenuation += anatomy.breasts * shape * (0.6 + 0.4 * np.minimum(breast, 1))


def _draw_lungs(
    scene: Scene, rng: np.random.Generator, vessels: dict[str, Map], congestion: float
) -> None:
    branches: list[Strokes] = []
    for sign in SIDES.values():
        branches += _vessels(rng, sign, 1 + 0.5 * congestion)
    drawn = scene.strokes(branches, blur=0.004 + 0.006 * congestion)
    for side, sign in SIDES.items():
        lung = scene.lung[side]
        depth = 0.80 + 0.20 * np.clip((scene.wall - scene.u) / 0.25, 0, 1)
        scene.attenuation -= 0.84 * lung * depth
        hilum = np.exp(
            -(ellipse(scene, (sign * 0.19, -0.08), (0.085, 0.15), angle=-0.3 * sign) ** 2)
        )
        scene.attenuation += lung * vessels[side] * (0.20 + 0.06 * congestion) * drawn
        scene.attenuation += (lung * 0.5 + 0.1) * (0.26 + 0.1 * congestion) * hilum


def _vessels(rng: np.random.Generator, sign: int, widening: float) -> list[Strokes]:
    """Return the vessels of one lung, from the hilum outwards.

    There are four generations; each vessel forks into two thinner ones.
    """
    angle = np.linspace(-1.35, 1.5, 8) + rng.normal(0, 0.15, 8)
    start = np.stack([sign * rng.uniform(0.15, 0.21, 8), -0.08 + 0.10 * np.sin(angle)], axis=1)
    length = rng.uniform(0.12, 0.26, 8)
    generations: list[Strokes] = []
    for width in 0.024 * widening * 0.64 ** np.arange(4):
        # Three steps, each turned a little further, make a bent vessel.
        bend = rng.normal(0, 0.3, len(angle))[:, None] * np.array([0.0, 0.5, 1.0])
        angles = angle[:, None] + bend
        directions = np.stack([sign * np.cos(angles), np.sin(angles)], axis=2)
        steps = directions * (length / 3)[:, None, None]
        origin = np.zeros((len(angle), 1, 2))
        points = start[:, None] + np.concatenate([origin, np.cumsum(steps, axis=1)], axis=1)
        generations.append((points, float(width)))
        # The first half of the next generation turns one way, the second half the other way.
        turns = rng.uniform(0.15, 0.5, (2, len(angle))) * np.array([[1], [-1]])
        angle = (angles[:, -1] + turns).reshape(-1)
        start = np.tile(points[:, -1], (2, 1))
        length = np.tile(length * 0.78, 2)
    return generations


def _draw_mediastinum(scene: Scene) -> None:
    anatomy = scene.anatomy
    x = scene.x
    y = scene.y
    width = 0.125 + 0.03 * soft(y + 0.1, 0.1)
    inside = soft(width - scene.u, 0.016) * soft(0.75 - y, 0.1)
    aortic_knob = soft(1 - ellipse(scene, (0.135, -0.36), (0.085, 0.10)), 0.09)
    pulmonary_artery = soft(1 - ellipse(scene, (0.15, -0.20), (0.07, 0.09)), 0.12)
    # The largest of the three, not their sum: they lie in front of one another in one outline.
    outline = np.maximum(np.maximum(inside, 0.9 * aortic_knob), 0.7 * pulmonary_artery)
    scene.attenuation += 0.50 * outline * soft(y + 0.85, 0.08)
    vertebrae = 0.85 + 0.15 * np.cos(2 * np.pi * y / anatomy.spacing)
    scene.attenuation += 0.22 * anatomy.bone * soft(0.085 - scene.u, 0.012) * vertebrae
    trachea = soft(0.036 - np.abs(x - 0.012), 0.008) * soft(-0.27 - y, 0.02)
    bronchi = soft(0.028 - np.abs(y + 0.27 - 0.9 * scene.u), 0.01) * soft(0.15 - scene.u, 0.02)
    scene.attenuation -= 0.42 * trachea + 0.2 * bronchi * (1 - trachea)


def _draw_heart(scene: Scene) -> None:
    radius = heart_outline(scene)
    muscle = soft(1 - radius, 0.045) * (0.75 + 0.25 * np.sqrt(np.clip(1 - radius, 0, 1)))
    above_diaphragm = soft(scene.diaphragm + 0.05 - scene.y, 0.02)
    # The mediastinum is drawn already; there the heart adds less.
    covered = soft(0.125 - scene.u, 0.02) * 0.55
    scene.attenuation += 0.78 * muscle * above_diaphragm * (1 - covered)


def _draw_abdomen(scene: Scene, rng: np.random.Generator) -> None:
    anatomy = scene.anatomy
    below = soft(scene.y - scene.diaphragm, 0.012) * soft(1.12 * anatomy.half_width - scene.u, 0.02)
    # The liver, on the right, is denser than what lies on the left.
    scene.attenuation += 0.42 * below * (1 - 0.25 * scene.left)
    centre = (rng.uniform(0.28, 0.42), anatomy.dome_left + 0.13)
    radii = (rng.uniform(0.10, 0.17), 0.075)
    bubble = soft(1 - ellipse(scene, centre, radii, angle=rng.normal(0, 0.2)), 0.07)
    scene.attenuation -= 1.6 * anatomy.gastric_bubble * bubble * below


def _draw_ribs(scene: Scene) -> None:
    anatomy = scene.anatomy
    t = scene.u / anatomy.half_width
    # Height below the first rib, along ribs that fall outwards behind, and towards the middle in
    # front.
    posterior = scene.y - (0.34 * np.maximum(t - 0.38, 0) ** 2 - 0.06 * t) - anatomy.apex
    anterior = scene.y - 0.34 * (1 - t) - anatomy.apex - 0.05
    inside = soft(scene.wall + 0.012 - scene.u, 0.01)
    back = _bands(posterior / anatomy.spacing, 0.23)
    back = back * soft(scene.u - 0.09, 0.01) * soft(posterior, 0.02)
    front = _bands(anterior / (1.08 * anatomy.spacing), 0.27)
    front = front * soft(t - 0.42, 0.04) * soft(anterior - 0.2, 0.02)
    above_abdomen = soft(0.80 - scene.y, 0.05)
    ribs = 0.25 * back * (0.7 + 0.6 * t**4) + 0.15 * front
    scene.attenuation += anatomy.bone * inside * above_abdomen * ribs
    # The side wall, seen edge on, is one continuous bright line with a bead at every rib.
    edge = np.exp(-(((scene.wall - scene.u + 0.004) / 0.012) ** 2))
    edge = edge * soft(scene.y - anatomy.apex, 0.02)
    scene.attenuation += 0.14 * anatomy.bone * edge * above_abdomen * (0.5 + 0.5 * back)


def _bands(phase: Map, half: float) -> Map:
    """Return bands that repeat with every whole phase.

    Their margins are brighter, as a rib's cortex is; ``half`` is half a band's width.
    """
    offset = np.abs(phase - np.floor(phase) - 0.5)
    margin = np.exp(-(((offset - half) / 0.06) ** 2))
    return soft(half - offset, 0.03) * 0.75 + 0.45 * margin


def _draw_shoulders(scene: Scene, rng: np.random.Generator) -> None:
    anatomy = scene.anatomy
    along = np.linspace(0, 1, 12)
    height = anatomy.apex + 0.33 + rng.normal(0, 0.015, (2, 1))
    clavicles = _mirrored(
        0.09 + 0.72 * along, height - 0.20 * along + 0.022 * np.sin(2 * np.pi * along)
    )
    bone = scene.strokes([(clavicles, 0.052)], blur=0.006)
    marrow = scene.strokes([(clavicles, 0.030)], blur=0.006)
    scene.attenuation += anatomy.bone * (0.50 * bone - 0.26 * marrow)
    border = _mirrored(np.array([0.66, 0.70, 0.76, 0.80]), np.array([-0.62, -0.40, -0.18, -0.06]))
    blade = _mirrored(np.array([0.80, 0.84, 0.85]), np.array([-0.60, -0.40, -0.20]))
    scene.attenuation += 0.13 * scene.strokes([(blade, 0.2)], blur=0.03)
    scene.attenuation += 0.12 * scene.strokes([(border, 0.025)], blur=0.006)
    for sign in SIDES.values():
        humeral_head = soft(1 - ellipse(scene, (sign * 1.02, -0.62), (0.13, 0.14)), 0.06)
        scene.attenuation += 0.25 * anatomy.bone * humeral_head


def _mirrored(x: Map, y: Map) -> Map:
    """Return one line per side, [2, K, 2]; ``y`` may differ between the sides, [2, K]."""
    both = np.array([[-1.0], [1.0]]) * x
    return np.stack([both, np.broadcast_to(y, both.shape)], axis=2)
