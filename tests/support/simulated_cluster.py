"""Simulate four nodes with 96 CPUs and 8 GPUs each on one machine, and print a JSON line.

It places every layout of a folder, and loses a node. A script, since a process can join only one
cluster.

    python tests/support/simulated_cluster.py configs/layouts
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.cluster_utils import Cluster
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from actors.actor_pool import ActorPool, spawn
from actors.placement import PlacementError, actor_options, preflight
from actors.policy import policy_bundle
from actors.reference import reference_bundle
from actors.rollout import rollout_bundle
from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config
from rl.crew import crew_layout
from tests.support.stand_in import StandIn

NODE = {"num_cpus": 96, "num_gpus": 8, "object_store_memory": 80 << 20}


def main() -> None:
    """Print the report."""
    logging.basicConfig(level=logging.ERROR)
    layouts = {file.stem: load_config(file) for file in sorted(Path(sys.argv[1]).glob("*.yaml"))}
    # Otherwise Ray starts a worker process for every CPU that is claimed.
    settings = {
        "include_dashboard": False,
        "_system_config": {"prestart_worker_first_driver": False},
    }
    cluster = Cluster(initialize_head=True, head_node_args=NODE | settings)
    nodes = [cluster.add_node(**NODE) for _ in range(3)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        report = {
            "placed": {name: _place(config) for name, config in layouts.items()},
            "seats": _seats(layouts["8gpu_colocated"]),
            "loss": _loss(layouts["8gpu_split"], cluster, nodes),
            "too_small_now": _refusal(layouts["4x8gpu_colocated"]),
        }
    finally:
        ray.shutdown()
        cluster.shutdown()
    print(json.dumps(report))


def _place(config: Config) -> dict[str, Any]:
    """Reserve the layout; return the GPUs it takes of each node, and the seconds it took."""
    layout = crew_layout(config)
    started = time.monotonic()
    group = preflight(layout.bundles, timeout=30)
    seconds = time.monotonic() - started
    gpus: dict[str, float] = {}
    for asked, node in zip(layout.bundles, _nodes_of(group), strict=True):
        gpus[node] = gpus.get(node, 0) + asked.get("GPU", 0)
    remove_placement_group(group)
    return {
        "gpus_per_node": sorted(gpus.values()),
        "seconds": seconds,
        "bundles": len(layout.bundles),
    }


def _seats(config: Config) -> dict[str, Any]:
    """Return where the first and the last policy rank, reference and engine are placed."""
    layout = crew_layout(config)
    group = preflight(layout.bundles, timeout=30)
    policy = policy_bundle(config.ppo)
    reference = reference_bundle(config.ppo)
    engine = rollout_bundle(config.rollout)
    last = config.ppo.workers - 1
    asked = {
        "policy_first": (policy, layout.policy),
        "reference_first": (reference, layout.reference),
        "engine_first": (engine, layout.rollouts),
        "policy_last": (policy, layout.policy + last),
        "reference_last": (reference, layout.reference + last),
        "engine_last": (engine, layout.rollouts + last),
    }
    actors = {
        name: spawn(StandIn, actor_options(each, group, index))
        for name, (each, index) in asked.items()
    }
    places = ray.get([actor.where.remote() for actor in actors.values()], timeout=120)
    where = dict(zip(actors, places, strict=True))
    for actor in actors.values():
        ray.kill(actor)
    remove_placement_group(group)
    return where


def _loss(config: Config, cluster: Cluster, nodes: list[Any]) -> dict[str, Any]:
    """Lose a node with stand-ins for the engines; the head is kept busy by others."""
    others = placement_group([{"GPU": 8, "node:__internal_head__": 0.001}])
    layout = crew_layout(config)
    group = preflight(layout.bundles, timeout=30)

    def create(place: int) -> ActorHandle:
        return spawn(
            StandIn, actor_options(rollout_bundle(config.rollout), group, layout.rollouts + place)
        )

    pool = ActorPool("stand-ins", create, config.rollout.engines, timeout=120, start_timeout=120)
    pool.wait_ready()
    before = _nodes_of(group)[layout.rollouts]
    lost = next(node for node in nodes if node.node_id == before)
    started = time.monotonic()
    cluster.remove_node(lost, allow_graceful=False)
    while before in {node["NodeID"] for node in ray.nodes() if node["Alive"]}:
        time.sleep(0.2)  # the workers of a dead raylet may answer until Ray has noticed
    answers = [answer for _, answer in pool.map([("where", {})] * 6)]
    pool.wait_ready()
    report = {
        "lost": before,
        "answered_from": sorted({node for node, _ in answers}),
        "answers": len(answers),
        "replaced": pool.replaced,
        "seconds": time.monotonic() - started,
    }
    pool.close()
    remove_placement_group(group)
    remove_placement_group(others)
    return report


def _refusal(config: Config) -> dict[str, Any]:
    started = time.monotonic()
    try:
        preflight(crew_layout(config).bundles, timeout=1)
    except PlacementError as error:
        return {"code": error.code, "message": str(error), "seconds": time.monotonic() - started}
    raise AssertionError("a layout for four nodes was placed on three")


def _nodes_of(group: PlacementGroup) -> list[str]:
    nodes = placement_group_table(group)["bundles_to_node_id"]
    return [nodes[index] for index in range(len(nodes))]


if __name__ == "__main__":
    main()
