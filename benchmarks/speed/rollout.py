"""Measure sampling with vLLM and the weight sync.

Sampling is compared with `transformers.generate`, the sync with a memcpy.

    python benchmarks/speed/rollout.py [--rounds 5] [--out FILE.json]

Sampling: the demo's decoder (4 M parameters, float32), 100 tokens per report, 32 and 128 reports at
once, one thread, both in this process, in turns. Both compute the prompt (visual half and
embeddings) and return texts; only vLLM also returns log-probs, which PPO needs.

Weights: what one `sync` of PPO does, with a policy rank and an engine in actors of their own: out
of the policy into memory that both map, with a checksum, and from there into the engine, which
checks it again; beside one memcpy of the same bytes. Once with the demo's decoder, where latency
decides, and once with a wide one (92 M parameters), where bytes do. `pack`, a part of `load`:
oneDNN's ordering of the linear layers' weights, without which sampling would be slower.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch
from common.pairs import Spread, measure_in_turns, ratio, verdict
from common.stage import demo_config, endless_writer, start_ray

from lmrrg.config.tree import Config
from lmrrg.engine.report_engine import ReportEngine
from lmrrg.model.checkpoint import full_state, load_checkpoint, save_checkpoint, state_checksum
from lmrrg.model.evidence import at_thresholds, checkpoint_thresholds
from lmrrg.model.generator import ReportGenerator, build_generator
from lmrrg.model.prompts import prompt_ids
from lmrrg.run.studies import priors_of, studies_of
from lmrrg.vision.files import load_features
from lmrrg.vision.study_features import StudyFeatures

SIZES = (32, 128)
WARM_UP = 2
"""Rounds of a sync that do not count: each of the two buffers is new once."""
WIDE = ("hidden_size=768", "heads=12", "layers=12", "intermediate_size=2304")


def timed(call: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


@torch.inference_mode()
def with_transformers(
    model: ReportGenerator, features: StudyFeatures, prompts: list[list[int]], tokens: int
) -> int:
    """Sample one report for each study, and return the number of tokens."""
    embeddings = torch.stack(model.prompt_embeddings(model.visual(features).tokens, prompts))
    ids = model.decoder.generate(
        inputs_embeds=embeddings,
        attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.long),
        max_new_tokens=tokens,
        do_sample=True,
        top_k=0,
    )
    model.tokenizer.batch_decode(ids, skip_special_tokens=True)
    return ids.numel()


def compare_sampling(config: Config, checkpoint: Path, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of both for every number of reports."""
    studies = studies_of(config, "train")
    engine = ReportEngine(checkpoint, config.rollout, threads=config.threads)
    model = load_checkpoint(checkpoint)
    features = load_features(studies, config.data)
    thresholds = checkpoint_thresholds(checkpoint, config.evidence)
    features = at_thresholds(features, model.config, thresholds)
    priors = priors_of(config)
    prompts = [
        prompt_ids(model.tokenizer, model.config, s.indication, priors.get(s.id, ""), evidence)
        for s, evidence in zip(studies, features.evidence, strict=True)
    ]
    turns: dict[str, Callable[[], float]] = {}
    for size in SIZES:
        index = [i % len(studies) for i in range(size)]
        some = features.select(index)
        text = [prompts[i] for i in index]

        def vllm(some: StudyFeatures = some, text: list[list[int]] = text) -> float:
            return timed(lambda: engine.generate(some, text, temperature=1.0, seed=1))

        def plain(some: StudyFeatures = some, text: list[list[int]] = text) -> float:
            return timed(
                lambda: with_transformers(model, some, text, config.rollout.max_new_tokens)
            )

        turns |= {f"vLLM {size}": vllm, f"generate {size}": plain}
    try:
        return measure_in_turns(turns, rounds)
    finally:
        engine.close()


