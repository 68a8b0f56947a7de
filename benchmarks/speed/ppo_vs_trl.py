"""Measure samples per second of PPO and GRPO in turns with TRL's.

    python benchmarks/speed/ppo_vs_trl.py [--rounds 5] [--precision fp32|bf16] [--natural]
        [--critic detached|separate] [--out FILE.json]

All work on the demo's decoder (4 M parameters), 16 prompts x 8 samples, 2 epochs in minibatches of
64, AdamW, a frozen reference, the embedded RadCliQ reward, and two CPU threads. Reports have 100
tokens: the decoder was taught never to stop. With --natural it stops like the demo's reports do,
and TRL's batches hold padding. TRL's prompts are as long as ours, whose 30 visual tokens are
computed from images on top. Our GRPO takes the engine's log-probs as the old ones
(ppo.old_log_probs=engine); TRL's computes them anew, as it does whenever it generates with
transformers. TRL gets a whole batch per `generate`, no gradient checkpointing, no logging, no
saving, and the faster of two microbatches. Its vLLM mode calls `load_weights`, which vLLM on CPU
cannot do, so it generates with transformers, as on any CPU. With --precision bf16 matrix products
run in bfloat16 on both sides and weights stay float32 (TRL: bf16=True).

What a run does once (start, first evaluation, the SFT model's own rewards) is not counted. While
TRL works, all processes of our cluster are stopped: idle they cost it up to a sixth of its speed,
as both its threads wait for any that is interrupted.

TRL 1.12.0 is the last release with PPO. Both releases are installed from PyPI on the first run,
each into a virtual environment of its own in .cache/benchmarks that sees the project's packages.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
from common.pairs import Spread, measure_in_turns, ratio, verdict
from common.stage import CACHE, demo_config, endless_writer, start_ray

from lmrrg.config.tree import Config
from lmrrg.model.generator import VISUAL_TOKENS

NEEDED = ("datasets==4.8.5", "multiprocess==0.70.19")
"""What TRL imports and the project's environment lacks."""
LEARNING_RATE = 1e-6
PHASES = ("sample", "score", "advantages", "update", "sync")


def environment(version: str) -> Path:
    """Return the interpreter of a virtual environment with TRL ``version``.

    It sees the packages of this environment as well.
    """
    folder = CACHE / f"trl-{version}"
    python = folder / "bin" / "python"
    if (folder / "ready").is_file():
        return python
    venv.create(folder, clear=True, with_pip=False)
    own = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    (own / "project.pth").write_text(
        f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    )
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, f"trl=={version}", *NEEDED], check=True)
    (folder / "ready").touch()
    return python


class Trl:
    """A trainer in its own process, one iteration at a time."""

    def __init__(self, version: str, job: dict[str, Any], worker: str = "trl_worker.py"):
        file = CACHE / f"trl-{version}" / f"job-{job['microbatch']}.json"
        python = environment(version)
        file.write_text(json.dumps(job), encoding="utf-8")
        self._log = file.with_suffix(".log")
        settings = os.environ | {
            "OMP_NUM_THREADS": str(job["threads"]),
            "TOKENIZERS_PARALLELISM": "false",
        }
        self._process = subprocess.Popen(
            [python, Path(__file__).parent / "common" / worker, file],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log.open("w"),
            env=settings,
            text=True,
        )
        self.pid = self._process.pid
        self.tokens = 0
        self.answer: dict[str, float] = {}
        """All that the worker said of the last iteration."""

    def iteration(self) -> float:
        """Run one iteration and return its seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"TRL stopped, see {self._log}")
        self.answer = json.loads(line)
        self.tokens = int(self.answer["tokens"])
        return self.answer["seconds"]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


class Ours:
    """The project's algorithm, one iteration at a time."""

    def __init__(self, config: Config, checkpoint: Path):
        from rl.trainer import CQRL, CQRLConfig

        self.config = config
        self._algorithm = CQRL(CQRLConfig.of(config, checkpoint))
        self._algorithm.step()  # the first one also evaluates the SFT model and samples its rewards
        self.seconds: list[dict[str, float]] = []

    def iteration(self) -> float:
        """Run one iteration and return its seconds."""
        started = time.perf_counter()
        metrics = self._algorithm.training_step()
        total = time.perf_counter() - started
        self.seconds.append(metrics | {"total_s": total})
        return total

    def close(self) -> None:
        """Stop the actors."""
        self._algorithm.stop()


