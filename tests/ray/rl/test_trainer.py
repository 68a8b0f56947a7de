"""The whole PPO step on a real cluster: DeepSpeed ranks, a vLLM engine, scorers, reference."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
import torch

from lmrrg.manifest import manifest_hash
from lmrrg.model.checkpoint import full_state, load_checkpoint, state_checksum
from lmrrg.policy.credited_reports import read_credited
from lmrrg.ppo.errors import PPOError
from lmrrg.run.layout import RunLayout
from lmrrg.run.studies import prepare_studies
from lmrrg.run.tracking import read_metrics
from rl.ppo import run_ppo, weights_digest
from rl.replay import report_changes, rescore, retrain
from rl.storage.rollout_files import read_rollouts
from rl.storage.training_states import StateStore
from rl.trainer import CQRL, CQRLConfig
from tests.support.paths import ROOT
from tests.support.ppo.settings import ppo_config

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def run(ray_cluster, tiny_config, tiny_checkpoint, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """Run three iterations; keep the state after the second one, and the algorithm running."""
    config = ppo_config(
        tiny_config,
        tmp_path_factory.mktemp("ppo"),
        iterations=3,
        dump_every=1,
        mixtures=[0.25],
        credit="leave_one_out",
    )
    manifest = prepare_studies(config, progress=False)
    algorithm = CQRL(CQRLConfig.of(config, tiny_checkpoint))
    results = [algorithm.train() for _ in range(2)]
    origin = {"sft": weights_digest(tiny_checkpoint), "data": manifest_hash(manifest)}
    StateStore(config.run_dir / "ppo" / "state", config, origin).save(2, algorithm.save_checkpoint)
    results.append(algorithm.train())
    stored, checksum = algorithm.crew.policy.state()
    state = {name: tensor.clone() for name, tensor in ray.get(stored).tensors().items()}
    yield SimpleNamespace(
        config=config, algorithm=algorithm, results=results, state=state, checksum=checksum
    )
    algorithm.stop()


def test_before_the_first_update_policy_and_reference_are_one(run):
    for result in run.results[
        :2
    ]:  # the second one still has the weights of the first: only the critic was trained
        metrics = result["cqrl"]
        assert metrics["weights_version"] == 0
        assert metrics["log_ratio_max"] <= 1e-4
        assert abs(metrics["kl_per_sequence"]) <= 1e-4
    assert run.results[2]["cqrl"]["weights_version"] == 1
    assert run.results[2]["cqrl"]["log_ratio_max"] > 1e-4


def test_every_update_starts_at_ratio_one_and_moves(run):
    assert all(result["cqrl"]["first_ratio_error"] <= 1e-4 for result in run.results)
    assert run.results[0]["cqrl"]["update_kl_per_token"] == pytest.approx(0, abs=1e-9)
    assert run.results[1]["cqrl"]["update_kl_per_token"] > 0
    assert all(result["cqrl"]["grad_norm"] > 0 for result in run.results)


def test_engine_and_trainer_agree_before_and_after_a_sync(run):
    assert all(result["cqrl"]["parity"] < 1e-4 for result in run.results)
    assert all(result["cqrl"]["parity_max"] < 1e-3 for result in run.results)


def test_metrics_are_numbers(run):
    for result in run.results:
        unknown = {name for name, value in result["cqrl"].items() if not math.isfinite(value)}
        assert unknown <= {"reward_abnormal"}
    assert {"heldout", "heldout_reward", "heldout_alarm"} <= run.results[1]["cqrl"].keys()
    assert "heldout" in run.results[0]["cqrl_start"]


def test_the_best_model_is_a_model_directory(run):
    model = load_checkpoint(run.config.run_dir / "ppo" / "best")
    assert model.decoder.config.hidden_size == 64


def test_after_the_last_iteration_mixtures_are_evaluated_and_the_engines_get_the_policy_back(run):
    assert [sorted(result.get("cqrl_mixtures", {})) for result in run.results] == [[], [], ["25"]]
    assert math.isfinite(run.results[2]["cqrl_mixtures"]["25"]["heldout_reward"])
    assert run.algorithm.crew.rollouts.version == run.algorithm.version == 4
    assert run.algorithm.checks.probe(iteration=3).mean_abs < 1e-4


def test_a_mixture_is_made_of_the_sft_model_and_the_policy(run, tmp_path):
    sft = full_state(load_checkpoint(run.algorithm.config.sft_checkpoint))
    run.algorithm.save_model(tmp_path / "mixture", 0.25)
    saved = full_state(load_checkpoint(tmp_path / "mixture"))
    mixed = ray.get(run.algorithm.crew.policy.state(0.25)[0]).tensors()
    moved = 0
    for name, start in sft.items():
        expected = 0.75 * start + 0.25 * run.state[name]
        torch.testing.assert_close(saved[name], expected, rtol=1e-5, atol=1e-7, msg=name)
        torch.testing.assert_close(mixed[name], expected, rtol=1e-5, atol=1e-7, msg=name)
        moved += not torch.equal(saved[name], start)
    assert moved
    run.algorithm.save_model(tmp_path / "policy")
    heads = {
        name: (tmp_path / name / "value_head.safetensors").is_file()
        for name in ("policy", "mixture")
    }
    assert heads == {"policy": True, "mixture": False}


def test_a_resumed_run_continues_exactly(run):
    best = run_ppo(run.config, run.algorithm.config.sft_checkpoint)
    assert best == run.config.run_dir.resolve() / "ppo" / "best"
    (resumed,) = (line for line in read_metrics(run.config.run_dir, "ppo") if line["step"] == 3)
    straight = run.results[2]["cqrl"]
    timings = {name for name in straight if name.endswith("_s")}
    for name in straight.keys() - timings:
        assert resumed[name] == pytest.approx(straight[name], rel=1e-5, abs=1e-6, nan_ok=True), name
    state = full_state(load_checkpoint(run.config.run_dir / "ppo" / "last"))
    for name, tensor in run.state.items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=1e-6, msg=name)
    assert run.checksum == state_checksum(run.state)


def test_the_page_names_every_metric_and_no_other(run):
    """After the resumed run, whose lines hold what only rl/ppo.py knows."""
    page = (ROOT / "docs" / "metrics_rl.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", page, flags=re.MULTILINE)
    documented = [name for name, _, _ in rows]
    assert len(set(documented)) == len(documented)
    logged = {name for line in read_metrics(run.config.run_dir, "ppo") for name in line} - {"step"}
    logged |= {
        name
        for result in run.results
        for part in ("cqrl", "cqrl_start")
        for name in result.get(part, {})
    }
    assert logged == set(documented)


def test_the_last_iteration_keeps_credited_reports_for_the_run_report(run):
    credited = read_credited(RunLayout(run.config.run_dir).ppo_credited)
    assert credited is not None
    assert (credited.iteration, credited.form) == (3, "leave_one_out")
    last = read_rollouts(RunLayout(run.config.run_dir).ppo_rollouts)[-1]
    rewards = {row["reward"] for row in last.rows}
    for study in credited.studies:
        assert len(study.reports) == 2
        # Sentences of random reports may be cut inside a character, so texts are not compared.
        assert {report.reward for report in study.reports} <= rewards
        assert any(report.sentences for report in study.reports)


def test_replayed_rollouts_earn_and_teach_the_same(run, tmp_path):
    rollouts = read_rollouts(RunLayout(run.config.run_dir).ppo_rollouts)
    assert [rollout.iteration for rollout in rollouts] == [1, 2, 3]
    assert report_changes(rollouts, rescore(run.config, rollouts)) == 0
    retrain(run.config, rollouts, Path(run.algorithm.config.sft_checkpoint), tmp_path / "replayed")
    state = full_state(load_checkpoint(tmp_path / "replayed"))
    for name, tensor in run.state.items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=1e-6, msg=name)


def test_a_finished_run_is_returned_at_once(run):
    assert (
        run_ppo(run.config, run.algorithm.config.sft_checkpoint)
        == run.config.run_dir.resolve() / "ppo" / "best"
    )


def test_stale_weights_are_noticed(run, monkeypatch):
    """The iteration after a lost sync stops the run. Last test: it breaks the algorithm."""
    monkeypatch.setattr(run.algorithm.crew.rollouts, "load_weights", lambda update: 0.0)
    run.algorithm.train()
    with pytest.raises(PPOError, match="parity_broken"):
        run.algorithm.train()
