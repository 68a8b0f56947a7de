"""Check what PPO cannot start with; SFT says it too, so that nobody trains for a PPO in vain."""

from __future__ import annotations

from pathlib import Path

from lmrrg.config.tree import Config
from lmrrg.metrics.backends import check_backend
from lmrrg.model.decoder import DecoderError
from lmrrg.model.pretrained import load_settings, ppo_obstacle
from lmrrg.own_code import is_own, load_own
from lmrrg.ppo.errors import PPOError


def check_ppo(config: Config, decoder: str | Path | None) -> None:
    """Run all checks of this module.

    Args:
        config: the run.
        decoder: name or folder of the language model; None: a small one is built here.

    Raises:
        DecoderError: as :func:`check_ppo_decoder`.
        PPOError: as :func:`check_ppo_settings`.
        MetricError: ``weights_missing``.
    """
    check_ppo_decoder(decoder)
    check_ppo_settings(config)
    check_backend(config.reward)


def check_ppo_decoder(decoder: str | Path | None) -> None:
    """Refuse a decoder whose attention PPO cannot compute.

    Raises:
        DecoderError: ``decoder_attention``, or as :func:`~lmrrg.model.pretrained.load_settings`.
    """
    if decoder and (obstacle := ppo_obstacle(load_settings(decoder))):
        raise DecoderError(
            "decoder_attention",
            f"PPO cannot train the decoder of {decoder}: {obstacle}; take Llama, Qwen, Mistral or "
            "another decoder with plain attention, and fine-tune it first",
        )


def check_ppo_settings(config: Config) -> None:
    """Refuse settings under which PPO would train nothing, or on wrong probabilities.

    Raises:
        PPOError: ``sampling_temperature`` or ``no_policy_update``.
    """
    if (temperature := config.rollout.temperature) != 1:
        # Ratio and KL compare the trainer's log-probs, which know of no temperature.
        raise PPOError(
            "sampling_temperature",
            f"log-probs are those at 1: rollout.temperature {temperature:g} is not",
        )
    warmup = config.ppo.value_warmup_iterations
    # Without a critic there is nothing to warm up.
    if config.ppo.algorithm == "ppo" and warmup >= config.ppo.iterations:
        raise PPOError(
            "no_policy_update",
            f"the first ppo.value_warmup_iterations ({warmup}) train the value head alone, and "
            f"ppo.iterations are {config.ppo.iterations}: take more iterations or a shorter "
            "warm-up",
        )


def check_own_code(config: Config) -> list[str]:
    """Load every function of somebody's own that the settings name, and return the names.

    Raises:
        CodedError: ``own_code``, as :func:`~lmrrg.own_code.load_own`.
    """
    named = [("evaluation.extra_metrics", name) for name in config.evaluation.extra_metrics]
    if is_own(config.model.image_encoder.name):
        named.append(("model.image_encoder", config.model.image_encoder.name))
    if config.reward.function is not None:
        named.append(("reward.function", config.reward.function))
    for setting, name in named:
        load_own(name, setting)
    return [name for _, name in named]
