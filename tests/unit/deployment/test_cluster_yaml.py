"""The cluster files are valid for Ray's cluster launcher; checked without any cloud account."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package
from ray.autoscaler._private.util import prepare_config, validate_config


def prepared(path: Path) -> dict[str, Any]:
    """The file with Ray's defaults, validated against Ray's schema."""
    config = prepare_config(yaml.safe_load(path.read_text()))
    validate_config(config)
    return config


@pytest.fixture(params=["cluster.yaml", "cluster.local.yaml"])
def config(request, repo_root: Path) -> dict[str, Any]:
    return prepared(repo_root / request.param)


def test_it_installs_the_checkout_from_the_lock_files(config):
    checkout, source = next(iter(config["file_mounts"].items()))
    assert source == "."
    setup = " && ".join(config["setup_commands"])
    assert f"cd {checkout} && " in setup
    assert "scripts/setup.sh gpu" in setup
    assert "scripts/setup.sh cpu" in setup
    assert f"{checkout}/.venv/bin" in setup, (
        "ray and python of later commands come from the installed environment"
    )


def test_ray_starts_in_the_checkout_with_the_shared_storage(config):
    checkout = next(iter(config["file_mounts"]))
    starts = [
        command
        for command in config["head_start_ray_commands"] + config["worker_start_ray_commands"]
        if "ray start" in command
    ]
    assert len(starts) == 2
    assert all(f"cd {checkout} && LMRRG_HOME=/mnt/lmrrg " in command for command in starts)
    assert any("mountpoint -q /mnt/lmrrg" in command for command in config["setup_commands"])


def test_a_stopped_job_has_the_time_to_save_its_state(config):
    head = next(command for command in config["head_start_ray_commands"] if "--head" in command)
    assert "RAY_JOB_STOP_WAIT_TIME_S=600 ray start" in head, (
        "after three seconds it would be killed"
    )


def test_the_dashboard_is_not_open_to_the_network(config):
    head = next(command for command in config["head_start_ray_commands"] if "--head" in command)
    assert "--dashboard-host=127.0.0.1" in head


def test_what_is_large_or_private_stays_at_home(config):
    assert {".venv", "runs", ".cache"} <= set(config["rsync_exclude"])


def test_gpu_nodes_are_spot_and_scale_from_zero(repo_root):
    config = prepared(repo_root / "cluster.yaml")
    nodes = config["available_node_types"]
    spot = nodes["gpu_spot"]
    assert spot["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert (spot["min_workers"], spot["max_workers"]) == (0, config["max_workers"])
    head = nodes[config["head_node_type"]]
    assert "InstanceMarketOptions" not in head["node_config"], "the driver must not be taken away"


def test_machines_one_has_are_all_used(repo_root):
    config = prepared(repo_root / "cluster.local.yaml")
    assert config["provider"]["type"] == "local"
    assert config["max_workers"] == len(config["provider"]["worker_ips"])


def test_an_unknown_key_would_be_refused(repo_root):
    config = prepare_config(yaml.safe_load((repo_root / "cluster.yaml").read_text())) | {
        "max_wrokers": 3
    }
    with pytest.raises(ValidationError, match="max_wrokers"):
        validate_config(config)


def test_only_the_code_travels_with_a_job(repo_root, tmp_path):
    """``--working-dir .`` uploads no environment, runs or caches, and is far below Ray's limit."""
    package = tmp_path / "package.zip"
    create_package(
        str(repo_root), package, include_gitignore=True, excludes=get_runtime_env_default_excludes()
    )
    with zipfile.ZipFile(package) as archive:
        names = archive.namelist()
    assert package.stat().st_size < 20 << 20
    assert {"rl/ppo.py", "sft/train.py", "lmrrg/data/sources.py", "configs/iu_xray.yaml"} <= set(
        names
    )
    assert not {name.split("/")[0] for name in names} & {
        "runs",
        ".venv",
        ".git",
        ".cache",
        ".mypy_cache",
        "wandb",
    }
