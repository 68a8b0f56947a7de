"""Read a YAML file of settings or of region texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from lmrrg.config.base import ConfigError


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that occurs twice in one mapping; plain YAML would drop the first silently."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value} occurs twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return node


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping that a file holds.

    Raises:
        ConfigError: the file is missing, no YAML in UTF-8, no mapping, or has a key twice.
    """
    if not path.is_file():
        raise ConfigError(f"config file {path} does not exist")
    try:
        tree = _UniqueKeys(path.read_text(encoding="utf-8")).get_single_data() or {}
    # ValueError: the file is not UTF-8, or holds an impossible date.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold a mapping")
    return tree
