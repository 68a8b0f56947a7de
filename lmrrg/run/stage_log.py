"""The log of a stage: what libraries and workers print goes to a file, not to the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lmrrg.progress import bars_on


@contextmanager
def stage_log(path: Path) -> Iterator[None]:
    """Append all output of the block to ``path``, except progress bars, which stay on the terminal.

    The output of other processes that inherit our streams, and of Ray workers, whose lines Ray
    prints in this process, goes to the file too. Bars go to what was standard error before.

    Args:
        path: log file; its folder is created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    # Libraries in C and child processes write to the file descriptors 1 and 2 and know nothing of
    # sys.stdout, so the descriptors themselves are pointed at the file.
    saved_out = os.dup(1)
    saved_err = os.dup(2)
    with path.open("a", encoding="utf-8") as log, os.fdopen(saved_err, "w") as terminal:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            with bars_on(terminal):
                yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(saved_out, 1)
            os.dup2(saved_err, 2)
            os.close(saved_out)
