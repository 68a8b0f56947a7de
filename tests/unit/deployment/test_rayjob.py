"""The KubeRay manifest has the fields that a RayJob requires, and what it runs exists here.

No operator takes part: the required fields of ray.io/v1 RayJob (spec.entrypoint,
spec.rayClusterSpec with a head group and worker groups, containers with name and image) are checked
by hand.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from actors.placement import shortage
from lmrrg.config.loading import load_config
from rl.crew import crew_layout

FIELDS = {
    "spec": {
        "entrypoint", "submissionMode", "backoffLimit", "shutdownAfterJobFinishes",
        "ttlSecondsAfterFinished", "submitterPodTemplate", "rayClusterSpec",
        "runtimeEnvYAML", "activeDeadlineSeconds", "suspend", "jobId", "metadata",
        "clusterSelector", "entrypointNumCpus", "entrypointNumGpus", "managedBy",
        "deletionStrategy",
    },
    "rayClusterSpec": {
        "rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions",
        "headGroupSpec", "workerGroupSpecs", "gcsFaultToleranceOptions",
        "headServiceAnnotations", "suspend", "managedBy",
    },
    "headGroupSpec": {"rayStartParams", "template", "serviceType", "headService", "enableIngress"},
    "workerGroupSpec": {
        "groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams",
        "template", "numOfHosts", "suspend", "idleTimeoutSeconds", "scaleStrategy",
    },
}  # fmt: skip
"""Fields of each level in KubeRay 1.5; the API server drops a misspelt one silently."""


@pytest.fixture(scope="module")
def job(repo_root: Path) -> dict[str, Any]:
    return yaml.safe_load((repo_root / "deploy" / "rayjob.yaml").read_text())


@pytest.fixture(scope="module")
def groups(job) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def test_kind_and_fields(job, groups):
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?", job["metadata"]["name"])
    assert job["spec"].keys() <= FIELDS["spec"]
    assert job["spec"]["rayClusterSpec"].keys() <= FIELDS["rayClusterSpec"]
    assert groups[0].keys() <= FIELDS["headGroupSpec"]
    for group in groups[1:]:
        assert group.keys() <= FIELDS["workerGroupSpec"]
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_version_is_the_installed_one(job):
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == ray.__version__


def test_every_pod_has_image_resources_and_the_storage(job, groups):
    images = {job["spec"]["submitterPodTemplate"]["spec"]["containers"][0]["image"]}
    for group in groups:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        images.add(container["image"])
        assert container["resources"]["requests"] == container["resources"]["limits"], (
            "no pod is evicted for memory"
        )
        assert {"name": "LMRRG_HOME", "value": "/mnt/lmrrg"} in container["env"]
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert mounts.keys() == {"/mnt/lmrrg", "/dev/shm"}
        assert set(mounts.values()) == {volume["name"] for volume in pod["volumes"]}
    assert len(images) == 1, "one image everywhere: driver and actors exchange pickled objects"


def test_the_entrypoint_names_files_of_this_checkout_and_fits_the_workers(job, groups, repo_root):
    entrypoint = job["spec"]["entrypoint"]
    files = re.findall(r"[\w/]+\.(?:py|yaml)", entrypoint)
    assert [file for file in files if file.endswith(".py")] == ["sft/train.py", "rl/ppo.py"]
    assert all((repo_root / file).is_file() for file in files)
    config = load_config(
        ",".join(str(repo_root / file) for file in files if file.endswith(".yaml"))
    )
    limits = groups[1]["template"]["spec"]["containers"][0]["resources"]["limits"]
    node = {"CPU": float(limits["cpu"]), "GPU": float(limits["nvidia.com/gpu"])}
    assert shortage(crew_layout(config).bundles, [node] * groups[1]["replicas"]) == ""


def test_the_image_is_built_from_the_gpu_lock_file(repo_root):
    recipe = (repo_root / "deploy" / "Dockerfile").read_text()
    assert "scripts/setup.sh gpu" in recipe
    assert "WORKDIR /opt/lmrrg" in recipe
    ignored = (repo_root / "deploy" / "Dockerfile.dockerignore").read_text().split()
    assert {".git", ".venv", "runs", "data"} <= set(ignored)
