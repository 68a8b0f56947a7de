import dataclasses

import pytest
import torch

from lmrrg.config.ppo import PPOConfig
from lmrrg.policy.batches import Experience
from lmrrg.policy.experience_file import load_experience, require_finite, save_experience
from lmrrg.ppo.errors import PPOError
from lmrrg.ppo.schedule import policy_learning_rate
from tests.support.ppo.batches import random_rollout


@pytest.fixture
def experience() -> Experience:
    rollout = random_rollout(3, 2)
    noise = [torch.randn(rollout.ids.shape) for _ in range(6)]
    return Experience(rollout, rollout.mask, *noise[:4], reference=noise[4], kl_weights=noise[5])


def test_an_experience_comes_back_bit_for_bit(experience, tmp_path):
    save_experience(tmp_path / "new" / "one.safetensors", experience)
    back = load_experience(tmp_path / "new" / "one.safetensors")
    assert (back.rollout.prompts, back.weights) == (experience.rollout.prompts, None)
    for one, other in ((experience, back), (experience.rollout, back.rollout)):
        for field in dataclasses.fields(one):
            value = getattr(one, field.name)
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, getattr(other, field.name)), field.name
    assert torch.equal(experience.rollout.features.patches, back.rollout.features.patches)


def test_other_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"ids": torch.zeros(1)}, str(tmp_path / "model.safetensors"))
    for name in ("model.safetensors", "nothing.safetensors"):
        with pytest.raises(PPOError, match="experience_file"):
            load_experience(tmp_path / name)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_broke_an_update_is_kept(experience, tmp_path, value):
    path = tmp_path / "broken.safetensors"
    require_finite(torch.tensor(1.0), experience, path)
    assert not path.exists()
    with pytest.raises(PPOError, match="not_finite") as caught:
        require_finite(torch.tensor(value), experience, path)
    assert str(path) in str(caught.value)
    assert torch.equal(load_experience(path).advantages, experience.advantages)


def test_the_learning_rate_waits_for_the_critic_and_then_falls():
    ppo = PPOConfig(
        iterations=5, learning_rate=1.0, learning_rate_end=0.2, value_warmup_iterations=1
    )
    assert [policy_learning_rate(ppo, i) for i in range(5)] == pytest.approx(
        [0, 0.8, 0.6, 0.4, 0.2]
    )
    assert policy_learning_rate(ppo.model_copy(update={"algorithm": "rloo"}), 0) == 1.0
