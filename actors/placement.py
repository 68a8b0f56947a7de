"""Join a cluster and reserve resources on it, with an answer in bounded time."""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import ray
from ray._private import ray_constants
from ray._private.state import available_resources_per_node, total_resources_per_node
from ray.exceptions import AuthenticationError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from lmrrg.config.cluster import RayConfig
from lmrrg.errors import CodedError

logger = logging.getLogger(__name__)

Bundle = Mapping[str, float]
"""Resources of one actor, of a reservation or of a node: ``{"CPU": 1, "GPU": 0.5}``."""

LOCAL_CPUS = 8
"""Fewest logical CPUs of a local cluster. They are more than a laptop's two cores, because the
actors of a run mostly take turns."""


class PlacementError(CodedError):
    """The cluster cannot give what was asked in time.

    ``code`` is ``resources_short``, ``cluster_unreachable`` or ``cluster_token``.
    """


def connect(settings: RayConfig) -> None:
    """Join ``ray.address`` or ``$RAY_ADDRESS``, or start a small local cluster without either.

    Do nothing when this process has joined one already.

    Raises:
        PlacementError: ``cluster_unreachable`` or ``cluster_token``.
    """
    if ray.is_initialized():
        return
    if address := address_of(settings):
        require_listener(settings)
        _join(address)
        return
    try:
        ray.init(
            address="local",
            num_cpus=max(LOCAL_CPUS, os.cpu_count() or 1),
            object_store_memory=settings.object_store_mb << 20,
            include_dashboard=False,
            log_to_driver=True,
            runtime_env={"worker_process_setup_hook": _quiet_cleaner()},
        )
    except AuthenticationError as error:
        raise _bad_token() from error


def address_of(settings: RayConfig) -> str | None:
    """Return the address of the cluster to join; None: one of this machine alone is started."""
    return settings.address or os.environ.get("RAY_ADDRESS") or None


def _join(address: str) -> None:
    """Join a running cluster.

    Raises:
        PlacementError: ``cluster_unreachable``, with where the address comes from and the remedy.
    """
    # Ray asks the head 20 times, some 40 s each. One time is enough: what does not answer then is
    # no Ray head, or a network that is down.
    ray_constants.NUM_REDIS_GET_RETRIES = 1
    try:
        ray.init(address=address, log_to_driver=True)
    except AuthenticationError as error:
        raise _bad_token() from error
    except (OSError, RuntimeError) as error:
        raise _unreachable(address, error) from error


def require_listener(settings: RayConfig) -> None:
    """Fail at once where nothing listens at the cluster's ``host:port``; other addresses pass.

    Raises:
        PlacementError: ``cluster_unreachable``: the connection is refused, the host is unknown, or
            nothing answers within ``ray.preflight_timeout_s``.
    """
    address = address_of(settings) or ""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        with socket.create_connection(
            (host.strip("[]"), int(port)), timeout=settings.preflight_timeout_s
        ):
            pass
    except OSError as error:  # of which ConnectionError and TimeoutError are kinds
        raise _unreachable(address, error) from error


def _unreachable(address: str, error: Exception) -> PlacementError:
    return PlacementError(
        "cluster_unreachable",
        f"no Ray cluster answers at {address} ({error}); start the cluster, correct ray.address, "
        "or unset RAY_ADDRESS to use a cluster of this machine alone",
    )


def _bad_token() -> PlacementError:
    return PlacementError(
        "cluster_token",
        "Ray's authentication token is missing or not the cluster's: give RAY_AUTH_TOKEN_PATH the "
        "file with the cluster's token, or start without one by RAY_AUTH_MODE=disabled",
    )


def _quiet_cleaner() -> Callable[[], None]:
    """Return a function that every worker process of a local cluster calls at its start.

    Ray Train watches its controller through Ray's dashboard. A local cluster has none, and the
    watcher would log a warning every second. Its only task is to free the reservation of a driver
    that was killed, and a local cluster ends with its driver.
    """

    # Inside a function, so that Ray pickles it with its code: the workers need not import this
    # module.
    def set_level() -> None:
        name = "ray.train.v2._internal.execution.controller.placement_group_cleaner"
        logging.getLogger(name).setLevel(logging.ERROR)

    return set_level


def bundle(cpus: float, gpus: float = 0) -> dict[str, float]:
    """Return the resources of one actor, without zeros, as a reservation wants them."""
    return {name: amount for name, amount in (("CPU", cpus), ("GPU", gpus)) if amount}


def preflight(
    bundles: Sequence[Bundle], timeout: float, *, strategy: str = "PACK"
) -> PlacementGroup:
    """Reserve the bundles as one placement group.

    Args:
        bundles: what is reserved together; the order gives the bundle indices.
        timeout: longest wait, seconds (a cluster that scales up needs some).
        strategy: Ray's placement strategy.

    Raises:
        PlacementError: ``resources_short``; its message names what is asked, what each node has and
            what is missing.
    """
    warn_of_idle_gpus(sum(each.get("GPU", 0) for each in bundles))
    if short := shortage(bundles, _nodes("free")):
        logger.warning(
            "waiting up to %g s for %s; missing now: %s", timeout, describe(bundles), short
        )
    group = placement_group([dict(b) for b in bundles], strategy=strategy)
    if group.wait(timeout):
        return group
    remove_placement_group(group)
    raise PlacementError("resources_short", _explain(bundles, timeout))


