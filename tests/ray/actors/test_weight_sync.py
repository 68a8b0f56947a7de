"""Test weights through vLLM's transfer backends: they arrive, engines may die, damage is found."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import ray
import torch

from actors import policy, rollout
from actors.actor_pool import PeerLostError, PoolError
from actors.weight_sync.update import SentDecoder, WeightUpdate
from lmrrg.config.tree import Config
from lmrrg.model.checkpoint import load_checkpoint
from lmrrg.model.prompts import prompt_ids
from lmrrg.policy.batches import Experience, Rollout
from lmrrg.vision.files import load_features
from rl.crew import Crew, policy_settings
from tests.support.engine_oracle import PARITY, largest_difference
from tests.support.ppo.settings import ppo_config
from tests.support.pretended_gpus import PretendingEngine, PretendingRank

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]

CASES = {
    "nccl": {"workers": 2, "engines": 2, "zero_stage": 2},
    "ipc": {"workers": 2, "engines": 2, "zero_stage": 3},
}


@pytest.fixture(scope="module", params=CASES)
def run(
    request, tiny_config: Config, tiny_checkpoint, tiny_studies, tmp_path_factory
) -> Iterator[SimpleNamespace]:
    """Start a policy and engines that a GPU transfer connects."""
    case = CASES[request.param]
    config = ppo_config(
        tiny_config,
        tmp_path_factory.mktemp("transfer"),
        workers=case["workers"],
        zero_stage=case["zero_stage"],
    )
    # Not validated: without GPUs a configuration with these backends is refused.
    engines = config.rollout.model_copy(
        update={"engines": case["engines"], "weight_transfer": request.param}
    )
    config = config.model_copy(update={"rollout": engines})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy, "PolicyWorker", PretendingRank)
        patch.setattr(rollout, "RolloutActor", PretendingEngine)
        group = policy.PolicyGroup(policy_settings(config), tiny_checkpoint)
        pool = rollout.RolloutPool(
            config.rollout, tiny_checkpoint, seed=config.seed, threads=config.threads
        )
        group.start()
        pool.start()
        crew = Crew(group, None, pool, None, None)
        features = load_features(tiny_studies, config.data, progress=False)
        prompts = [prompt_ids(load_checkpoint(tiny_checkpoint).tokenizer, config.model, "")] * len(
            tiny_studies
        )
        yield SimpleNamespace(
            crew=crew, config=config, features=features, prompts=prompts, checkpoint=tiny_checkpoint
        )
        pool.close()
        group.close()


def train(run: SimpleNamespace, seed: int) -> None:
    """Update on random advantages, by enough to tell old weights from new ones."""
    random = torch.Generator().manual_seed(seed)
    rows, width = 2 * len(run.prompts), 9
    reports = Rollout(
        features=run.features,
        prompts=run.prompts,
        study=torch.arange(len(run.prompts)).repeat_interleave(2),
        ids=torch.randint(4, 100, (rows, width), generator=random),
        mask=torch.ones(rows, width, dtype=torch.bool),
    )
    scores = run.crew.policy.log_probs(ray.put(reports)).result()
    noise = [torch.randn(rows, width, generator=random) for _ in range(2)]
    experience = Experience(
        reports,
        reports.mask,
        scores.log_probs,
        scores.values,
        advantages=noise[0],
        returns=noise[1],
    )
    run.crew.policy.update(experience, seed=seed, learning_rate=0.02)


def held_weights_are_the_policys(run: SimpleNamespace) -> bool:
    """Compare the engines' log-probs with the policy's, and with those of the first model."""
    folder = run.config.storage_path / "policy"
    run.crew.policy.save_model(folder, {"stage": "test"})
    start, model = load_checkpoint(run.checkpoint), load_checkpoint(folder)
    reports = run.crew.rollouts.generate(run.features, run.prompts, samples=1, seed=3)
    old = largest_difference(start, run.features, run.prompts, reports)
    assert old > 0.1, "the test can tell old weights from new ones"
    return largest_difference(model, run.features, run.prompts, reports) < PARITY


def test_every_update_arrives_and_a_replaced_engine_has_it_too(run, monkeypatch):
    crew = run.crew
    train(run, seed=1)
    crew.sync(1)
    assert held_weights_are_the_policys(run)
    assert crew.rollouts.metrics()["engines_replaced"] == 0

    ray.kill(crew.rollouts.actors()[0])
    assert held_weights_are_the_policys(run), (
        "the replacement was not there when the weights were sent"
    )

    def ready(group: policy.PolicyGroup, engines: list) -> int | None:
        assert crew.rollouts.metrics()["engines_ready"] == len(engines), (
            "nothing is sent to an engine that starts"
        )
        return send(group, engines)

    send = policy.PolicyGroup.send_decoder
    monkeypatch.setattr(policy.PolicyGroup, "send_decoder", ready)
    train(run, seed=2)
    crew.sync(2)  # with a group that the replacement has joined
    assert held_weights_are_the_policys(run)
    assert crew.rollouts.metrics()["engines_replaced"] == 1

    crew.sync(3, fraction=0.5)  # a mixture, which goes through memory
    crew.sync(4)
    assert held_weights_are_the_policys(run)


@pytest.mark.parametrize("joined", [True, False], ids=["of the group", "of none yet"])
def test_engines_are_replaced_when_one_was_lost_before_it_received(run, joined):
    crew = run.crew
    if joined:
        crew.sync(crew.rollouts.version + 1)
    replaced = crew.rollouts.metrics()["engines_replaced"]
    ray.kill(crew.rollouts.actors()[0])
    train(run, seed=3)
    crew.sync(crew.rollouts.version + 1)  # the others may have got a part
    assert held_weights_are_the_policys(run)
    assert crew.rollouts.metrics()["engines_replaced"] == replaced + len(crew.rollouts.actors())


def test_a_damaged_transfer_is_noticed(run):
    crew = run.crew
    sent = crew.policy.send_decoder(crew.rollouts.actors())
    rest, checksum = crew.policy.state(decoder=False)
    damaged = SentDecoder(sent ^ 1, *crew.policy.begin_state())
    with pytest.raises(PoolError, match="damaged on its way"):
        crew.rollouts.load_weights(WeightUpdate(crew.rollouts.version + 1, checksum, rest, damaged))


def test_an_engine_that_cannot_get_the_whole_state_reports_the_policys_loss():
    state, checksum = ray.remote(num_returns=2)(lambda: 1 / 0).remote()
    with pytest.raises(PeerLostError, match="ZeroDivisionError"):
        SentDecoder(None, state, checksum).fetch_whole()
