"""Train the tests that find images which are no upright chest film, and measure them.

    lmrrg data iu-xray --source data/iu_xray --out iu_xray/studies.jsonl
    lmrrg data phantom --out phantom/studies.jsonl --count 300,100,100
    python benchmarks/chest_film.py --studies iu_xray/studies.jsonl phantom/studies.jsonl
                                    [--out chest_film.safetensors]

They learn the films of the train splits: as they are and cropped, tilted, stretched and relit;
against the same films turned, and against drawn patterns. Measured are the films of the val and
test splits, the same films turned, patterns of each kind by tests that learnt the other kinds only,
and photographs, which no test has learnt. Without --out nothing is written. The packaged weights,
lmrrg/imaging/chest_film.safetensors, were made in this way from IU X-ray (Open-i) and phantoms.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file
from sklearn.datasets import load_sample_images
from sklearn.decomposition import PCA
from sklearn.neural_network import MLPClassifier
from tqdm import tqdm

from lmrrg.imaging.plausibility import (
    FilmModel,
    describe,
    film_distances,
    film_logits,
    is_chest_film,
)
from lmrrg.imaging.radiograph import Pixels, resize
from lmrrg.imaging.reading import read_image, to_square
from lmrrg.manifest import read_studies

SIDE = 256
HIDDEN = 64
DIRECTIONS = 40
PATTERNS = 450
"""Drawn images of each kind."""
# Both keep nearly all films of the train splits: an abstention costs the reader a look, no more.
LEAST_PROBABILITY = 0.3
KEPT_BY_DISTANCE = 99.3
"""Percentage of the train films within the largest distance."""

Draw = Callable[[np.random.Generator], Pixels]


def main() -> None:
    """Train, write the weights and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=Path, nargs="+", required=True, help="manifests")
    parser.add_argument("--out", type=Path, help="weights to write, .safetensors")
    parser.add_argument("--seed", type=int, default=0, help="of all draws (default: 0)")
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    films = [film for path in arguments.studies for film in read_films(path, ("train",))]
    patterns = {
        kind: np.stack([describe(draw(rng)) for _ in range(PATTERNS)])
        for kind, draw in KINDS.items()
    }
    upright, turned = learnt_films(films, rng)
    model = fit(upright, turned, list(patterns.values()), arguments.seed)
    if arguments.out:
        origin = ", ".join(path.parent.name for path in arguments.studies)
        metadata = {"trained_on": f"{len(films)} films of the train splits of {origin}"}
        save_file(model._asdict(), arguments.out, metadata=metadata)
    for path in arguments.studies:
        measure_films(path, model)
    print(f"photographs found: {found(photographs(rng), model):.1%}")
    for kind in patterns:
        others = [described for other, described in patterns.items() if other != kind]
        stranger = fit(upright, turned, others, arguments.seed)
        print(
            f"{kind}: found {found(patterns[kind], model):.1%}, "
            f"without having learnt the kind {found(patterns[kind], stranger):.1%}"
        )


def read_films(manifest: Path, splits: Sequence[str]) -> list[Pixels]:
    """Return the films of some splits as squares [SIDE, SIDE]."""
    studies = [study for split in splits for study in read_studies(manifest, split)]
    paths = [image.path for study in studies for image in study.images]
    return [
        to_square(read_image(path).pixels, SIDE)
        for path in tqdm(paths, unit="image", desc=manifest.parent.name)
    ]


