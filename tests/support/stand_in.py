"""An actor for tests of placement; a module of its own, so that its process imports little."""

from __future__ import annotations

import ray

from actors.actor_pool import Supervised


class StandIn(Supervised):
    """Says where it sits."""

    def where(self) -> tuple[str, list[str]]:
        """Its node and its GPUs."""
        context = ray.get_runtime_context()
        return context.get_node_id(), context.get_accelerator_ids()["GPU"]
