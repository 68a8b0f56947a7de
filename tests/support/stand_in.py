"""Define an actor for tests of placement, in a module that imports little."""

from __future__ import annotations

import ray

from actors.actor_pool import Supervised


class StandIn(Supervised):
    """An actor that returns where it is."""

    def where(self) -> tuple[str, list[str]]:
        """Return its node and its GPUs."""
        context = ray.get_runtime_context()
        return context.get_node_id(), context.get_accelerator_ids()["GPU"]
