"""The settings that a stage must keep when it continues."""

from __future__ import annotations

from typing import Any

from lmrrg.config.base import Stage
from lmrrg.config.description import describe_config
from lmrrg.config.tree import Config


def binding_settings(config: Config, stage: Stage) -> dict[str, Any]:
    """Return the settings that change the results of a stage, as JSON values by dotted key.

    The marks on the settings decide (:func:`lmrrg.config.base.enters`).
    """
    values = config.model_dump(mode="json")
    return {
        setting.key: _value(values, setting.key)
        for setting in describe_config()
        if stage in setting.stages
    }


def _value(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree[part]
    return tree