def learnt_films(
    films: Sequence[Pixels], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Describe upright and turned films, two of each from every film: [2 N, FEATURES] both."""
    upright = []
    turned = []
    for film in tqdm(films, unit="film", desc="learning"):
        for shown in (film, varied(film, rng)):
            upright.append(describe(shown))
            turned.append(describe(turns(varied(film, rng))[rng.integers(4)]))
    return np.stack(upright), np.stack(turned)


def varied(film: Pixels, rng: np.random.Generator) -> Pixels:
    """Return a film as another clinic might show it: tilted, cropped, stretched and relit."""
    tilted = Image.fromarray(film).rotate(rng.normal(0, 4), resample=Image.Resampling.BILINEAR)
    left, top, right, bottom = (0.12 * SIDE * rng.random(4)).astype(int)
    cut = np.asarray(tilted.crop((left, top, SIDE - right, SIDE - bottom)))
    stretched = resize(cut, round(SIDE * rng.uniform(0.8, 1.25)), SIDE)
    return to_square(np.clip(stretched, 0, 1) ** np.exp(rng.normal(0, 0.25)), SIDE)


def turns(film: Pixels) -> list[Pixels]:
    """Return a film turned by 90, 180 and 270 degrees, and upside down; sides stay as they are."""
    turned = [np.rot90(film, quarters) for quarters in (1, 2, 3)]
    return [np.ascontiguousarray(image) for image in (*turned, film[::-1])]


def fit(
    upright: np.ndarray, turned: np.ndarray, patterns: Sequence[np.ndarray], seed: int
) -> FilmModel:
    """Fit both tests; all arguments but ``seed`` are described images, [..., FEATURES]."""
    others = np.concatenate([turned, *patterns])
    is_film = np.repeat([True, False], [len(upright), len(others)])
    network = MLPClassifier(
        (HIDDEN,), alpha=1e-2, max_iter=60, early_stopping=True, random_state=seed
    ).fit(np.concatenate([upright, others]), is_film)
    spread = PCA(DIRECTIONS, random_state=seed).fit(upright)
    parts = [
        network.coefs_[0],
        network.intercepts_[0],
        network.coefs_[1][:, 0],
        network.intercepts_[1],
        spread.mean_,
        spread.components_,
        np.append(spread.explained_variance_, spread.noise_variance_),
        np.zeros(2),
    ]
    # safetensors writes the memory as it lies, so each array must lie row by row.
    model = FilmModel(*(np.ascontiguousarray(part, dtype=np.float32) for part in parts))
    least = np.log(LEAST_PROBABILITY / (1 - LEAST_PROBABILITY))
    largest = np.percentile(film_distances(upright, model), KEPT_BY_DISTANCE)
    return model._replace(limits=np.array([least, largest], np.float32))


def measure_films(manifest: Path, model: FilmModel) -> None:
    """Print which part of the val and test films pass, and which part of them is found turned."""
    films = read_films(manifest, ("val", "test"))
    if not films:
        return
    described = np.stack([describe(film) for film in films])
    passed = is_chest_film(described, model)
    likely = film_logits(described, model) >= model.limits[0]
    print(
        f"{manifest}: {len(films)} films, {(~passed).mean():.1%} abstained from "
        f"({(~likely).mean():.1%} by the network)"
    )
    for name, number in (("90", 0), ("180", 1), ("270", 2), ("upside down", 3)):
        turned = np.stack([describe(turns(film)[number]) for film in films])
        print(f"  turned by {name}: found {found(turned, model):.1%}")


def found(described: np.ndarray, model: FilmModel) -> float:
    """Return the part of images that fail a test."""
    return float((~is_chest_film(described, model)).mean())


def photographs(rng: np.random.Generator, count: int = 100) -> np.ndarray:
    """Describe square cuts of scikit-learn's sample photographs."""
    cuts = []
    for photograph in load_sample_images().images:
        grey = photograph.mean(axis=2) / 255
        for _ in range(count):
            side = rng.integers(100, 420)
            top = rng.integers(grey.shape[0] - side + 1)
            left = rng.integers(grey.shape[1] - side + 1)
            cuts.append(to_square(_pixels(grey[top : top + side, left : left + side]), SIDE))
    return np.stack([describe(cut) for cut in cuts])


def _pixels(values: np.ndarray) -> Pixels:
    return np.ascontiguousarray(np.clip(values, 0, 1), dtype=np.float32)


_DOWN, _ACROSS = np.mgrid[0:SIDE, 0:SIDE] / SIDE


def _noise(rng: np.random.Generator) -> Pixels:
    uniform = rng.random() < 0.5
    return _pixels(rng.random((SIDE, SIDE)) if uniform else rng.normal(0.5, 0.2, (SIDE, SIDE)))


def _flat(rng: np.random.Generator) -> Pixels:
    return _pixels(rng.random() + rng.normal(0, 0.02 * rng.random(), (SIDE, SIDE)))


def _along(rng: np.random.Generator) -> np.ndarray:
    """Return each pixel's place along a random direction."""
    angle = 2 * np.pi * rng.random()
    return _ACROSS * np.cos(angle) + _DOWN * np.sin(angle)


def _gradient(rng: np.random.Generator) -> Pixels:
    place = _along(rng)
    return _pixels((place - place.min()) / np.ptp(place))


def _rings(rng: np.random.Generator) -> Pixels:
    far = np.hypot(_ACROSS - rng.random(), _DOWN - rng.random())
    scaled = far / far.max()
    return _pixels(scaled if rng.random() < 0.5 else 1 - scaled)


def _clouds(rng: np.random.Generator) -> Pixels:
    cells = rng.integers(2, 24)
    small = Image.fromarray(rng.random((cells, cells)).astype(np.float32))
    return _pixels(np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC)))


def _stripes(rng: np.random.Generator) -> Pixels:
    return _pixels(0.5 + 0.5 * np.sin(2 * np.pi * rng.integers(2, 40) * _along(rng)))


def _squares(rng: np.random.Generator) -> Pixels:
    cells = rng.integers(2, 32)
    return _pixels((np.floor(_ACROSS * cells) + np.floor(_DOWN * cells)) % 2)


def _halves(rng: np.random.Generator) -> Pixels:
    return _pixels((_ACROSS if rng.random() < 0.5 else _DOWN) > rng.uniform(0.2, 0.8))


def _boxes(rng: np.random.Generator) -> Pixels:
    image = np.full((SIDE, SIDE), rng.random())
    for _ in range(rng.integers(1, 30)):
        top, bottom = np.sort(rng.integers(0, SIDE, 2))
        left, right = np.sort(rng.integers(0, SIDE, 2))
        image[top : bottom + 1, left : right + 1] = rng.random()
    return _pixels(image)


def _discs(rng: np.random.Generator) -> Pixels:
    image = np.full((SIDE, SIDE), 0.3 * rng.random())
    for _ in range(rng.integers(1, 8)):
        across, down, wide, high = rng.random(4)
        x = (_ACROSS - across) / (0.05 + 0.4 * wide)
        y = (_DOWN - down) / (0.05 + 0.4 * high)
        image[x**2 + y**2 < 1] = rng.random()
    return _pixels(image)


KINDS: dict[str, Draw] = {
    "noise": _noise,
    "flat": _flat,
    "gradient": _gradient,
    "rings": _rings,
    "clouds": _clouds,
    "stripes": _stripes,
    "squares": _squares,
    "halves": _halves,
    "boxes": _boxes,
    "discs": _discs,
}

if __name__ == "__main__":
    main()
