"""Joining a cluster and asking it for resources, with an answer in bounded time."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from lmrrg.config import Config
from lmrrg.errors import CodedError

logger = logging.getLogger(__name__)

Bundle = Mapping[str, float]
"""Resources of one actor: ``{"CPU": 1, "GPU": 0.5}``."""

LOCAL_CPUS = 8
"""Fewest logical CPUs of a local cluster: the actors take turns, so a laptop with two cores holds them all."""


class PlacementError(CodedError):
    """The cluster cannot give what was asked in time; ``code`` is ``resources_short`` or ``cluster_unreachable``."""


def connect(config: Config) -> None:
    """Join ``ray.address`` or ``$RAY_ADDRESS``, else start a small local cluster; nothing when already joined.

    Raises:
        PlacementError: ``cluster_unreachable``.
    """
    if ray.is_initialized():
        return
    address = config.ray.address or os.environ.get("RAY_ADDRESS")
    if address:
        try:
            ray.init(address=address, log_to_driver=True)
        except (ConnectionError, TimeoutError) as error:
            raise PlacementError("cluster_unreachable", f"no Ray cluster answers at {address}: {error}") from error
        return
    ray.init(
        address="local",
        num_cpus=max(LOCAL_CPUS, os.cpu_count() or 1),
        object_store_memory=config.ray.object_store_mb << 20,
        include_dashboard=False,
        log_to_driver=True,
    )


def bundle(cpus: float, gpus: float = 0) -> dict[str, float]:
    """Resources of one actor; a zero is left out, as Ray wants it."""
    return {name: amount for name, amount in (("CPU", cpus), ("GPU", gpus)) if amount}


def preflight(bundles: Sequence[Bundle], timeout: float, *, strategy: str = "PACK") -> PlacementGroup:
    """Reserve the bundles as one placement group.

    Args:
        bundles: one entry per actor; the order gives the bundle indices.
        timeout: longest wait, seconds (a cluster that scales up needs some).
        strategy: Ray's placement strategy.

    Raises:
        PlacementError: ``resources_short``, with what is asked, what the cluster has and what is short.
    """
    if shortage := _shortage(bundles):
        logger.warning("waiting up to %g s for resources: %s", timeout, shortage)
    group = placement_group([dict(b) for b in bundles], strategy=strategy)
    if group.wait(timeout):
        return group
    remove_placement_group(group)
    raise PlacementError("resources_short", _explain(bundles, timeout))


def actor_options(asked: Bundle, group: PlacementGroup | None, index: int = -1) -> dict[str, Any]:
    """Options of an actor that takes ``asked`` from bundle ``index`` of the group (-1: any bundle that fits)."""
    options: dict[str, Any] = {"num_cpus": asked.get("CPU", 0), "num_gpus": asked.get("GPU", 0)}
    if group is not None:
        options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
    return options


def _total(bundles: Sequence[Bundle]) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in bundles:
        total.update(each)
    return total


def _shortage(bundles: Sequence[Bundle]) -> str:
    """What the cluster, idle or not, lacks now; empty when nothing."""
    free = ray.available_resources()
    short = [
        f"{name}: asked {amount:g}, free {free.get(name, 0):g}"
        for name, amount in sorted(_total(bundles).items())
        if amount > free.get(name, 0) + 1e-9
    ]
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    short += [
        f"no node is large enough for one actor with {_resources(dict(each))}"
        for each in sorted({tuple(sorted(b.items())) for b in bundles})
        if not any(all(node.get(name, 0) >= amount for name, amount in each) for node in nodes)
    ]
    return "; ".join(short)


def _explain(bundles: Sequence[Bundle], timeout: float) -> str:
    total, free = ray.cluster_resources(), ray.available_resources()
    names = sorted(_total(bundles))
    has = ", ".join(f"{name} {total.get(name, 0):g} ({free.get(name, 0):g} free)" for name in names)
    shortage = _shortage(bundles) or "nothing in sum, but the free shares lie on different nodes"
    return (
        f"the cluster did not give {_resources(_total(bundles))} for {len(bundles)} actors within {timeout:g} s; "
        f"it has {has}; short: {shortage}; lower *.workers, rollout.engines, reward.scorers or their CPUs and GPUs, "
        "or add nodes"
    )


def _resources(amounts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {amount:g}" for name, amount in sorted(amounts.items()))
