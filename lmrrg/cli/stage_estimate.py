"""How long a run on phantoms will take, estimated before it starts."""

from __future__ import annotations

from lmrrg.config.tree import Config

# Seconds on two CPU cores with the demo's network, measured with `make demo`.
_DRAW_PHANTOM = 0.05
_ENCODE_FILM = 0.04
_TRAIN_STUDY = 0.025
_SAMPLED_REPORT = 0.045
_EVALUATED_STUDY = 0.15
_STARTS = 150
"""Ray, vLLM and DeepSpeed, which start anew in most stages."""

_LARGEST_DECODER = 512
"""Hidden size up to which the figures above hold roughly."""


def estimate_minutes(config: Config) -> float | None:
    """Return the minutes that all stages of a run take on two cores, or None where that is unknown.

    Known are runs on drawn phantoms with a decoder about as small as the demo's.
    """
    phantom = config.data.phantom
    is_like_demo = config.data.source == "phantom" and phantom.generator == "procedural"
    if not is_like_demo or config.model.decoder.hidden_size > _LARGEST_DECODER:
        return None
    studies = phantom.train + phantom.val + phantom.test
    seconds = (
        _STARTS
        + studies * (_DRAW_PHANTOM + _ENCODE_FILM)
        + phantom.train * config.sft.epochs * _TRAIN_STUDY
        + config.ppo.iterations * config.ppo.rollout_batch * _SAMPLED_REPORT
        + phantom.test * _EVALUATED_STUDY
    )
    return seconds / 60
