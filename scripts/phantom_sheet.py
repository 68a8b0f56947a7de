"""Draw the contact sheet of docs/phantom.md: 16 films of the CT phantom, every kind of finding once.

python scripts/phantom_sheet.py docs/images/phantom_sheet.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from lmrrg.data.phantom.ct.bodies import anatomy
from lmrrg.data.phantom.ct.dataset import films_of
from lmrrg.data.phantom.ct.findings import CTFinding, place

SHOWN: list[tuple[int, str, list[CTFinding]]] = [
    (0, "PA", []),
    (1, "lateral", []),
    (2, "PA", [CTFinding("cardiomegaly", severity="severe")]),
    (3, "PA", [CTFinding("pleural effusion", "left", "moderate")]),
    (4, "lateral", [CTFinding("pleural effusion", "left", "moderate")]),
    (5, "PA", [CTFinding("pleural effusion", "bilateral", "small")]),
    (6, "PA", [CTFinding("pneumothorax", "right", "moderate")]),
    (7, "PA", [CTFinding("pneumothorax", "left", "large")]),
    (8, "PA", [CTFinding("consolidation", "right", zone="upper")]),
    (10, "PA", [CTFinding("edema", "bilateral", "severe")]),
    (11, "PA", [CTFinding("atelectasis", "right", zone="lower")]),
    (12, "PA", [CTFinding("nodule", "right", zone="mid"), CTFinding("rib fracture", "left")]),
    (13, "PA", [CTFinding("hyperinflation")]),
    (14, "PA", [CTFinding("pacemaker", "left")]),
    (15, "PA", [CTFinding("endotracheal tube"), CTFinding("central line", "right")]),
    (16, "lateral", [CTFinding("endotracheal tube")]),
]


def main(out: Path, cache: Path = Path(".cache/phantom_ct")) -> None:
    """Write the sheet, four films across."""
    tiles = []
    for seed, view, findings in SHOWN:
        placed = [
            place(finding, anatomy(), np.random.default_rng([1, seed])) for finding in findings
        ]
        films = films_of(placed, 256, cache, patient=[2, seed], study=[3, seed])
        tiles.append(np.rint(films[view].pixels * 255).astype(np.uint8))  # type: ignore[index]
    rows = [np.hstack(tiles[start : start + 4]) for start in range(0, len(tiles), 4)]
    Image.fromarray(np.vstack(rows)).quantize(44).save(out, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(Path, sys.argv[2:3]))
