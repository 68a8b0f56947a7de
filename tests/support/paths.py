"""Where the checkout lies, and where real data lies that some tests read if it is there."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REAL_DATA = Path(os.environ.get("LMRRG_TEST_DATA", ROOT.parent / "shared" / "data"))
