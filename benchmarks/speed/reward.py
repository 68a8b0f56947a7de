"""Measure the reward's report pairs per second, beside the `radgraph` package itself.

Both backends, cold and cached, with 1 and 2 workers.

    python benchmarks/speed/reward.py [--studies 16] [--samples 4] [--radgraph DIR ...]
        [--out FILE.json]

Published weights are not needed: the published backend runs on random weights of the published
sizes (three models, 1.2 GB in a temporary folder), which cost the same time. The work is PPO's:
several sampled reports per study, scored against the study's reference. One torch thread per
worker; CPU seconds are the figure to compare on a busy machine.

The `radgraph` package needs transformers 4 and runs in a process of its own. Give it the folders to
import from:
    pip install --no-deps --target RG radgraph==0.1.18 dotmap appdirs jsonpickle h5py
    pip install --no-deps --target TF transformers==4.46.3 tokenizers==0.20.3
    pip install --no-deps --target TF huggingface_hub==0.36.0
    python benchmarks/speed/reward.py --radgraph TF RG
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from common.random_weights import write_models
from common.reports import write_reports


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Return (wall seconds, CPU seconds) of one call."""
    wall = time.perf_counter()
    cpu = time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure_worker(task: tuple[str, str, list[str], list[str]]) -> dict[str, tuple[float, float]]:
    """Time one worker in its own process: cold, then with the caches that the first call filled."""
    kind, folder, hypotheses, references = task
    import torch

    torch.set_num_threads(1)
    score: Callable[[Sequence[str], Sequence[str]], object]
    if kind == "embedded":
        from lmrrg.metrics.embedded.backend import EmbeddedBackend

        score = EmbeddedBackend().score
    else:
        from lmrrg.metrics.published.backend import PublishedBackend

        if kind == "radgraph":
            score = _radgraph_alone(Path(folder))
        else:
            score = PublishedBackend(Path(folder), cache=Path(tempfile.mkdtemp(dir=folder))).score
    # Loads rules and kernels; none of the measured texts is cached by it.
    score(["no effusion ."], ["the lungs are clear ."])
    return {state: timed(lambda: score(hypotheses, references)) for state in ("cold", "cached")}


def _radgraph_alone(folder: Path) -> Callable[[Sequence[str], Sequence[str]], object]:
    """Return the part of the backend that the package's call path covers.

    It handles repeated texts as the backend does.
    """
    import torch

    from lmrrg.metrics.published.radgraph import RadGraph, radgraph_f1
    from lmrrg.metrics.published.weight_files import find

    archive = find("RadGraph", folder)["radgraph.tar.gz"]
    model = RadGraph(archive, find("RadGraph encoder", folder), torch.device("cpu"), budget=1024)
    known: dict = {}

    def score(hypotheses: Sequence[str], references: Sequence[str]) -> list[object]:
        fresh = list(
            dict.fromkeys(text for text in [*references, *hypotheses] if text not in known)
        )
        found = dict(zip(fresh, model.annotate(fresh), strict=True)) | known
        known.update({text: found[text] for text in references})
        return [
            radgraph_f1(found[h], found[r]) for h, r in zip(hypotheses, references, strict=True)
        ]

    return score


