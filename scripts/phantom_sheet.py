"""Draw the contact sheet of docs/phantom.md: 16 films of CT phantoms with every kind of finding.

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
from lmrrg.data.phantom.ct.projection import FilmView

_ROW = 4
_SIDE = 256
_COLOURS = 44
"""Grey levels that are kept, so that the file stays small."""

SHOWN: list[tuple[int, FilmView, list[CTFinding]]] = [
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
    """Write the sheet, four films across; projections are kept in the folder ``cache``."""
    tiles = []
    for seed, view, findings in SHOWN:
        # A new stream for each finding: it lies where it would lie without the others.
        placed = [place(one, anatomy(), np.random.default_rng([1, seed])) for one in findings]
        films = films_of(placed, _SIDE, cache, patient=[2, seed], study=[3, seed])
        tiles.append(np.rint(films[view].pixels * 255).astype(np.uint8))
    rows = [np.hstack(tiles[start : start + _ROW]) for start in range(0, len(tiles), _ROW)]
    Image.fromarray(np.vstack(rows)).quantize(_COLOURS).save(out, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(Path, sys.argv[2:3]))
