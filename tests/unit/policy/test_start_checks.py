"""What PPO cannot start with is known from the settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import Gemma2Config, LlamaConfig

from lmrrg.config.loading import load_config
from lmrrg.errors import CodedError
from lmrrg.metrics.errors import MetricError
from lmrrg.model.decoder import DecoderError
from lmrrg.policy.start_checks import check_ppo, check_ppo_decoder, check_ppo_settings


def test_the_defaults_pass():
    check_ppo(load_config(), None)


@pytest.mark.parametrize(
    ("overrides", "code"),
    [
        (["ppo.iterations=2", "ppo.value_warmup_iterations=2"], "no_policy_update"),
        (["ppo.iterations=3", "ppo.value_warmup_iterations=2"], None),
        (["ppo.iterations=2", "ppo.value_warmup_iterations=2", "ppo.algorithm=rloo"], None),
        (["rollout.temperature=0.5"], "sampling_temperature"),
    ],
)
def test_settings_that_train_nothing_are_refused(overrides: list[str], code: str | None):
    config = load_config(None, overrides)
    if code is None:
        check_ppo_settings(config)
        return
    with pytest.raises(CodedError) as caught:
        check_ppo_settings(config)
    assert caught.value.code == code


def test_a_decoder_is_refused_by_its_attention(tmp_path: Path):
    Gemma2Config().save_pretrained(tmp_path / "gemma")
    LlamaConfig().save_pretrained(tmp_path / "llama")
    check_ppo_decoder(tmp_path / "llama")
    with pytest.raises(DecoderError, match=r"decoder_attention: .*capped.* take Llama"):
        check_ppo_decoder(tmp_path / "gemma")


def test_missing_weights_of_the_reward_are_named_with_their_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    reward = ["reward.backend=published", f"reward.published_dir={tmp_path}"]
    with pytest.raises(MetricError, match=r"weights_missing: .*hf download"):
        check_ppo(load_config(None, reward), None)
