"""Measure what sampling reports one iteration ahead (`ppo.rollout_ahead`) saves.

It is compared with sampling on demand.

    python benchmarks/speed/overlap.py [--iterations 5] [key=value ...]

Two figures. Stages that only sleep, one second for the engines and one for everything after them,
show the scheduling by itself: on demand they take turns, ahead they share the second. The demo's
real stages show what is left of it here: where engines and policy share the same cores, as on a
laptop, there is little to gain.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from common.pairs import Spread
from common.stage import demo_config, endless_writer, start_ray

from lmrrg.config.tree import Config
from lmrrg.engine.interfaces import GeneratedReport
from lmrrg.metrics.reward import RadCliQReward
from lmrrg.vision.study_features import StudyFeatures
from rl.sampling import Sampling
from rl.study_pool import StudyBatch, StudySampler

STAGE_S = 1.0
"""Length of a sleeping stage, seconds."""
STUDIES = 4


class SleepingStudies:
    """Stand-in for the training studies, of which nothing is read."""

    def take(self, visits: list[int]) -> StudyBatch:
        """Return a batch of empty images."""
        size = len(visits)
        nothing = StudyFeatures(
            torch.zeros(size, 1, 4, 3), torch.zeros(size, 1).long(), torch.ones(size, 1).bool()
        )
        references = ["the lungs are clear ."] * size
        return StudyBatch(
            nothing, [[1]] * size, references, [5] * size, [{}] * size, [False] * size
        )


class SleepingEngines:
    """Stand-in for the engines: half of the reports after half of the time."""

    version = 0

    def generate(
        self, features: Any, prompts: list, samples: int, seed: int, finished: Any
    ) -> list:
        """Return short reports, ``samples`` of each study."""
        report = GeneratedReport([3, 4], [-0.5, -0.5], "the lungs are clear .", True)
        for rows in (range(STUDIES // 2), range(STUDIES // 2, STUDIES)):
            time.sleep(STAGE_S / 2)
            finished(list(rows), [[report] * samples] * len(rows))
        return [[report] * samples] * STUDIES


def sleeping(ahead: bool, iterations: int) -> list[float]:
    """Return the seconds of each iteration with stages that sleep."""
    config = demo_config(
        "overlap", f"ppo.rollout_ahead={ahead}", f"ppo.iterations={iterations + 1}"
    )
    stand_ins: Any = (
        SleepingStudies(),
        StudySampler(8, STUDIES, 0),
        SleepingEngines(),
        RadCliQReward(config.reward),
    )
    sampling = Sampling(config.ppo, config.seed, *stand_ins)
    seconds = []
    for iteration in range(iterations + 1):
        started = time.perf_counter()
        sampling.take(iteration).scoring.result()
        time.sleep(STAGE_S)
        sampling.wait_idle()
        seconds.append(time.perf_counter() - started)
    sampling.close()
    return seconds[1:]  # the first has nothing that was written before


def real(ahead: bool, iterations: int, overrides: list[str]) -> list[float]:
    """Return the seconds of each iteration of the demo's PPO."""
    import ray

    from rl.trainer import CQRL, CQRLConfig

    config: Config = demo_config(
        "overlap",
        f"ppo.rollout_ahead={ahead}",
        f"ppo.iterations={iterations + 5}",
        "ppo.eval_every=1000",
        "ppo.eval_studies=8",
        "ppo.resume=false",
        *overrides,
    )
    checkpoint = endless_writer(config, natural=True)
    start_ray(config)
    algorithm = CQRL(CQRLConfig.of(config, checkpoint))
    seconds = []
    try:
        for _ in range(2):
            algorithm.step()
        for _ in range(iterations):
            started = time.perf_counter()
            algorithm.training_step()
            seconds.append(time.perf_counter() - started)
    finally:
        algorithm.stop()
        ray.shutdown()
    return seconds


def main() -> None:
    """Measure in the order on demand, ahead, ahead, on demand, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--iterations", type=int, default=5, help="measured iterations of each start"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings that win over the demo's"
    )
    args = parser.parse_intermixed_args()
    _print(
        "stages that sleep", {ahead: sleeping(ahead, args.iterations) for ahead in (False, True)}
    )
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for ahead in (False, True, True, False):
        seconds[ahead] += real(ahead, args.iterations, args.overrides)
    _print("the demo's stages", seconds)


def _print(name: str, seconds: dict[bool, list[float]]) -> None:
    on_demand = Spread.of(seconds[False])
    ahead = Spread.of(seconds[True])
    speedup = on_demand.median / ahead.median
    print(f"{name}: on demand {on_demand} s, ahead {ahead} s per iteration: {speedup:.2f}x")


if __name__ == "__main__":
    main()
