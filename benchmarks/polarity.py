"""Train the classifier that finds inverted films, and measure it on films turned at random.

    lmrrg data iu-xray --source data/iu_xray --out iu_xray/studies.jsonl
    python benchmarks/polarity.py --studies iu_xray/studies.jsonl [--out polarity.safetensors]
                                  [--measure phantom/studies.jsonl ...]

It learns the films of the train split, which must be shown the right way round (bone bright), and
their inversions. Measured are the train and val splits, and all films of --measure. Without --out
nothing is written. The packaged weights, lmrrg/imaging/polarity.safetensors, were made in this way
from IU X-ray (Open-i).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

from lmrrg.imaging.polarity import SURE, describe, inverted_probability
from lmrrg.imaging.reading import read_image
from lmrrg.manifest import read_studies
from lmrrg.studies import Study

# Inverse strength (scikit-learn's C): 32 features against thousands of films.
REGULARISATION = 0.1


def main() -> None:
    """Train, write the weights and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=Path, required=True, help="manifest with splits")
    parser.add_argument("--out", type=Path, help="weights to write, .safetensors")
    parser.add_argument("--measure", type=Path, nargs="*", default=[], help="further manifests")
    parser.add_argument("--seed", type=int, default=0, help="which films are turned (default: 0)")
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    train = describe_films(read_studies(arguments.studies, "train"))
    weight = fit(train)
    if arguments.out:
        origin = f"{arguments.studies.parent.name}, {len(train)} films of the train split"
        save_file({"weight": weight}, arguments.out, metadata={"trained_on": origin})
    print(f"train: {figures(train, weight, rng)}")
    print(f"val: {figures(describe_films(read_studies(arguments.studies, 'val')), weight, rng)}")
    for manifest in arguments.measure:
        print(f"{manifest}: {figures(describe_films(read_studies(manifest)), weight, rng)}")


def describe_films(studies: Sequence[Study]) -> np.ndarray:
    """Return the features [N, 32] of every image of the studies."""
    paths = [image.path for study in studies for image in study.images]
    return np.stack([describe(read_image(path).pixels) for path in tqdm(paths, unit="image")])


def fit(described: np.ndarray) -> np.ndarray:
    """Return the weights, float32 [32], for upright films described as [N, 32]."""
    both = np.concatenate([described, -described])
    is_inverted = np.repeat([False, True], len(described))
    # Without intercept, because inverting a film negates its features.
    model = LogisticRegression(C=REGULARISATION, fit_intercept=False, max_iter=1000)
    return model.fit(both, is_inverted).coef_[0].astype(np.float32)


def figures(described: np.ndarray, weight: np.ndarray, rng: np.random.Generator) -> str:
    """Describe how well films [N, 32], turned at random, are told from upright ones."""
    is_turned = rng.random(len(described)) < 0.5
    scores = inverted_probability(np.where(is_turned[:, None], -described, described), weight)
    is_right = (scores > 0.5) == is_turned
    is_sure = np.maximum(scores, 1 - scores) > SURE
    return (
        f"{len(described)} films, {is_turned.sum()} turned; right {is_right.mean():.2%}; "
        f"sure of {is_sure.mean():.2%}, of which {(~is_right[is_sure]).sum()} wrong"
    )


if __name__ == "__main__":
    main()
