"""Clinical quality reinforcement learning: PPO with the RadCliQ reward, from an SFT checkpoint.

    python rl/ppo.py --config configs/demo.yaml ppo.iterations=10
    ray job submit --working-dir . -- python rl/ppo.py --config configs/iu_xray.yaml

Writes ``run_dir/ppo/best`` (by the held-out metric) and ``run_dir/ppo/last``, both model
directories, the training state ``run_dir/ppo/state``, and ``run_dir/metrics/ppo.jsonl``. An
interrupted run continues from its last state: on SIGTERM it saves one and ends with exit code 0,
and lost actors or nodes are replaced from the last one.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import ray

from actors.actor_pool import PoolError
from actors.placement import connect
from lmrrg.config.description import config_help
from lmrrg.config.loading import load_config, rebase
from lmrrg.config.tree import Config
from lmrrg.errors import run_command
from lmrrg.manifest import manifest_hash
from lmrrg.model.checkpoint import CheckpointError, checkpoint_encoder, read_checkpoint_config
from lmrrg.policy.start_checks import check_own_code, check_ppo
from lmrrg.progress import progress_bar
from lmrrg.run.layout import RunLayout
from lmrrg.run.lock import run_lock
from lmrrg.run.record import record_ppo_start, record_run
from lmrrg.run.storage import require_storage, require_store
from lmrrg.run.studies import prepare_studies
from lmrrg.run.tracking import RunTracker, read_metrics, require_wandb_key
from rl.prometheus import PrometheusGauges
from rl.recovery import (
    Preempted,
    Restarts,
    StopRequest,
    full_disk_named,
    preemption_notice,
)
from rl.storage.remote_states import Mirror
from rl.storage.training_states import StateStore
from rl.trainer import CQRL, CQRLConfig

logger = logging.getLogger(__name__)

_AFTER_INTERRUPT = "the same command continues from the last saved iteration"


def run_ppo(config: Config, sft_checkpoint: Path | None = None) -> Path:
    """Train the policy and return the directory of its best checkpoint, ``run_dir/ppo/best``.

    Args:
        config: the run.
        sft_checkpoint: model directory to start from and to stay close to; default
            ``run_dir/sft/best``.

    Raises:
        CheckpointError: there is no SFT model; ``own_code_refused``, it wants to encode images with
            code that the settings do not name.
        CodedError: ``own_code``, a function that the settings name is not there.
        DecoderError, MetricError: as :func:`~lmrrg.policy.start_checks.check_ppo`.
        StudyError: the studies cannot be read; ``resume_mismatch``, they are not those that the run
            has worked on.
        PPOError: ``resume_mismatch``, ``checkpoint_store``, ``disk_full``, as
            :func:`~lmrrg.policy.start_checks.check_ppo`, or a check of the training stopped the
            run.
        TrackingError: ``run_in_use``, another command works on the run; ``wandb_key``;
            ``not_writable``; ``checkpoint_store``.
        PlacementError: the cluster is too small or does not answer.
        PoolError: actors were lost more than ``ppo.max_restarts`` times in a row, or failed at
            their work.
        Preempted: SIGTERM or Ctrl-C came; the state is saved and the same call continues.
    """
    # Actors have another working directory, so no path may be relative to this one.
    config = config.model_copy(update={"storage_path": config.storage_path.resolve()})
    sft = Path(sft_checkpoint or RunLayout(config.run_dir).best("sft")).resolve()
    if not sft.is_dir():  # fail fast: the cluster takes minutes to start
        raise CheckpointError(
            "missing_file",
            f"{sft} holds no SFT model: run sft/train.py with the same --config, "
            "or give --sft-checkpoint",
        )
    check_own_code(config)
    checkpoint_encoder(sft, config.model.image_encoder)
    check_ppo(config, sft / "decoder")
    require_storage(config)
    with run_lock(config.run_dir):
        return _run_locked(config, sft)


def _run_locked(config: Config, sft: Path) -> Path:
    """Do the work of :func:`run_ppo` in a folder that nobody else works in."""
    layout = RunLayout(config.run_dir)
    manifest = prepare_studies(config, again=not config.ppo.resume)
    require_store(config, "ppo")
    mirror = Mirror.of(config)
    store = states_of(config, sft, manifest, mirror)
    if config.ppo.resume:
        store.restore()
    else:
        shutil.rmtree(layout.stage("ppo"), ignore_errors=True)
        if mirror:  # else the next start on a fresh machine would restore the old run
            mirror.clear()
    if store.iteration() < config.ppo.iterations:
        require_wandb_key(config.tracking)
        record_run(config, manifest)
        record_ppo_start(config.run_dir, sft)
        connect(config.ray)
        with preemption_notice() as preempted, full_disk_named(config.run_dir):
            _train_to_the_end(config, sft, store, preempted)
    # Version 0 is the SFT model, which is the first best model of every run.
    if read_checkpoint_config(layout.best("ppo"))["provenance"]["weights"] == 0:
        logger.warning(
            "no checkpoint was as good as the SFT model and as varied: %s is the SFT model",
            layout.best("ppo"),
        )
    return layout.best("ppo")


def states_of(config: Config, sft: Path, manifest: Path, mirror: Mirror | None) -> StateStore:
    """Return the training states of a run that starts from the model directory ``sft``."""
    origin = {"sft": weights_digest(sft), "data": manifest_hash(manifest)}
    folder = RunLayout(config.run_dir).ppo_states
    return StateStore(folder, config, origin, config.ppo.keep_checkpoints, mirror)


def _train_to_the_end(config: Config, sft: Path, store: StateStore, preempted: StopRequest) -> None:
    """Train until the last iteration; after a loss of actors, start again from the last state."""
    restarts = Restarts(config.ppo.max_restarts)
    while store.iteration() < config.ppo.iterations:
        try:
            _attempt(config, sft, store, restarts, preempted)
        except PoolError as error:
            restarts.lose(error, store.iteration())


def _attempt(
    config: Config, sft: Path, store: StateStore, restarts: Restarts, preempted: StopRequest
) -> None:
    """Start the actors and train, until the end or until actors are lost."""
    algorithm = CQRL(CQRLConfig.of(rebase(config, Path.cwd()), sft))
    try:
        if (latest := store.latest()) is not None:
            algorithm.load_checkpoint(str(latest[1]))
        _train(algorithm, store, config, restarts, preempted)
    finally:
        algorithm.stop()


def _train(
    algorithm: CQRL,
    store: StateStore,
    config: Config,
    restarts: Restarts,
    preempted: StopRequest,
) -> None:
    """Run the iterations that are left; log each, and save states as often as the settings ask."""
    iterations = config.ppo.iterations
    longest = config.ppo.checkpoint_minutes
    saved = time.monotonic()
    gauges = PrometheusGauges(config.name)
    mixtures: Mapping[str, Mapping[str, float]] = {}
    with (
        RunTracker(config.run_dir, "ppo", config) as tracker,
        progress_bar(
            total=iterations, initial=algorithm.iterations_done, desc="PPO", unit="iteration"
        ) as bar,
    ):
        while algorithm.iterations_done < iterations:
            result = algorithm.train()
            done = algorithm.iterations_done
            if "cqrl_start" in result:
                tracker.log(0, result["cqrl_start"])
            recovery = {"restarts": restarts.total, "recovery_s": restarts.recovered()}
            metrics = result["cqrl"] | recovery
            tracker.log(done, metrics)
            mixtures = result.get("cqrl_mixtures", {})
            gauges.set(metrics)
            bar.update()
            bar.set_postfix(
                {
                    name: f"{metrics[name]:.3f}"
                    for name in ("reward", "kl_per_sequence", "distinct_ratio")
                }
            )
            # Asked once: a notice that comes after this line waits for the next iteration's state.
            stopping = preempted()
            is_due = done % config.ppo.checkpoint_every == 0 or _minutes_since(saved) > longest
            if done < iterations and (is_due or stopping):
                _save(algorithm, store, config)
                saved = time.monotonic()
            if stopping and done < iterations:
                raise Preempted(
                    f"stopped after iteration {done}; the same command continues from there",
                    preempted.exit_code,
                )
    _record_mixtures(config, mixtures)
    # Last of all: once the final state is named, the run counts as finished.
    _save(algorithm, store, config)


def _minutes_since(moment: float) -> float:
    return (time.monotonic() - moment) / 60


def _save(algorithm: CQRL, store: StateStore, config: Config) -> None:
    algorithm.save_model(RunLayout(config.run_dir).last("ppo"))
    store.save(algorithm.iterations_done, algorithm.save_checkpoint)


def _record_mixtures(config: Config, found: Mapping[str, Mapping[str, float]]) -> None:
    """Write ``metrics/mixtures.jsonl``: SFT model, mixtures and policy.

    Its steps are the percentages of the policy, from 0, the SFT model, to 100, the last policy.
    """
    if not found:
        return
    measured = read_metrics(config.run_dir, "ppo")
    ends = {"0": measured[0], "100": measured[-1]}
    names = next(iter(found.values())).keys()
    with RunTracker(config.run_dir, "mixtures", config) as tracker:
        for percent, metrics in sorted({**ends, **found}.items(), key=lambda one: float(one[0])):
            tracker.log(round(float(percent)), {name: metrics[name] for name in names})


def weights_digest(checkpoint: Path) -> str:
    """Return the SHA-256 over the weights of a model directory."""
    digest = hashlib.sha256()
    for path in sorted(checkpoint.rglob("*.safetensors")):
        with path.open("rb") as weights:
            digest.update(hashlib.file_digest(weights, "sha256").digest())
    return digest.hexdigest()


def main(argv: list[str] | None = None) -> int:
    """Run the command line; bad input ends with one sentence and exit code 2."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=config_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config",
        default="configs/demo.yaml",
        help="YAML file with settings (default: %(default)s)",
    )
    parser.add_argument(
        "--sft-checkpoint",
        type=Path,
        help="model directory to start from (default: <run>/sft/best)",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings that win over the file's"
    )
    args = parser.parse_intermixed_args(argv)
    try:
        return run_command("ppo", lambda: _run(args), _AFTER_INTERRUPT)
    finally:
        ray.shutdown()


def _run(args: argparse.Namespace) -> int:
    try:
        best = run_ppo(load_config(args.config, args.overrides), args.sft_checkpoint)
    except Preempted as notice:
        print(f"ppo: {notice}")
        return notice.exit_code
    print(f"best checkpoint: {best}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
