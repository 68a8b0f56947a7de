"""Test policy ranks on a real cluster: any division gives one update, and loading continues it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
import torch

from actors.policy import PolicyGroup
from actors.reference import AdapterReference, Reference
from lmrrg.config.tree import Config
from lmrrg.model.checkpoint import load_checkpoint, state_checksum
from lmrrg.policy.actor_critic import VALUE_HEAD_FILE, report_log_probs
from lmrrg.policy.batches import Experience, Rollout
from lmrrg.vision.study_features import StudyFeatures
from rl.crew import policy_settings
from tests.support.ppo.settings import ppo_config

pytestmark = pytest.mark.cluster

STUDIES, SAMPLES, WIDTH = 8, 2, 9


@pytest.fixture(scope="module")
def rollout(tiny_checkpoint) -> Rollout:
    """Return random reports of random images."""
    inputs = load_checkpoint(tiny_checkpoint).inputs
    random = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, WIDTH + 1, (STUDIES * SAMPLES, 1), generator=random)
    return Rollout(
        features=StudyFeatures(
            torch.randn(STUDIES, 1, inputs.patches, inputs.patch_width, generator=random),
            torch.zeros(STUDIES, 1, dtype=torch.long),
            torch.ones(STUDIES, 1, dtype=torch.bool),
        ),
        prompts=[[5, 6, 7]] * STUDIES,
        study=torch.arange(STUDIES).repeat_interleave(SAMPLES),
        ids=torch.randint(4, 100, (STUDIES * SAMPLES, WIDTH), generator=random),
        mask=torch.arange(WIDTH) < lengths,
    )


def experience(rollout: Rollout, scores) -> Experience:
    random = torch.Generator().manual_seed(1)
    noise = [torch.randn(rollout.ids.shape, generator=random) for _ in range(2)]
    mask = rollout.mask.clone()
    mask[3] = False  # a report that could not be scored
    return Experience(
        rollout, mask, scores.log_probs, scores.values, advantages=noise[0], returns=noise[1]
    )


LAYOUTS = {
    "one rank": {"workers": 1, "zero_stage": 0},
    "two of each, ZeRO-2, token budget": {
        "workers": 2,
        "reference_workers": 2,
        "zero_stage": 2,
        "microbatch_tokens": 100,
    },
}


@pytest.fixture(scope="module")
def histories(
    ray_cluster, tiny_config, tiny_checkpoint, rollout, tmp_path_factory
) -> dict[str, SimpleNamespace]:
    """Do the same work in every layout."""
    return {
        name: live(
            ppo_config(tiny_config, tmp_path_factory.mktemp("policy"), **layout),
            tiny_checkpoint,
            rollout,
        )
        for name, layout in LAYOUTS.items()
    }


@pytest.fixture(params=LAYOUTS)
def history(request, histories) -> SimpleNamespace:
    return histories[request.param]


def live(config: Config, checkpoint: Path, rollout: Rollout) -> SimpleNamespace:
    """Score, warm up the critic, save, update; then load and update again."""
    folder = config.storage_path
    group = PolicyGroup(policy_settings(config), checkpoint)
    reference = Reference(config.ppo, checkpoint, threads=config.threads)
    group.start()
    shared = ray.put(rollout)
    before, frozen = group.log_probs(shared).result(), reference.result(reference.log_probs(shared))
    warm = group.update(experience(rollout, before), seed=1, learning_rate=0.0)
    warmed = group.log_probs(shared).result()
    group.save(folder / "state")
    data = experience(rollout, warmed)
    first = group.update(data, seed=2, learning_rate=config.ppo.learning_rate)
    stored, checksum = group.state()
    group.load(folder / "state")
    again = group.update(data, seed=2, learning_rate=config.ppo.learning_rate)
    repeated = group.state()[1]
    state = ray.get(stored).tensors()  # one later state does not touch it
    group.save_model(folder / "model", {"stage": "test"})
    group.close()
    reference.close()
    return SimpleNamespace(**locals())


def test_policy_and_reference_start_equal(history):
    mask = history.rollout.mask
    torch.testing.assert_close(history.before.log_probs, history.frozen, rtol=0, atol=1e-5)
    assert not history.before.log_probs[~mask].any()
    assert (history.before.entropy[mask] > 0).all()


def test_warm_up_moves_the_critic_alone(history):
    assert torch.equal(history.before.log_probs, history.warmed.log_probs)
    assert not history.before.values.any()
    assert history.warmed.values.any()
    assert history.warm.metrics["update_kl_per_token"] == pytest.approx(0, abs=1e-9)


def test_updates_start_at_ratio_one_and_move_the_policy(history):
    assert history.first.first_ratio_error <= 1e-5
    assert history.first.metrics["update_kl_per_token"] > 0
    assert history.first.metrics["grad_norm"] > 0
    assert history.first.metrics["steps"] == 4


def test_a_loaded_state_repeats_the_update_bit_for_bit(history):
    assert history.again.metrics == history.first.metrics
    assert history.repeated == history.checksum == state_checksum(history.state)


def test_the_saved_model_holds_the_policy(history):
    model = load_checkpoint(history.folder / "model")
    head = model.decoder.get_output_embeddings().weight
    assert torch.equal(head, history.state["decoder.lm_head.weight"])
    assert (history.folder / "model" / VALUE_HEAD_FILE).is_file()


def test_ranks_zero_and_the_split_do_not_change_the_update(histories):
    one, two = histories.values()
    for name, value in one.first.metrics.items():
        assert two.first.metrics[name] == pytest.approx(value, rel=1e-3, abs=1e-6), name
    for name, tensor in one.state.items():
        torch.testing.assert_close(two.state[name], tensor, rtol=0, atol=1e-5, msg=name)


def test_a_lora_policy_without_its_adapters_is_the_reference(
    ray_cluster, tiny_config, tiny_checkpoint, rollout, tmp_path_factory
):
    """Compare before and after an update, on two ranks, so that rows have to be put in order."""
    config = ppo_config(tiny_config, tmp_path_factory.mktemp("lora"), zero_stage=2)
    decoder = config.model.decoder.model_copy(update={"lora_rank": 4})
    config = config.model_copy(
        update={"model": config.model.model_copy(update={"decoder": decoder})}
    )
    group = PolicyGroup(policy_settings(config), tiny_checkpoint)
    shared = ray.put(rollout)
    group.start()
    reference = AdapterReference(group)
    before, scores = reference.result(reference.log_probs(shared)), group.log_probs(shared).result()
    group.update(experience(rollout, scores), seed=1, learning_rate=config.ppo.learning_rate)
    after, moved = reference.result(reference.log_probs(shared)), group.log_probs(shared).result()
    group.close()
    assert torch.equal(before, scores.log_probs), "fresh adapters change nothing"
    assert torch.equal(before, after)
    assert (moved.log_probs - before)[rollout.mask].abs().max() > 1e-3
    expected = report_log_probs(load_checkpoint(tiny_checkpoint), rollout).detach()
    torch.testing.assert_close(before, expected, rtol=0, atol=1e-5)