def compare_sync(
    config: Config, checkpoint: Path, rounds: int
) -> tuple[dict[str, list[float]], float]:
    """Return the seconds of every part of a sync and of a memcpy, and megabytes."""
    from actors.policy import PolicyGroup
    from actors.rollout import RolloutPool
    from actors.weight_sync.update import WeightUpdate
    from rl.crew import policy_settings

    state = full_state(load_checkpoint(checkpoint))
    target = {name: torch.empty_like(tensor) for name, tensor in state.items()}
    policy = PolicyGroup(policy_settings(config), checkpoint)
    pool = RolloutPool(config.rollout, checkpoint, seed=config.seed, threads=config.threads)
    parts: dict[str, list[float]] = defaultdict(list)
    try:
        policy.start()
        pool.start()
        for number in range(rounds + WARM_UP):
            started = time.perf_counter()
            stored, checksum = policy.state()
            seconds = {
                "store": time.perf_counter() - started,
                "load": pool.load_weights(WeightUpdate(number + 1, checksum, stored)),
            }
            seconds["memcpy"] = timed(
                lambda: [target[name].copy_(tensor) for name, tensor in state.items()]
            )
            seconds["checksum"] = timed(lambda: state_checksum(state))
            seconds["pack"] = timed(lambda: pack(state))
            if number >= WARM_UP:
                for name, value in seconds.items():
                    parts[name].append(value)
    finally:
        policy.close()
        pool.close()
    return parts, sum(tensor.nbytes for tensor in state.values()) / 1e6


def pack(state: dict[str, torch.Tensor]) -> None:
    """Order the decoder's matrices for oneDNN as the engine does, which has fewer, joined ones."""
    from vllm import _custom_ops as kernels

    for name, tensor in state.items():
        if name.startswith("decoder.") and tensor.ndim == 2:
            kernels.create_onednn_mm(tensor.t())


def wide_model(config: Config) -> tuple[Config, Path]:
    """Return a decoder of random weights, so large that no latency matters."""
    wide = demo_config(
        "wide", *(f"model.decoder.{setting}" for setting in WIDE), "rollout.kv_cache_mb=512"
    )
    target = wide.run_dir / "model"
    if not target.is_dir():
        reports = [study.report("findings") for study in studies_of(config, "train")]
        save_checkpoint(
            build_generator(wide.model, wide.data, reports, seed=wide.seed),
            target,
            {"stage": "benchmark"},
        )
    return wide, target


def report_sampling(seconds: dict[str, list[float]], tokens: int) -> None:
    """Print tokens per second and ratios."""
    for size in SIZES:
        for name in (f"vLLM {size}", f"generate {size}"):
            rate = Spread.of([size * tokens / value for value in seconds[name]])
            print(f"{name:13} {rate} tokens/s")
        found = ratio(seconds, f"generate {size}", f"vLLM {size}")
        print(f"vLLM / generate, {size} reports, tokens/s: {found}")


def report_sync(parts: dict[str, list[float]], megabytes: float) -> None:
    """Print milliseconds of every part, and the ratio to a memcpy."""
    medians = ", ".join(
        f"{name} {1000 * Spread.of(values).median:.1f}" for name, values in parts.items()
    )
    print(f"\nweights, {megabytes:.0f} MB, ms: {medians}")
    whole = [sum(both) for both in zip(parts["store"], parts["load"], strict=True)]
    found = ratio({**parts, "sync": whole}, "sync", "memcpy")
    print(verdict(f"sync / memcpy {found}", found.median, at_most=3.0))


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
    config = demo_config("ppo")
    checkpoint = endless_writer(config)
    seconds = compare_sampling(config, checkpoint, args.rounds)
    report_sampling(seconds, config.rollout.max_new_tokens)
    start_ray(config)
    syncs = {}
    for name, (settings, model) in {
        "demo": (config, checkpoint),
        "wide": wide_model(config),
    }.items():
        parts, megabytes = compare_sync(settings, model, args.rounds)
        report_sync(parts, megabytes)
        syncs[name] = parts | {"megabytes": [megabytes]}
    if args.out:
        args.out.write_text(json.dumps({"sampling_s": seconds, "sync_s": syncs}, indent=2) + "\n")


if __name__ == "__main__":
    main()