def measure(
    kind: str, folder: Path, workers: int, pairs: tuple[list[str], list[str]]
) -> dict[str, tuple[float, float]]:
    """Return wall seconds of the slowest worker and CPU seconds of all, by state.

    The pairs are divided among the workers.
    """
    hypotheses, references = pairs
    size = -(-len(hypotheses) // workers)
    tasks = [
        (kind, str(folder), hypotheses[start : start + size], references[start : start + size])
        for start in range(0, len(hypotheses), size)
    ]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        results = pool.map(measure_worker, tasks, chunksize=1)
    return {state: _slowest_and_sum(results, state) for state in ("cold", "cached")}


def _slowest_and_sum(
    results: Sequence[dict[str, tuple[float, float]]], state: str
) -> tuple[float, float]:
    wall = max(result[state][0] for result in results)
    cpu = sum(result[state][1] for result in results)
    return wall, cpu


def package_process(
    folder: Path, imports: Sequence[str], pairs: tuple[list[str], list[str]]
) -> tuple[float, float, list[list[float]]]:
    """Run the package's `F1RadGraph` in a process of its own.

    Returns (wall seconds, CPU seconds, three reward levels).
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(imports), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        __file__,
        "--package-worker",
        str(folder / "RRG_scorers" / "package"),
    ]
    done = subprocess.run(
        command,
        input=json.dumps(pairs),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"the radgraph package failed:\n{done.stderr[-2000:]}")
    answer = json.loads(done.stdout.splitlines()[-1])
    return *answer["seconds"], answer["rewards"]


def package_worker(folder: str) -> None:
    """Time the package's call path on the pairs from stdin, in the package's own process."""
    import torch
    from radgraph import F1RadGraph

    torch.set_num_threads(1)
    hypotheses, references = json.load(sys.stdin)
    scorer = F1RadGraph(reward_level="all", model_type="radgraph", model_cache_dir=folder, cuda=-1)
    rewards: list[object] = []
    seconds = timed(lambda: rewards.extend(scorer(hyps=hypotheses, refs=references)[1]))
    print("\n" + json.dumps({"seconds": seconds, "rewards": rewards}))


def same_scores(
    folder: Path, pairs: tuple[list[str], list[str]], rewards: Sequence[Sequence[float]]
) -> float:
    """Return the largest difference between our three RadGraph levels and the package's."""
    from lmrrg.metrics.published.backend import PublishedBackend

    parts = PublishedBackend(folder).score(*pairs)
    ours = (parts.rg_e, parts.rg_er, parts.rg_bar_er)
    return max(
        abs(a - b)
        for level, theirs in zip(ours, rewards, strict=True)
        for a, b in zip(level, theirs, strict=True)
    )


def main() -> None:
    """Run everything and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=16, help="references (default %(default)s)")
    parser.add_argument(
        "--samples", type=int, default=4, help="sampled reports per reference (default %(default)s)"
    )
    parser.add_argument(
        "--radgraph",
        nargs="+",
        metavar="DIR",
        help="folders to import radgraph and transformers 4 from",
    )
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("--package-worker", metavar="FOLDER", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.package_worker:
        return package_worker(args.package_worker)
    os.environ["OMP_NUM_THREADS"] = "1"
    pairs = write_reports(args.studies, args.samples)
    with tempfile.TemporaryDirectory() as name:
        figures = run(Path(name), pairs, args.radgraph)
    if args.out:
        args.out.write_text(json.dumps(figures, indent=2) + "\n")
    return None


def run(
    folder: Path, pairs: tuple[list[str], list[str]], imports: Sequence[str] | None
) -> list[dict[str, object]]:
    """Measure and print row by row."""
    write_models(folder)
    count = len(pairs[0])
    words = len(pairs[0][0].split())
    print(f"{count} pairs, {len(set(pairs[1]))} references, {words} words in the first report")
    print(f"{'who':34} {'workers':>7} {'state':7} {'pairs/s':>9} {'CPU ms/pair':>12}")
    rows: list[dict[str, object]] = []

    def show(who: str, workers: int, state: str, wall: float, cpu: float) -> None:
        rows.append(
            {
                "who": who,
                "workers": workers,
                "state": state,
                "wall_s": wall,
                "cpu_s": cpu,
                "pairs": count,
            }
        )
        print(
            f"{who:34} {workers:7} {state:7} {count / wall:9.1f} {1000 * cpu / count:12.2f}",
            flush=True,
        )

    for kind, title in (
        ("embedded", "embedded"),
        ("radgraph", "published, RadGraph alone"),
        ("published", "published, all three models"),
    ):
        for workers in (1, 2):
            for state, (wall, cpu) in measure(kind, folder, workers, pairs).items():
                show(title, workers, state, wall, cpu)
    if imports:
        wall, cpu, rewards = package_process(folder, imports, pairs)
        show("radgraph package (its RadGraph)", 1, "cold", wall, cpu)
        difference = same_scores(folder, pairs, rewards)
        print(f"largest difference of rg_e, rg_er, rg_bar_er to the package: {difference:.2g}")
    else:
        print("radgraph package: not compared (see --radgraph in --help)")
    return rows


if __name__ == "__main__":
    main()
