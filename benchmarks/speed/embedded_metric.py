"""Measure the speed of the embedded backend: report pairs per second on one core.

    python benchmarks/speed/embedded_metric.py --studies REPORTS.jsonl

REPORTS.jsonl has one study a line with `findings` and `impression`. The backend's accuracy is
measured by benchmarks/embedded_accuracy.py.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

from lmrrg.metrics.embedded.backend import EmbeddedBackend


def speed(studies: list[dict]) -> None:
    """Print pairs per second of CPU time, first for texts that were never seen before.

    Then the same reports with another reference each: references and most sentences are cached
    now, as from PPO's second epoch on.
    """
    texts = list(dict.fromkeys(f"{s['findings']} {s['impression']}" for s in studies))
    random.Random(0).shuffle(texts)
    half = len(texts) // 2
    hypotheses = texts[:half]
    references = texts[half : 2 * half]
    backend = EmbeddedBackend()
    # Reads all lexicons, that of the headings as well.
    backend.score(["Findings: lungs clear s/p surgery"], ["clear lungs"])
    for name in ("never seen before", "cached references"):
        # CPU time, not wall time: it depends less on what else the machine does.
        start = time.process_time()
        backend.score(hypotheses, references)
        rate = half / (time.process_time() - start)
        print(f"speed, {half} pairs, {name}: {rate:.0f} pairs/s on one core")
        hypotheses = hypotheses[1:] + hypotheses[:1]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=Path, required=True, help="JSONL file of reports")
    options = parser.parse_args()
    speed([json.loads(line) for line in options.studies.open(encoding="utf-8")])


if __name__ == "__main__":
    main()
