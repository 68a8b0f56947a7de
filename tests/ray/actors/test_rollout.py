"""Test the pool of engines: reports that depend on no engine, current weights, lost engines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch

from actors.actor_pool import PoolError
from actors.placement import preflight
from actors.rollout import RolloutPool, rollout_bundle
from actors.weight_sync.host_memory import stored
from actors.weight_sync.update import WeightUpdate
from lmrrg.config.tree import Config
from lmrrg.model.checkpoint import full_state, load_checkpoint, state_checksum
from lmrrg.model.prompts import prompt_ids
from lmrrg.vision.files import load_features
from lmrrg.vision.study_features import StudyFeatures

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]

PARITY = 5e-4


@pytest.fixture(scope="module")
def pool_config(tiny_config: Config) -> Config:
    rollout = tiny_config.rollout.model_copy(update={"engines": 2, "max_sequences": 6})
    return tiny_config.model_copy(update={"rollout": rollout})


@pytest.fixture(scope="module")
def pool(ray_cluster, pool_config: Config, tiny_checkpoint: Path) -> Iterator[RolloutPool]:
    group = preflight([rollout_bundle(pool_config.rollout)] * 2, timeout=30)
    pool = RolloutPool(
        pool_config.rollout,
        tiny_checkpoint,
        group,
        seed=pool_config.seed,
        threads=pool_config.threads,
        first_bundle=0,
    )
    pool.start()
    yield pool
    pool.close()
    ray.util.remove_placement_group(group)


@pytest.fixture(scope="module")
def features(tiny_studies, tiny_config: Config) -> StudyFeatures:
    return load_features(tiny_studies, tiny_config.data, progress=False)


@pytest.fixture(scope="module")
def prompts(tiny_checkpoint: Path, tiny_config: Config, tiny_studies) -> list[list[int]]:
    tokenizer = load_checkpoint(tiny_checkpoint).tokenizer
    return [prompt_ids(tokenizer, tiny_config.model, "") for _ in tiny_studies]


def difference(model, features, prompts, reports) -> float:
    """Return the largest |engine - transformers| log-probability of the first samples."""
    worst = 0.0
    for study, samples in enumerate(reports):
        ids = torch.tensor([samples[0].token_ids])
        with torch.inference_mode():
            forward = model.report_logits(features.select([study]), [prompts[study]], ids, ids >= 0)
        expected = forward.logits.log_softmax(-1).gather(-1, ids[..., None])[0, :, 0]
        worst = max(worst, (expected - torch.tensor(samples[0].logprobs)).abs().max().item())
    return worst


def ids(reports) -> list[list[list[int]]]:
    return [[report.token_ids for report in samples] for samples in reports]


def test_reports_come_in_order_from_the_checkpoint(pool, features, prompts, tiny_checkpoint):
    finished: list[int] = []
    reports = pool.generate(features, prompts, samples=2, seed=1, progress=finished.append)
    assert [len(samples) for samples in reports] == [2] * len(prompts)
    assert sum(finished) == len(prompts)
    assert len(finished) > 1, "the work was split"
    assert difference(load_checkpoint(tiny_checkpoint), features, prompts, reports) < PARITY
    assert ids(pool.generate(features, prompts, samples=2, seed=1)) == ids(reports)
    assert ids(pool.generate(features, prompts, samples=2, seed=2)) != ids(reports)


def test_a_killed_engine_comes_back_with_the_current_weights(
    pool, features, prompts, tiny_checkpoint
):
    model = load_checkpoint(tiny_checkpoint)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    state = full_state(model)
    update = WeightUpdate(1, state_checksum(state), stored(state))
    assert pool.load_weights(update) > 0
    assert pool.version == 1
    reports = pool.generate(features, prompts, samples=1, seed=3)
    assert difference(model, features, prompts, reports) < PARITY
    assert difference(load_checkpoint(tiny_checkpoint), features, prompts, reports) > 20 * PARITY

    replaced = pool.metrics()["engines_replaced"]
    ray.kill(pool.actors()[0])
    again = pool.generate(features, prompts, samples=1, seed=3)
    assert ids(again) == ids(reports), "the reports do not show which engine wrote them"
    pool.start()  # waits for the replacement
    assert pool.metrics() == {"engines": 2, "engines_ready": 2, "engines_replaced": replaced + 1}
    for _ in range(2):  # both engines, the new one included, take part
        assert (
            difference(
                model, features, prompts, pool.generate(features, prompts, samples=1, seed=4)
            )
            < PARITY
        )


def test_an_older_or_damaged_state_is_refused(pool, tiny_checkpoint):
    state = full_state(load_checkpoint(tiny_checkpoint))
    with pytest.raises(PoolError, match="checksum"):
        pool.load_weights(WeightUpdate(pool.version + 1, "0" * 32, stored(state)))


def test_a_missing_checkpoint_is_named(ray_cluster, tiny_config, tmp_path):
    pool = RolloutPool(
        tiny_config.rollout, tmp_path / "nowhere", seed=0, threads=tiny_config.threads
    )
    with pytest.raises(PoolError, match="missing_file"):
        pool.start()
    pool.close()
