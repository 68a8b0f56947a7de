"""Test that preflight answers in bounded time and names what is short."""

from __future__ import annotations

import logging
import time

import pytest
import ray
from ray.util.placement_group import placement_group_table, remove_placement_group

from actors.placement import PlacementError, actor_options, bundle, connect, preflight

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]


def test_a_bundle_leaves_zeros_out():
    assert bundle(0.5) == {"CPU": 0.5}
    assert bundle(1, 2) == {"CPU": 1, "GPU": 2}


def test_actors_land_in_their_bundle():
    group = preflight([bundle(0.5), bundle(0.25)], timeout=20)

    @ray.remote
    class Where:
        def group(self) -> str:
            return ray.get_runtime_context().get_placement_group_id()

    actor = Where.options(**actor_options(bundle(0.25), group, 1)).remote()
    assert ray.get(actor.group.remote(), timeout=30) == group.id.hex()
    ray.kill(actor)
    remove_placement_group(group)


def test_an_impossible_wish_is_refused_in_time_and_names_what_is_short():
    started = time.monotonic()
    with pytest.raises(PlacementError) as caught:
        preflight([bundle(1), bundle(2, gpus=3)], timeout=1)
    assert time.monotonic() - started < 10
    assert caught.value.code == "resources_short"
    message = str(caught.value)
    assert "did not give 1 x {CPU 1}, 1 x {CPU 2, GPU 3} within 1 s" in message
    assert "missing: 1 x {CPU 2, GPU 3}" in message
    assert "no node is large enough for CPU 2, GPU 3" in message
    assert "PENDING" not in {group["state"] for group in placement_group_table().values()}, (
        "nothing is left waiting"
    )


def test_a_wish_that_fits_in_sum_but_not_in_one_node_is_explained():
    cpus = ray.cluster_resources()["CPU"]
    with pytest.raises(PlacementError, match="no node is large enough"):
        preflight([bundle(cpus + 1)], timeout=0.5)


def test_connecting_twice_keeps_the_cluster(tiny_config):
    node = ray.get_runtime_context().get_node_id()
    connect(tiny_config.ray)
    assert ray.get_runtime_context().get_node_id() == node


def test_workers_of_a_local_cluster_do_not_warn_of_the_missing_dashboard():
    @ray.remote(num_cpus=0.1)
    def level() -> int:
        name = "ray.train.v2._internal.execution.controller.placement_group_cleaner"
        return logging.getLogger(name).getEffectiveLevel()

    assert ray.get(level.remote(), timeout=60) == logging.ERROR
