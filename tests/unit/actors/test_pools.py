"""Test what the pools decide before any actor is involved."""

from __future__ import annotations

import subprocess
import sys

import pytest
import ray
import torch
from hypothesis import given
from hypothesis import strategies as st
from ray.exceptions import OutOfMemoryError

from actors import placement
from actors.actor_pool import PoolError, results
from actors.placement import actor_options, bundle, torch_environment
from actors.rollout import rollout_bundle, study_chunks
from lmrrg.config.tree import Config
from lmrrg.engine.vllm_settings import engine_environment


@given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 5), st.integers(1, 300))
def test_chunks_hold_every_study_once_and_fit_the_slots(studies, samples, engines, slots):
    chunks = study_chunks(studies, samples, engines, slots)
    assert [place for chunk in chunks for place in chunk] == list(range(studies))
    assert all(len(chunk) * samples <= max(slots, samples) for chunk in chunks)
    assert len(chunks) >= min(engines, studies) / 2, "no engine is left idle for want of work"


def test_no_studies_make_no_chunks():
    assert study_chunks(0, 4, 2, 64) == []


def test_a_bundle_names_only_what_is_asked():
    assert bundle(0.5) == {"CPU": 0.5}
    assert bundle(1, 2) == {"CPU": 1, "GPU": 2}
    assert rollout_bundle(Config().rollout) == {"CPU": 1}


def test_an_actor_takes_exactly_its_bundle():
    assert actor_options(bundle(0.25), None) == {"num_cpus": 0.25, "num_gpus": 0}


def test_only_actors_that_compute_on_cpu_keep_the_pages_of_freed_tensors():
    assert torch_environment(2, gpus=0.5) == {"OMP_NUM_THREADS": "2"}
    assert torch_environment(2, gpus=0).items() > {
        ("OMP_NUM_THREADS", "2"),
        ("MALLOC_MMAP_MAX_", "0"),
    }


def test_an_actor_that_asked_for_no_gpu_sees_none():
    assert torch_environment(1, gpus=0)["CUDA_VISIBLE_DEVICES"] == ""
    assert "CUDA_VISIBLE_DEVICES" not in torch_environment(1, gpus=0.5)


def test_a_run_that_leaves_all_gpus_idle_is_told(monkeypatch, caplog):
    monkeypatch.setattr(placement, "_nodes", lambda _: [{"CPU": 8}, {"CPU": 96, "GPU": 8}])
    placement.warn_of_idle_gpus(0.3)
    assert not caplog.messages
    placement.warn_of_idle_gpus(0)
    assert "configs/layouts" in caplog.text


def test_an_engine_compiles_nothing_without_a_gpu_whatever_the_driver_has(monkeypatch):
    for driver_has_one in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: driver_has_one)  # noqa: B023
        assert "TORCHDYNAMO_DISABLE" in engine_environment(1, gpu=False)
        assert "TORCHDYNAMO_DISABLE" not in engine_environment(1, gpu=True)


def test_a_scorer_does_not_pay_for_rllib_or_torch():
    """Import what every actor imports: RLlib would cost each 2 s, torch a scorer 350 MB."""
    code = (
        "import sys, actors.reward, actors.actor_pool; "
        "sys.exit(bool({'ray.rllib', 'torch'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_an_actor_that_the_memory_monitor_killed_is_lost(monkeypatch):
    def killed(*_: object, **__: object) -> None:
        raise OutOfMemoryError("killed")

    monkeypatch.setattr(ray, "get", killed)
    with pytest.raises(PoolError, match="out of memory") as caught:
        results("policy", [], [], timeout=1)
    assert caught.value.code == "actors_lost"
