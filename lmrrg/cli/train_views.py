"""Train the classifier that tells frontal from lateral films, on the views of a manifest.

    python -m lmrrg.cli.train_views --studies iu_xray/studies.jsonl [--out views.safetensors]

It is trained on the train split. The printed figures are its agreement with the manifest's views on
the train and val splits. Without --out it replaces the weights that come with the package, which
were made in this way from IU X-ray (Open-i), whose two projections were sorted by people.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config
from lmrrg.errors import run_command
from lmrrg.files import check_outputs
from lmrrg.manifest import read_studies
from lmrrg.studies import Split, Study
from lmrrg.vision import view_classifier
from lmrrg.vision.cache import FeatureError
from lmrrg.vision.view_classifier import SURE, ViewClassifier, describe_views

_SPLITS: tuple[Split, ...] = ("train", "val")
_PACKAGED = Path(view_classifier.__file__).with_name("views.safetensors")


def train_views(manifest: Path, out: Path, origin: str, config: Config) -> None:
    """Train on a manifest, write the weights, and print the agreement with the manifest's views.

    Args:
        origin: description of the data, stored in the file; empty: the studies' source.

    Raises:
        FeatureError: ``no_views``, a split has no image with a known view.
        StudyError: the manifest cannot be read.
    """
    torch.set_num_threads(config.threads)
    features = {}
    lateral = {}
    for split in _SPLITS:
        known = _with_known_views(manifest, split)
        features[split] = describe_views(known, config.data)
        lateral[split] = np.array(
            [image.view == "lateral" for study in known for image in study.images]
        )
        origin = origin or known[0].source
    classifier = ViewClassifier.fit(features["train"], lateral["train"])
    classifier.save(out, f"{origin}, {len(lateral['train'])} images of the train split")
    for split in _SPLITS:
        scores = classifier.lateral_probability(features[split])
        print(f"{split}: {_agreement(scores, lateral[split])}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; bad input ends with one sentence on stderr and exit code 2."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--studies", type=Path, required=True, help="manifest with views and splits"
    )
    parser.add_argument(
        "--out", type=Path, default=_PACKAGED, help="weights to write (default: the packaged ones)"
    )
    parser.add_argument(
        "--origin",
        default="",
        help="description of the data, stored in the file (default: the studies' source)",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings, such as data.cache_dir=DIR"
    )
    args = parser.parse_args(argv)
    return run_command("train_views", lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    # Encoding the images takes long: a file that cannot be written is refused first.
    check_outputs([args.out], [args.studies])
    train_views(args.studies, args.out, args.origin, load_config(None, args.overrides))
    return 0


def _agreement(scores: np.ndarray, lateral: np.ndarray) -> str:
    """Describe how often the probabilities of "lateral" [N] agree with the tags, bool [N]."""
    right = (scores > 0.5) == lateral
    sure = np.maximum(scores, 1 - scores) >= SURE
    return (
        f"{len(right)} images, {lateral.sum()} lateral; agrees with the tag on {right.mean():.2%}; "
        f"sure of {sure.mean():.2%}, of which {right[sure].mean():.2%} agree "
        f"({(~right[sure]).sum()} doubted)"
    )


def _with_known_views(manifest: Path, split: Split) -> list[Study]:
    """Return the studies of a split without their images of unknown view.

    Raises:
        FeatureError: ``no_views``, nothing is left.
    """
    known = []
    for study in read_studies(manifest, split):
        images = tuple(image for image in study.images if image.view != "unknown")
        if images:
            known.append(replace(study, images=images))
    if not known:
        raise FeatureError("no_views", f"{manifest} has no known view in the {split} split")
    return known


if __name__ == "__main__":
    sys.exit(main())
