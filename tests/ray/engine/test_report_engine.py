"""Test the engine against transformers: log-probabilities, and refusals before vLLM."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lmrrg.config.tree import Config
from lmrrg.engine.interfaces import EngineError
from lmrrg.engine.report_engine import ReportEngine, study_seeds
from lmrrg.engine.vllm_settings import PREFILL_TOKENS
from lmrrg.model.checkpoint import full_state, load_checkpoint, state_checksum
from lmrrg.model.generator import VISUAL_TOKENS
from lmrrg.model.prompts import prompt_ids
from lmrrg.vision.files import load_features
from lmrrg.vision.study_features import StudyFeatures
from tests.support.engine_oracle import (
    PARITY,
    largest_difference,
    long_prompts,
    other_weights,
    same_ids,
)


@pytest.fixture(scope="module")
def engine(request, tiny_checkpoint: Path, tiny_config: Config) -> Iterator[ReportEngine]:
    engine = ReportEngine(
        tiny_checkpoint, tiny_config.rollout.model_copy(update=getattr(request, "param", {}))
    )
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def features(tiny_studies, tiny_config: Config) -> StudyFeatures:
    return load_features(tiny_studies, tiny_config.data, progress=False)


@pytest.fixture(scope="module")
def prompts(engine: ReportEngine, tiny_config: Config, tiny_studies) -> list[list[int]]:
    settings = tiny_config.model.model_copy(update={"use_indication": True})
    texts = [" ".join(["pain"] * number) for number in range(len(tiny_studies))]
    return [prompt_ids(engine.model.tokenizer, settings, text) for text in texts]


def test_logprobs_are_those_of_the_trainer(engine, features, prompts, tiny_checkpoint):
    reports = engine.generate(features, prompts, samples=2, temperature=1.0, seed=1)
    assert [len(samples) for samples in reports] == [2] * len(features)
    assert largest_difference(load_checkpoint(tiny_checkpoint), features, prompts, reports) < PARITY


def test_logprobs_are_at_temperature_one_whatever_the_sampling(
    engine, features, prompts, tiny_checkpoint
):
    for temperature in (0.0, 0.7):
        reports = engine.generate(features, prompts, temperature=temperature, seed=1)
        assert (
            largest_difference(load_checkpoint(tiny_checkpoint), features, prompts, reports)
            < PARITY
        )


def test_greedy_takes_the_most_likely_token(engine, features, prompts, tiny_checkpoint):
    reports = [samples[0] for samples in engine.generate(features, prompts)]
    ids = torch.tensor(
        [report.token_ids for report in reports]
    )  # random weights: no report ends early
    with torch.inference_mode():
        model = load_checkpoint(tiny_checkpoint)
        logits = model.report_logits(
            features, prompts, ids, torch.ones_like(ids, dtype=torch.bool)
        ).logits
    chosen = logits.gather(-1, ids[..., None])[..., 0]
    assert torch.all(logits.max(-1).values - chosen < PARITY)


def test_a_report_depends_on_its_seed_not_on_its_company(engine, features, prompts):
    together = engine.generate(features, prompts, samples=3, temperature=1.0, seed=5)
    seeds, order = study_seeds(5, len(features)), [6, 2, 4]
    apart = engine.generate(
        features.select(order),
        [prompts[i] for i in order],
        samples=3,
        temperature=1.0,
        seed=[seeds[i] for i in order],
    )
    assert apart == [together[i] for i in order] or same_ids(apart, [together[i] for i in order])
    texts = [report.text for samples in together for report in samples]
    assert len(set(texts)) == len(texts), "every sample has its own seed"
    other = engine.generate(features, prompts, samples=3, temperature=1.0, seed=6)
    assert not same_ids(other, together)


def test_the_image_reaches_the_report(engine, features, prompts):
    same_prompt = [prompts[0]] * len(features)
    first = [samples[0].logprobs[0] for samples in engine.generate(features, same_prompt)]
    assert len({round(value, 5) for value in first}) == len(features)


def test_samples_follow_the_distribution(engine, features, prompts, tiny_checkpoint, monkeypatch):
    """Compare the first tokens of many samples with the trainer's probabilities."""
    monkeypatch.setattr(
        engine, "_rollout", engine._rollout.model_copy(update={"max_new_tokens": 1})
    )
    one = features.select([0])
    samples = engine.generate(one, prompts[:1], samples=2000, temperature=1.0, seed=3)[0]
    counts = torch.bincount(
        torch.tensor([s.token_ids[0] for s in samples]), minlength=len(engine.model.tokenizer)
    )
    with torch.inference_mode():
        ids = torch.zeros(1, 1, dtype=torch.long)
        logits = (
            load_checkpoint(tiny_checkpoint)
            .report_logits(one, prompts[:1], ids, ids == 0)
            .logits[0, 0]
        )
    expected = logits.softmax(-1) * len(samples)
    chi_square = ((counts - expected) ** 2 / expected).sum().item()
    freedom = len(expected) - 1
    assert abs(chi_square - freedom) < 5 * (2 * freedom) ** 0.5


