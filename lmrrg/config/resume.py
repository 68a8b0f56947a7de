"""The settings that a stage must keep when it continues."""

from __future__ import annotations

from collections.abc import Mapping
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


def changed_keys(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Return the keys whose values differ, sorted.

    A key of one side alone counts too: an older or newer version had other settings.
    """
    return [
        key for key in sorted(saved.keys() | current.keys()) if saved.get(key) != current.get(key)
    ]


def _value(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree[part]
    return tree
