"""cluster.yaml is valid for Ray's cluster launcher; checked without any cloud account."""

import yaml
from ray.autoscaler._private.util import prepare_config, validate_config


def test_cluster_yaml_is_valid_and_installs_the_checkout(repo_root):
    config = prepare_config(yaml.safe_load((repo_root / "cluster.yaml").read_text()))
    validate_config(config)
    checkout = next(iter(config["file_mounts"]))
    assert any("scripts/setup.sh gpu" in command for command in config["setup_commands"])
    starts = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    assert all(f"cd {checkout}" in command for command in starts if "ray start" in command)