def trl_job(config: Config, checkpoint: Path, trainer: str, microbatch: int) -> dict[str, Any]:
    """Return the job of a TRL process.

    Its prompts are as long as ours, all different, each with its reference.
    """
    from transformers import AutoTokenizer

    from lmrrg.model.prompts import prompt_ids
    from lmrrg.run.studies import studies_of

    tokenizer = AutoTokenizer.from_pretrained(checkpoint / "decoder")
    ending = tokenizer.decode(prompt_ids(tokenizer, config.model, ""))
    studies = studies_of(config, "train")
    length = VISUAL_TOKENS + len(prompt_ids(tokenizer, config.model, ""))
    ppo = config.ppo
    return {
        "trainer": trainer,
        "decoder": str(checkpoint / "decoder"),
        "prompts": [
            prompt_of_length(tokenizer, number, ending, length) for number in range(len(studies))
        ],
        "references": [study.report(config.data.section) for study in studies],
        "reward": config.reward.model_dump(mode="json"),
        "batch": ppo.rollout_batch,
        "samples": ppo.samples_per_study,
        "minibatch": ppo.minibatch,
        "microbatch": microbatch,
        "epochs": ppo.epochs,
        "new_tokens": config.rollout.max_new_tokens,
        "learning_rate": LEARNING_RATE,
        "threads": 2,
        "bf16": ppo.precision == "bf16",
        "folder": str(CACHE / "trl-output"),
    }


def prompt_of_length(tokenizer: Any, number: int, ending: str, length: int) -> list[int]:
    """Return the ids of a text of exactly ``length`` tokens that decodes and encodes to itself."""
    words = f"{number}"
    while len(ids := tokenizer.encode(f"{words} {ending}", add_special_tokens=False)) < length:
        words += " the"
    if (
        len(ids) != length
        or tokenizer.encode(tokenizer.decode(ids), add_special_tokens=False) != ids
    ):
        raise SystemExit(f"no prompt of {length} tokens: got {len(ids)}")
    return ids


def our_config(rounds: int, precision: str, *overrides: str) -> Config:
    """Return the demo's PPO settings for as many iterations as the benchmark takes."""
    rounded = ("ppo.precision=bf16", "rollout.dtype=bfloat16", "ppo.parity_tolerance=0.1")
    return demo_config(
        "ppo",
        f"ppo.iterations={rounds + 5}",
        "ppo.eval_every=1000",
        "ppo.eval_studies=8",
        "ppo.value_warmup_iterations=0",
        f"ppo.learning_rate={LEARNING_RATE}",
        "ppo.resume=false",
        # One thread each, and two of every kind, which take turns; half a CPU, as two algorithms
        # share the cluster.
        "ppo.cpus_per_worker=0.5",
        "rollout.cpus_per_engine=0.5",
        "ppo.workers=2",
        "ppo.reference_workers=2",
        "rollout.engines=2",
        "rollout.max_sequences=64",
        *(rounded if precision == "bf16" else ()),
        *overrides,
    )


def faster(config: Config, checkpoint: Path, version: str, trainer: str) -> Trl:
    """Return TRL with the faster of two microbatches: ours, and the whole minibatch."""
    found: dict[float, Trl] = {}
    for microbatch in (config.ppo.microbatch, config.ppo.minibatch):
        contender = Trl(version, trl_job(config, checkpoint, trainer, microbatch))
        contender.iteration()
        seconds = min(contender.iteration() for _ in range(2))
        print(f"TRL {version} {trainer}, microbatch {microbatch}: {seconds:.2f} s", flush=True)
        found[seconds] = contender
    best = min(found)
    for seconds, contender in found.items():
        if seconds != best:
            contender.close()
    return found[best]


