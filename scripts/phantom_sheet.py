"""Draw the contact sheet of docs/phantom.md: 16 films of the CT phantom, every kind of finding once.

python scripts/phantom_sheet.py docs/phantom_sheet.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from lmrrg.data.phantom_ct import films_of
from lmrrg.data.phantom_ct_bodies import anatomy
from lmrrg.data.phantom_ct_findings import CTFinding, place

SHOWN: list[tuple[str, list[CTFinding]]] = [
    ("PA", []),
    ("lateral", []),
    ("PA", [CTFinding("cardiomegaly", severity="severe")]),
    ("PA", [CTFinding("pleural effusion", "left", "moderate")]),
    ("lateral", [CTFinding("pleural effusion", "left", "moderate")]),
    ("PA", [CTFinding("pleural effusion", "bilateral", "small")]),
    ("PA", [CTFinding("pneumothorax", "right", "moderate")]),
    ("PA", [CTFinding("pneumothorax", "left", "large")]),
    ("PA", [CTFinding("consolidation", "right", zone="upper")]),
    ("PA", [CTFinding("consolidation", "left", zone="mid")]),
    ("PA", [CTFinding("edema", "bilateral", "severe")]),
    ("PA", [CTFinding("atelectasis", "right", zone="lower")]),
    ("PA", [CTFinding("nodule", "right", zone="mid"), CTFinding("rib fracture", "left")]),
    ("PA", [CTFinding("hyperinflation")]),
    ("PA", [CTFinding("pacemaker", "left")]),
    ("PA", [CTFinding("central line", "right")]),
]


def main(out: Path, cache: Path = Path(".cache/phantom_ct")) -> None:
    """Write the sheet, four films across."""
    tiles = []
    for index, (view, findings) in enumerate(SHOWN):
        placed = [place(finding, anatomy(), np.random.default_rng([1, index])) for finding in findings]
        films = films_of(placed, 256, cache, patient=[2, index], study=[3, index])
        tiles.append(np.rint(films[view].pixels * 255).astype(np.uint8))  # type: ignore[index]
    rows = [np.hstack(tiles[start : start + 4]) for start in range(0, len(tiles), 4)]
    Image.fromarray(np.vstack(rows)).quantize(44).save(out, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(Path, sys.argv[2:3]))