def warn_of_idle_gpus(asked: float) -> None:
    """Log a warning when a run asks for no GPU on a cluster that has some."""
    if not asked and any(node.get("GPU") for node in _nodes("total")):
        logger.warning(
            "the cluster has GPUs and this run asks for none: "
            "add one of configs/layouts to --config"
        )


def actor_options(asked: Bundle, group: PlacementGroup | None, index: int = -1) -> dict[str, Any]:
    """Return Ray's options of an actor that takes ``asked`` from a bundle of the group.

    Args:
        asked: resources of the actor.
        group: reservation, or None.
        index: of the bundle; -1: any bundle that fits.
    """
    options: dict[str, Any] = {"num_cpus": asked.get("CPU", 0), "num_gpus": asked.get("GPU", 0)}
    if group is not None:
        options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
            group, placement_group_bundle_index=index
        )
    return options


def bundle_index(first: int | None, number: int) -> int:
    """Return the bundle of actor ``number`` of a kind whose bundles begin at ``first``.

    Without ``first`` that is -1, Ray's number for any bundle that fits.
    """
    return -1 if first is None else first + number


def torch_environment(threads: int, gpus: float) -> dict[str, str]:
    """Return the environment variables of an actor that computes with torch."""
    env = {"OMP_NUM_THREADS": str(threads)}
    if gpus:
        # No memory settings here: the host has no batches to compute, and would only keep the pages
        # that the weights were loaded through.
        return env
    return env | {
        # glibc returns the pages of freed tensors to the kernel and gets new, zeroed ones for the
        # next: a third of the time of the reference's forward. Kept, they are there for the next
        # batch (ours).
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
        # Ray lets an actor that asked for no GPU see all of them.
        "CUDA_VISIBLE_DEVICES": "",
    }


def shortage(bundles: Sequence[Bundle], nodes: Sequence[Bundle]) -> str:
    """Describe what the nodes lack for the bundles, in bundles and in nodes; "" when all fit.

    Large bundles are placed first, each on the first node that still has room.
    """
    room = [dict(node) for node in nodes]
    left = [each for each in sorted(bundles, key=_size, reverse=True) if not _take(each, room)]
    if not left:
        return ""
    large_enough = [node for node in nodes if _can_hold_each(node, left)]
    if not large_enough:
        return f"{describe(left)}, and no node is large enough for {_resources(left[0])}"
    # Nodes are added, each like the largest of today's, until everything has a place.
    kind = max(large_enough, key=_size)
    added: list[dict[str, float]] = []
    for each in left:
        if not _take(each, added):
            added.append(dict(kind))
            _take(each, added)
    plural = "s" if len(added) > 1 else ""
    return f"{describe(left)}, that is {len(added)} more node{plural} with {_resources(kind)}"


def describe(bundles: Iterable[Bundle]) -> str:
    """List the bundles, equal ones counted: ``8 x {CPU 4, GPU 1}, 2 x {CPU 0.5}``."""
    kinds = Counter(_resources(each) for each in bundles)
    return ", ".join(f"{count} x {{{kind}}}" for kind, count in kinds.items())


def _can_hold_each(node: Bundle, bundles: Iterable[Bundle]) -> bool:
    """Return whether the node, all of it free, has room for each of the bundles alone."""
    return all(_take(each, [dict(node)]) for each in bundles)


def _take(asked: Bundle, room: Sequence[dict[str, float]]) -> bool:
    """Take the bundle from the first of ``room`` that has it; return False when none has."""
    for node in room:
        # Fractions of a GPU do not add up exactly.
        if all(node.get(name, 0) >= amount - 1e-6 for name, amount in asked.items()):
            for name, amount in asked.items():
                node[name] -= amount
            return True
    return False


def _size(resources: Bundle) -> tuple[float, float]:
    return resources.get("GPU", 0), resources.get("CPU", 0)


def _nodes(which: Literal["free", "total"]) -> list[Bundle]:
    """Return the CPUs and GPUs of every living node: all of them, or those that are free."""
    per_node = available_resources_per_node() if which == "free" else total_resources_per_node()
    return [_cpus_and_gpus(resources) for resources in per_node.values()]


def _cpus_and_gpus(resources: Bundle) -> Bundle:
    # Ray also counts memory, and a resource of the node's own name.
    return {name: resources[name] for name in ("CPU", "GPU") if name in resources}


def _explain(bundles: Sequence[Bundle], timeout: float) -> str:
    total = _nodes("total")
    free = _nodes("free")
    lasting = shortage(bundles, total)
    missing = lasting or shortage(bundles, free) or "nothing in sum, but what is free lies apart"
    others = "" if lasting else "; the nodes would be large enough, others use them now"
    return (
        f"the cluster did not give {describe(bundles)} within {timeout:g} s; its nodes have "
        f"{describe(total)}, free {describe(free)}; missing: {missing}{others}; lower *.workers, "
        "rollout.engines, reward.scorers or their CPUs and GPUs, take a smaller layout of "
        "configs/layouts, or add nodes"
    )


def _resources(amounts: Bundle) -> str:
    return ", ".join(f"{name} {amount:g}" for name, amount in sorted(amounts.items()))
