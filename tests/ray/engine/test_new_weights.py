"""Test that new weights reach every part of a running engine, and that old ones are noticed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lmrrg.config.tree import Config
from lmrrg.engine.report_engine import ReportEngine
from lmrrg.model.checkpoint import full_state, load_checkpoint, save_checkpoint, state_checksum
from lmrrg.model.decoder import _small
from lmrrg.model.prompts import prompt_ids
from lmrrg.vision.files import load_features
from lmrrg.vision.study_features import StudyFeatures
from tests.support.engine_oracle import PARITY, largest_difference, long_prompts, other_weights


@pytest.fixture(scope="module")
def features(tiny_studies, tiny_config: Config) -> StudyFeatures:
    return load_features(tiny_studies, tiny_config.data, progress=False)


@pytest.fixture(scope="module")
def prompts(tiny_checkpoint: Path, tiny_config: Config, tiny_studies) -> list[list[int]]:
    return [prompt_ids(load_checkpoint(tiny_checkpoint).tokenizer, tiny_config.model, "")] * len(
        tiny_studies
    )


@pytest.fixture(scope="module")
def fresh_engine(request, tiny_checkpoint: Path, tiny_config: Config, tmp_path_factory):
    """Start an engine whose weights may be replaced; yield it with its checkpoint."""
    architecture, tied = request.param.split("-")
    model = load_checkpoint(tiny_checkpoint)
    settings = tiny_config.model.decoder.model_copy(update={"architecture": architecture})
    decoder = _small(settings, model.tokenizer)
    if tied == "tied":
        decoder.config.tie_word_embeddings = True
        decoder.tie_weights()
    model.decoder = decoder
    directory = tmp_path_factory.mktemp(request.param) / "model"
    save_checkpoint(model, directory, {})
    engine = ReportEngine(directory, tiny_config.rollout)
    yield engine, directory
    engine.close()


@pytest.mark.parametrize("fresh_engine", ["llama-tied", "qwen2-untied"], indirect=True)
def test_an_update_reaches_every_part(fresh_engine, features, prompts):
    engine, directory = fresh_engine
    prompts = long_prompts(prompts)
    old = load_checkpoint(directory)
    before = engine.generate(features, prompts, temperature=1.0, seed=1)
    assert largest_difference(old, features, prompts, before) < PARITY
    new = other_weights(directory, seed=2)
    state = full_state(new)
    engine.update_weights(state, 1, state_checksum(state))
    assert engine.version == 1
    after = engine.generate(features, prompts, temperature=1.0, seed=1)
    assert largest_difference(new, features, prompts, after) < PARITY
    assert largest_difference(old, features, prompts, after) > 0.5, (
        "the test can tell old weights from new ones"
    )
    with torch.inference_mode():
        assert torch.equal(engine.model.visual(features).tokens, new.eval().visual(features).tokens)


@pytest.mark.parametrize("fresh_engine", ["qwen2-untied"], indirect=True)
@pytest.mark.parametrize("part", ["lm_head", "embed_tokens", "visual.", "q_proj"])
def test_parts_with_old_weights_are_noticed(fresh_engine, features, prompts, part):
    """Leave old weights in one part: the negative control of the parity test."""
    engine, directory = fresh_engine
    new = other_weights(directory, seed=10 + engine.version)
    old = full_state(load_checkpoint(directory))
    state = full_state(new) | {name: tensor for name, tensor in old.items() if part in name}
    engine.update_weights(state, engine.version + 1, state_checksum(state))
    stale = engine.generate(features, prompts, temperature=1.0, seed=1)
    assert largest_difference(new, features, prompts, stale) > 20 * PARITY


@pytest.mark.parametrize("fresh_engine", ["qwen2-untied"], indirect=True)
def test_an_update_drops_the_prefix_cache(fresh_engine, features, prompts, monkeypatch):
    """Change only the decoder's blocks, so that old cache entries would match the prompts."""
    engine, directory = fresh_engine
    prompts = long_prompts(prompts)
    difference = []
    for seed, reset in [(1, True), (2, False), (3, True)]:
        new = other_weights(directory, seed, only="decoder.model.layers")
        state = full_state(new)
        with monkeypatch.context() as patch:
            if not reset:
                patch.setattr(engine._llm, "reset_prefix_cache", lambda: True)
            engine.update_weights(state, engine.version + 1, state_checksum(state))
        reports = engine.generate(features, prompts, temperature=1.0, seed=1)
        difference.append(largest_difference(new, features, prompts, reports))
    assert difference[0] < PARITY
    assert difference[1] > 20 * PARITY, "without the reset the parity test fails: it would notice"
    assert difference[2] < PARITY


@pytest.mark.parametrize("fresh_engine", ["qwen2-untied"], indirect=True)
def test_weights_reach_an_engine_of_several_processes_through_shared_memory(
    fresh_engine, features, prompts, monkeypatch
):
    """Take the path of an engine on several GPUs, with one process: only reading is tested."""
    engine, directory = fresh_engine
    monkeypatch.setattr(
        engine, "_rollout", engine._rollout.model_copy(update={"tensor_parallel_size": 2})
    )
    for seed in (21, 22):
        new = other_weights(directory, seed)
        state = full_state(new)
        engine.update_weights(state, engine.version + 1, state_checksum(state))
        reports = engine.generate(features, prompts, temperature=1.0, seed=1)
        assert largest_difference(new, features, prompts, reports) < PARITY
