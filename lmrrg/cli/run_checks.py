"""Check a run before it starts: everything that is known without Ray, by the stages' own rules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from actors.placement import address_of, require_listener
from lmrrg.cli.doctor import Check
from lmrrg.cli.stage_results import count_studies
from lmrrg.config.tree import Config
from lmrrg.errors import one_sentence, without_wrapper
from lmrrg.metrics.backends import check_backend
from lmrrg.model.checkpoint import read_checkpoint_config
from lmrrg.model.decoder import build_tokenizer
from lmrrg.model.evidence import check_class_head
from lmrrg.model.pretrained import check_pretrained
from lmrrg.model.prompts import check_prompt_length
from lmrrg.policy.start_checks import check_own_code, check_ppo_decoder, check_ppo_settings
from lmrrg.run.layout import RunLayout
from lmrrg.run.record import sft_of_run
from lmrrg.run.storage import require_storage, require_store
from lmrrg.run.studies import check_studies, require_split
from lmrrg.run.tracking import require_wandb_key
from lmrrg.vision.encoder import encoder_info
from rl.ppo import states_of
from rl.storage.remote_states import Mirror
from sft.eye import check_eye_settings, plan_eye
from sft.eye import is_complete as is_eye_complete
from sft.fingerprint import check_mark
from sft.train import is_complete, plan_run


def check_run(config: Config) -> list[Check]:
    """Return every check of a run; nothing but a small probe is written.

    A check that fails has the level ``problem``, and the error's code and remedy as its detail.
    """
    # As both stages have it.
    config = config.model_copy(update={"storage_path": config.storage_path.resolve()})
    checks = [_outcome(name, check, config) for name, check in _CHECKS]
    # One cause may be met by several checks; it is told where it was met first.
    told = {check.detail: check for check in reversed(checks) if check.level == "problem"}
    return [check for check in checks if told.get(check.detail, check) is check]


def _outcome(name: str, check: Callable[[Config], str], config: Config) -> Check:
    try:
        return Check(name, "ok", check(config))
    except (ValueError, OSError) as error:
        return Check(name, "problem", one_sentence(without_wrapper(error)))


def _storage(config: Config) -> str:
    require_storage(config)
    return f"{config.run_dir} can be written"


def _store(config: Config) -> str:
    if config.ray.checkpoint_storage is None:
        return "not set: checkpoints lie in the run's folder"
    require_store(config, "eye")
    require_store(config, "sft")
    require_store(config, "ppo")
    return f"{config.ray.checkpoint_storage} can be written"


def _cluster(config: Config) -> str:
    require_listener(config.ray)
    address = address_of(config.ray)
    if address is None:
        return "none to join: one of this machine alone is started"
    return f"something listens at {address}"


def _tracking(config: Config) -> str:
    require_wandb_key(config.tracking)
    return f"Weights & Biases {config.tracking.wandb_mode}"


def _reward(config: Config) -> str:
    check_backend(config.reward)
    return f"{config.reward.backend} backend"


def _own_code(config: Config) -> str:
    return ", ".join(check_own_code(config)) or "none"


def _studies(config: Config) -> str:
    found = check_studies(config, again=not config.sft.resume)
    if found is None:
        return "phantoms, drawn when the run starts"
    for split in ("train", "val", config.data.eval_split):
        require_split(found.studies, split)
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in found.dropped.items())
    return count_studies(found.studies) + (dropped and f"; left out: {dropped}")


def _image_encoder(config: Config) -> str:
    if _waits_for_eye(config):
        return "an eye that is trained before SFT"
    info = encoder_info(config.data.image_size, config.model.image_encoder)
    head = "no class head" if info.calibration is None else "a class head"
    return f"{info.version}: {info.patches} patches of {info.width} channels, {head}"


def _waits_for_eye(config: Config) -> bool:
    """Return whether the encoder's weights are what the eye stage will make."""
    weights = config.model.image_encoder.weights
    return config.eye.epochs > 0 and weights is not None and not Path(weights).is_dir()


def _evidence(config: Config) -> str:
    if not config.model.uses_evidence:
        return "none in the prompt"
    if _waits_for_eye(config):
        return "of an eye that is trained before SFT"
    check_class_head(config.model, config.data.image_size)
    return "in the prompt"


def _decoder(config: Config) -> str:
    check_pretrained(config.model)
    name = config.model.decoder.pretrained
    if not name:
        return f"a small {config.model.decoder.architecture}, built when the run starts"
    check_prompt_length(build_tokenizer(config.model, []), config)
    return f"{name} can be fine-tuned"


def _decoder_for_ppo(config: Config) -> str:
    check_ppo_decoder(config.model.decoder.pretrained)
    return "its attention is plain"


def _ppo_settings(config: Config) -> str:
    check_ppo_settings(config)
    return f"{config.ppo.algorithm}, {config.ppo.iterations} iterations"


def _eye(config: Config) -> str:
    if not config.eye.epochs:
        return "no such stage: eye.epochs=0"
    check_eye_settings(config)
    layout = RunLayout(config.run_dir)
    if not layout.fingerprint("eye").is_file():
        return "not begun"
    if not config.eye.resume:
        return "will start again: eye.resume=false"
    plan = plan_eye(config, layout.studies)
    check_mark(config, "eye", plan.fingerprint)
    return "finished" if is_eye_complete(config, plan) else "will continue"


def _sft(config: Config) -> str:
    layout = RunLayout(config.run_dir)
    if not layout.fingerprint("sft").is_file():
        return "not begun"
    if not config.sft.resume:
        return "will start again: sft.resume=false"
    plan = plan_run(config, layout.studies)
    check_mark(config, "sft", plan.fingerprint)
    return "finished" if is_complete(config, plan) else "will continue"


def _ppo(config: Config) -> str:
    sft = sft_of_run(config.run_dir)
    if not sft.is_dir():
        return "not begun: SFT comes first"
    read_checkpoint_config(sft)
    check_ppo_decoder(sft / "decoder")
    if not config.ppo.resume:
        return "will start again: ppo.resume=false"
    done = states_of(config, sft, RunLayout(config.run_dir).studies, Mirror.of(config)).iteration()
    return f"{done} of {config.ppo.iterations} iterations done"


_CHECKS: tuple[tuple[str, Callable[[Config], str]], ...] = (
    ("storage", _storage),
    ("checkpoint store", _store),
    ("cluster", _cluster),
    ("tracking", _tracking),
    ("reward", _reward),
    ("your own functions", _own_code),
    ("evidence", _evidence),
    ("decoder", _decoder),
    ("decoder in PPO", _decoder_for_ppo),
    ("PPO settings", _ppo_settings),
    ("studies", _studies),
    ("eye", _eye),
    ("image encoder", _image_encoder),
    ("SFT", _sft),
    ("PPO", _ppo),
)
