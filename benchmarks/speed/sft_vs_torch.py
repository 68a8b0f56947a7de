"""Measure SFT through Ray Train and DeepSpeed beside a bare PyTorch loop on the same batches.

Also measured is how long it waits for data.

    python benchmarks/speed/sft_vs_torch.py [--rounds 5] [--out FILE.json]

Both train the demo's model on the same minibatches of 32 phantoms in the same order with two
threads and AdamW, four epochs at a time, in turns: the project's rank inside a Ray Train worker,
and in this process a loop of forward, backward, clip and step whose batches already lie in memory
as tensors. Neither validates or writes checkpoints.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from common.pairs import Spread, measure_in_turns, ratio, verdict
from common.stage import demo_config, start_ray

from lmrrg.config.tree import Config
from lmrrg.model.classifier import binary_targets, positive_weights
from lmrrg.model.decoder import build_tokenizer
from lmrrg.model.generator import build_generator
from lmrrg.run.studies import prepare_studies, priors_of, studies_of
from lmrrg.vision.files import FeatureFiles
from sft.batches import Batch, epoch_minibatches
from sft.objective import Objective, parameter_groups
from sft.worker import Job, examples_of

STUDIES = 64
EPOCHS = 4
"""Passes over the studies in one turn."""


def make_job(config: Config) -> Job:
    """Return everything that a rank of SFT needs."""
    prepare_studies(config)
    train = studies_of(config, "train")
    val = studies_of(config, "val")
    tokenizer = build_tokenizer(
        config.model, [study.report(config.data.section) for study in train]
    )
    files = [FeatureFiles(studies, config.data) for studies in (train, val)]
    return Job(
        config, train, val, files[0], files[1], tokenizer, "benchmark", {}, priors_of(config)
    )


def rank_loop(settings: dict[str, Any]) -> None:
    """Train some epochs whenever the file ``go-N`` appears, and answer with ``done-N``.

    Runs in the Ray Train worker.
    """
    import ray

    from sft.worker import RankTrainer

    job: Job = ray.get(settings["job"])
    torch.set_num_threads(job.config.threads)
    trainer = RankTrainer(job)
    folder = Path(settings["folder"])
    waited = [0.0]
    read_ahead = trainer.train.read_ahead

    def timed(*arguments: Any) -> Iterator[Batch]:
        batches = read_ahead(*arguments)
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            waited[0] += time.perf_counter() - started
            if batch is None:
                return
            yield batch

    trainer.train.read_ahead = timed
    for number in range(settings["turns"]):
        while not (folder / f"go-{number}").exists():
            time.sleep(0.01)
        waited[0] = 0.0
        started = time.perf_counter()
        for epoch in range(settings["passes"]):
            trainer._train_epoch(epoch, None)
        answer = json.dumps([time.perf_counter() - started, waited[0]])
        # Renamed, so that the other side never reads a half-written file.
        (folder / f"part-{number}").write_text(answer)
        (folder / f"part-{number}").rename(folder / f"done-{number}")


class OnRay:
    """The rank in its worker, one turn at a time."""

    def __init__(self, job: Job, folder: Path, turns: int):
        import ray
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        from sft.worker import rank_environment

        self._folder = folder
        self._number = 0
        self.waits: list[float] = []
        trainer = TorchTrainer(
            rank_loop,
            train_loop_config={
                "job": ray.put(job),
                "folder": str(folder),
                "turns": turns,
                "passes": EPOCHS,
            },
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ScalingConfig(num_workers=1),
            run_config=RunConfig(
                name="ray",
                storage_path=str(folder),
                worker_runtime_env={"env_vars": rank_environment(job.config)},
            ),
        )
        self._thread = threading.Thread(target=trainer.fit, daemon=True)
        self._thread.start()

    def turn(self) -> float:
        """Run one turn and return its seconds."""
        (self._folder / f"go-{self._number}").touch()
        answer = self._folder / f"done-{self._number}"
        while not answer.exists():
            if not self._thread.is_alive():
                raise SystemExit("the Ray Train worker stopped")
            time.sleep(0.05)
        seconds, waited = json.loads(answer.read_text())
        self.waits.append(waited / seconds)
        self._number += 1
        return seconds

    def close(self) -> None:
        """Wait for the end of the job."""
        self._thread.join(timeout=60)


class Bare:
    """The loop that one would write without any framework."""

    def __init__(self, job: Job):
        config = job.config
        sft = job.config.sft
        torch.set_num_threads(config.threads)
        examples = examples_of(job, "train")
        model = build_generator(config.model, config.data, [], job.tokenizer, seed=config.seed)
        model.extractor.calibrate(job.train_files.select(range(len(examples))))
        self._objective = Objective(model, sft, positive_weights(examples.labels, sft)).train()
        self._optimizer = torch.optim.AdamW(
            parameter_groups(self._objective, sft.weight_decay), lr=1e-4
        )
        self._sft = sft
        self._steps: list[list[Batch]] = []
        cut = sft.microbatch
        for epoch in range(EPOCHS):
            order = epoch_minibatches(examples.lengths, sft.minibatch, config.seed, epoch)
            for rows in order:
                starts = range(0, len(rows), cut)
                self._steps.append([examples.batch(rows[k : k + cut]) for k in starts])

    def turn(self) -> float:
        """Run one turn and return its seconds."""
        started = time.perf_counter()
        for step in self._steps:
            tokens = sum(int(batch.report_mask.sum()) for batch in step)
            classes = sum(int(binary_targets(batch.labels, self._sft)[1].sum()) for batch in step)
            self._optimizer.zero_grad()
            for batch in step:
                nll, disease, *_ = self._objective(batch)
                (nll / tokens + self._sft.classification_weight * disease / classes).backward()
            torch.nn.utils.clip_grad_norm_(self._objective.parameters(), self._sft.gradient_clip)
            self._optimizer.step()
        return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="measured rounds (default %(default)s)"
    )
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    args = parser.parse_args()
    config = demo_config("sft", "sft.workers=1", "threads=2", studies=STUDIES)
    job = make_job(config)
    folder = config.run_dir / f"turns-{time.time_ns()}"
    folder.mkdir()
    start_ray(config)
    on_ray = OnRay(job, folder, args.rounds + 1)
    bare = Bare(job)
    seconds = measure_in_turns(
        {"Ray Train + DeepSpeed": on_ray.turn, "bare PyTorch": bare.turn}, args.rounds
    )
    on_ray.close()
    for name, values in seconds.items():
        print(f"{name:22} {Spread.of([STUDIES * EPOCHS / value for value in values])} studies/s")
    found = ratio(seconds, "bare PyTorch", "Ray Train + DeepSpeed")
    print(
        verdict(
            f"Ray Train + DeepSpeed / bare PyTorch, studies/s {found}", found.median, at_least=0.9
        )
    )
    wait = Spread.of(on_ray.waits[1:])
    print(verdict(f"fraction of SFT that waits for data {wait}", wait.median, at_most=0.05))
    if args.out:
        args.out.write_text(
            json.dumps({"seconds": seconds, "waits": on_ray.waits[1:]}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
