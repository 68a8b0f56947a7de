"""Measure the overhead of a PPO iteration.

That is all but generating, scoring, forward, backward and the optimizer.

    python benchmarks/speed/overhead.py [--iterations 6] [--out FILE.json] [key=value ...]

The demo's PPO on phantoms. Ray's own timeline says when which method of which actor ran. The time
of an iteration in which no actor generates, scores, or runs policy or reference is overhead: data,
transfer, advantages, weight sync, waiting for Ray. What a policy rank does besides forward,
backward and step inside its methods (choosing and padding rows, bookkeeping) is measured on a rank
in this process, and added.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.pairs import Spread, verdict
from common.stage import demo_config, endless_writer, start_ray

from lmrrg.config.tree import Config

COMPUTE = (
    "RolloutActor.apply",
    "RewardActor.apply",
    "PolicyWorker.log_probs",
    "PolicyWorker.update",
    "ReferenceWorker.log_probs",
)
"""Methods whose time counts as computing.

RLlib's actor manager calls every method through ``apply``: until the weight sync, that is
`generate` or `score`.
"""
PHASES = ("sample", "score", "advantages", "update", "sync")
Interval = tuple[float, float]


def run(
    config: Config, checkpoint: Path, iterations: int
) -> tuple[list[Interval], list[dict[str, float]], list[dict]]:
    """Return begin and end of every iteration, its phases, and Ray's timeline."""
    import ray

    from rl.trainer import CQRL, CQRLConfig

    os.environ |= {"RAY_PROFILING": "1", "RAY_task_events_report_interval_ms": "100"}
    start_ray(config)
    algorithm = CQRL(CQRLConfig.of(config, checkpoint))
    spans = []
    phases = []
    try:
        algorithm.step()
        for _ in range(iterations):
            started = time.time()
            metrics = algorithm.training_step()
            spans.append((started, time.time()))
            phases.append({name: metrics[f"{name}_s"] for name in PHASES})
        return spans, phases, ray.timeline()
    finally:
        algorithm.stop()
        ray.shutdown()


def executions(timeline: list[dict[str, Any]]) -> dict[str, list[Interval]]:
    """Return when each method ran, in seconds since the epoch.

    Reading its arguments and storing its result are left out.
    """
    found: dict[str, list[Interval]] = {}
    inner = [event for event in timeline if event.get("cat") == "task:execute"]
    for event in timeline:
        name = str(event.get("cat", "")).removeprefix("task::")
        if name == event.get("cat") or "." not in name:
            continue
        for part in inner:
            inside = (
                event["ts"] <= part["ts"] and part["ts"] + part["dur"] <= event["ts"] + event["dur"]
            )
            if inside and (part["pid"], part["tid"]) == (event["pid"], event["tid"]):
                found.setdefault(name, []).append(
                    (part["ts"] / 1e6, (part["ts"] + part["dur"]) / 1e6)
                )
    return found


def covered(intervals: list[Interval], span: Interval) -> float:
    """Return the seconds of ``span`` that lie in at least one of the intervals."""
    total = 0.0
    reached = span[0]
    for begin, end in sorted(intervals):
        start = max(begin, reached)
        stop = min(end, span[1])
        if stop > start:
            total = total + stop - start
            reached = stop
    return total


class Clock:
    """Sum of the time inside the functions that it wraps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return the same function, timed."""

        def timed(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*arguments, **named)
            finally:
                self.seconds += time.perf_counter() - started

        return timed


def overhead_inside(config: Config, checkpoint: Path) -> float:
    """Return the fraction of a policy rank's update that is overhead.

    Forward, loss, backward and optimizer are not.
    """
    import torch

    from actors.policy_worker import PolicyWorker
    from lmrrg.policy.batches import Experience, Rollout
    from lmrrg.run.studies import studies_of
    from lmrrg.vision.files import load_features
    from rl.crew import policy_settings

    os.environ |= {"DS_ACCELERATOR": "cpu", "TORCHDYNAMO_DISABLE": "1"}
    alone = config.model_copy(update={"ppo": config.ppo.model_copy(update={"workers": 1})})
    worker = PolicyWorker(policy_settings(alone), checkpoint, 0)
    worker.start(("127.0.0.1", worker.address()[1]))
    studies = studies_of(config, "train")[: config.ppo.studies_per_iteration]
    shape = (len(studies) * config.ppo.samples_per_study, config.rollout.max_new_tokens)
    random = torch.Generator().manual_seed(0)
    rollout = Rollout(
        features=load_features(studies, config.data),
        prompts=[[5] * 9] * len(studies),
        study=torch.arange(len(studies)).repeat_interleave(config.ppo.samples_per_study),
        ids=torch.randint(5, 300, shape, generator=random),
        mask=torch.ones(shape, dtype=torch.bool),
    )
    _, scores = worker.log_probs(rollout)
    order = torch.cat([worker.log_probs(rollout)[0]]).argsort()
    values = scores.values[order]
    noise = torch.randn(shape, generator=random)
    experience = Experience(
        rollout, rollout.mask, scores.log_probs[order], values, noise, values + noise
    )
    clock = Clock()
    worker._loss = clock.wrap(worker._loss)
    worker._engine.backward = clock.wrap(worker._engine.backward)
    worker._engine.step = clock.wrap(worker._engine.step)
    worker.update(experience, 0, 1e-6)
    clock.seconds = 0.0
    started = time.perf_counter()
    worker.update(experience, 1, 1e-6)
    return 1 - clock.seconds / (time.perf_counter() - started)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--iterations", type=int, default=6, help="measured iterations (default %(default)s)"
    )
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings that win over the demo's"
    )
    args = parser.parse_args()
    config = demo_config(
        "ppo",
        f"ppo.iterations={args.iterations + 1}",
        "ppo.value_warmup_iterations=0",
        "ppo.eval_every=1000",
        "ppo.eval_studies=8",
        "ppo.resume=false",
        *args.overrides,
    )
    checkpoint = endless_writer(config)
    spans, phases, timeline = run(config, checkpoint, args.iterations)
    ran = executions(timeline)
    if missing := [name for name in COMPUTE if name not in ran]:
        raise SystemExit(
            f"Ray's timeline has no {', '.join(missing)}, but {', '.join(sorted(ran))}"
        )
    work = [interval for name in COMPUTE for interval in ran[name]]
    outside = [
        1 - covered(work, (begin, end - row["sync"])) / (end - begin)
        for (begin, end), row in zip(spans, phases, strict=True)
    ]
    inside = overhead_inside(config, checkpoint)
    updates = [covered(ran["PolicyWorker.update"], span) / (span[1] - span[0]) for span in spans]
    whole = Spread.of([a + inside * b for a, b in zip(outside, updates, strict=True)])
    seconds = Spread.of([end - begin for begin, end in spans])
    print(f"\n{config.ppo.rollout_batch} reports per iteration, {seconds} s")
    for name in PHASES:
        print(f"  {name:10} {Spread.of([row[name] for row in phases])} s")
    print(f"no actor computes: {Spread.of(outside)} of the iteration")
    print(f"inside an update: {inside:.3f} of it")
    print(verdict(f"overhead, share of an iteration {whole}", whole.median, at_most=0.1))
    if args.out:
        args.out.write_text(
            json.dumps({"spans": spans, "phases": phases, "outside": outside, "inside": inside})
            + "\n"
        )


if __name__ == "__main__":
    main()