@dataclass(frozen=True)
class Pair:
    """An algorithm of ours beside TRL's of the same name.

    ``target`` is the ratio of their speeds that is aimed at.
    """

    name: str
    trl_version: str
    target: float
    config: Config

    def measure(self, checkpoint: Path, rounds: int) -> dict[str, Any]:
        """Return the seconds of every iteration and phase, and print the ratio."""
        with ExitStack() as stack:
            trl = faster(self.config, checkpoint, self.trl_version, self.name.lower())
            stack.callback(trl.close)
            start_ray(self.config)
            stack.callback(ray.shutdown)
            ours = Ours(self.config, checkpoint)
            stack.callback(ours.close)

            def alone() -> float:
                with stopped_but(trl.pid):
                    return trl.iteration()

            seconds = measure_in_turns({"ours": ours.iteration, "TRL": alone}, rounds)
        self._report(seconds, ours, trl)
        return {"seconds": seconds, "phases": ours.seconds}

    def _report(self, seconds: dict[str, list[float]], ours: Ours, trl: Trl) -> None:
        """Print samples per second, their ratio, and where our time goes."""
        ppo = self.config.ppo
        batch = ppo.rollout_batch
        size = f"{batch} samples per iteration"
        print(f"\n{self.name}, {ppo.precision}, {size}, critic {ppo.critic}; median (range)")
        tokens = {"ours": round(ours.seconds[-1]["length"] * batch), "TRL": trl.tokens}
        for name, values in seconds.items():
            rate = Spread.of([batch / value for value in values])
            print(f"{name:4} {rate} samples/s, {Spread.of(values)} s, {tokens[name]} report tokens")
        found = ratio(seconds, "TRL", "ours")
        print(
            verdict(
                f"{self.name}, ours / TRL, samples/s {found}", found.median, at_least=self.target
            )
        )
        measured = ours.seconds[-len(seconds["ours"]) :]
        total = sum(row["total_s"] for row in measured)
        parts: list[str] = []
        for phase in PHASES:
            fraction = sum(row[f"{phase}_s"] for row in measured) / total
            parts.append(f"{phase} {fraction:.0%}")
        print(f"where ours goes: {', '.join(parts)}", flush=True)


@contextmanager
def stopped_but(pid: int) -> Iterator[None]:
    """Suspend every other child of this process, and their children, inside the block."""
    others = [child for child in psutil.Process().children(recursive=True) if child.pid != pid]
    for process in others:
        with suppress(psutil.NoSuchProcess):
            process.suspend()
    try:
        yield
    finally:
        for process in others:
            with suppress(psutil.NoSuchProcess):
                process.resume()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="measured rounds (default %(default)s)"
    )
    parser.add_argument(
        "--precision",
        default="fp32",
        choices=("fp32", "bf16"),
        help="of matrix products, both sides",
    )
    parser.add_argument(
        "--natural", action="store_true", help="reports of natural length instead of 100 tokens"
    )
    parser.add_argument(
        "--critic",
        default="detached",
        choices=("shared", "detached", "separate"),
        help="of our PPO",
    )
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    args = parser.parse_args()
    grpo = ("ppo.algorithm=grpo", "ppo.sibling_baseline=false", "ppo.old_log_probs=engine")
    pairs = [
        Pair(
            "PPO",
            "1.12.0",
            3.0,
            our_config(args.rounds, args.precision, f"ppo.critic={args.critic}"),
        ),
        Pair("GRPO", "1.16.0", 1.5, our_config(args.rounds, args.precision, *grpo)),
    ]
    checkpoint = endless_writer(pairs[0].config, natural=args.natural)
    figures = {pair.name: pair.measure(checkpoint, args.rounds) for pair in pairs}
    if args.out:
        args.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