def test_bad_updates_are_refused_and_leave_the_engine_as_it_was(
    engine, features, prompts, tiny_checkpoint
):
    before = engine.generate(features, prompts, seed=1, temperature=1.0)
    state = full_state(other_weights(tiny_checkpoint, seed=3))
    checksum = state_checksum(state)
    name = next(name for name in state if "q_proj" in name)
    flipped = {**state, name: state[name] + 1e-3}
    cut = {n: t for n, t in state.items() if n != "decoder.lm_head.weight"}
    reshaped = {**state, name: state[name][:1]}
    for bad, version, code in [
        (flipped, 1, "checksum"),
        (cut, 1, "bad_state"),
        (reshaped, 1, "bad_state"),
        (state, 0, "stale_version"),
    ]:
        with pytest.raises(EngineError) as caught:
            engine.update_weights(bad, version, checksum)
        assert caught.value.code == code
    assert engine.version == 0
    assert same_ids(engine.generate(features, prompts, seed=1, temperature=1.0), before)


def test_bad_input_is_refused_and_the_engine_lives_on(engine, features, prompts, monkeypatch):
    good = engine.generate(features, prompts)
    with pytest.raises(EngineError) as caught:
        engine.generate(features, prompts[:-1])
    assert caught.value.code == "prompt_count"
    with pytest.raises(EngineError) as caught:
        engine.generate(features, prompts, seed=[1, 2])
    assert caught.value.code == "seed_count"
    with pytest.raises(EngineError) as caught:
        engine.generate(features, long_prompts(prompts, 107))
    assert caught.value.code == "prompt_too_long"
    with monkeypatch.context() as patch:
        patch.setattr(
            engine.model, "prompt_embeddings", lambda tokens, ids: [torch.zeros(40, 7)] * len(ids)
        )
        with pytest.raises(EngineError) as caught:
            engine.generate(features, prompts)
    assert caught.value.code == "hidden_size"
    assert same_ids(engine.generate(features, prompts), good)


def test_length_limit_end_of_sequence_and_progress(engine, features, prompts, tiny_config):
    seen: list[int] = []
    reports = engine.generate(
        features, prompts, samples=40, temperature=1.0, seed=2, progress=seen.append
    )
    assert sum(seen) == 40 * len(features)
    flat = [report for samples in reports for report in samples]
    eos = engine.model.tokenizer.eos_token_id
    assert {report.finished for report in flat} == {True, False}
    for report in flat:
        assert report.finished == (report.token_ids[-1] == eos)
        assert eos not in report.token_ids[:-1]
        assert len(report.token_ids) <= tiny_config.rollout.max_new_tokens
        assert report.finished or len(report.token_ids) == tiny_config.rollout.max_new_tokens
        assert len(report.logprobs) == len(report.token_ids)
        assert "<|" not in report.text
        assert (
            report.text
            == engine.model.tokenizer.decode(report.token_ids, skip_special_tokens=True).strip()
        )


def test_an_interrupted_call_leaves_nothing_behind(engine, features, prompts):
    good = engine.generate(features, prompts)

    def interrupt(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.generate(features, prompts, samples=4, temperature=1.0, progress=interrupt)
    assert same_ids(engine.generate(features, prompts), good)


def test_a_second_engine_in_the_process_is_refused(
    engine, features, prompts, tiny_checkpoint, tiny_config
):
    with pytest.raises(EngineError) as caught:
        ReportEngine(tiny_checkpoint, tiny_config.rollout)
    assert caught.value.code == "engine_open"
    assert engine.generate(features, prompts)


def test_nothing_gives_nothing(engine, features):
    assert engine.generate(features.select([]), []) == []


def test_study_seeds_do_not_depend_on_the_number_of_studies():
    assert study_seeds(3, 8)[:3] == study_seeds(3, 3)
    assert len(set(study_seeds(3, 500) + study_seeds(4, 500))) == 1000


@pytest.mark.parametrize(
    "engine", [{"max_sequences": 64, "kv_cache_mb": mb} for mb in (2, 32)], indirect=True
)
def test_a_crowded_engine_writes_the_same_reports(engine, features, prompts, tiny_checkpoint):
    """Send more prompt tokens than a step takes, and more requests than a small cache holds."""
    prompts = long_prompts(prompts)
    assert sum(len(prompt) + VISUAL_TOKENS for prompt in prompts) * 8 > PREFILL_TOKENS
    crowd = engine.generate(features, prompts, samples=8, temperature=1.0, seed=1)
    seeds = study_seeds(1, len(prompts))
    alone = [
        engine.generate(
            features.select([i]), [prompts[i]], samples=8, temperature=1.0, seed=[seeds[i]]
        )[0]
        for i in range(len(prompts))
    ]
    assert same_ids(crowd, alone)
    assert largest_difference(load_checkpoint(tiny_checkpoint), features, prompts, crowd) < PARITY
