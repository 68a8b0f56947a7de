"""Read settings from YAML files and overrides, and write them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from lmrrg.config.base import ConfigError, Settings
from lmrrg.config.description import describe_config
from lmrrg.config.tree import Config
from lmrrg.config.yaml_file import read_yaml
from lmrrg.files import atomic_writer

BranchT = TypeVar("BranchT", bound=Settings)

_NAME_OR_FOLDER = ("pretrained", "text_encoder", "weights")
"""Settings that name a model or the folder it lies in."""


def load_config(path: Path | str | None = None, overrides: Sequence[str] = ()) -> Config:
    """Read YAML settings and apply ``key.sub=value`` overrides (values are YAML).

    Where ``$LMRRG_HOME`` is set (the storage that a cluster's nodes share), relative paths in the
    settings lie below it. The names of the decoder and of the text encoder are changed only where a
    folder of that name lies there.

    Args:
        path: a file, or several with commas between them, such as
            ``configs/iu_xray.yaml,configs/layouts/8gpu_split.yaml``: later ones win.

    Raises:
        ConfigError: the file is missing or not a mapping, a key occurs twice or is unknown (the
            nearest known key is named), a value is not allowed, or a combination is impossible.
    """
    origin = str(path) if path else "defaults"
    tree: dict[str, Any] = {}
    for file in str(path).split(",") if path else []:
        _merge(tree, read_yaml(Path(file)))
    for override in overrides:
        _apply_override(tree, override)
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        where = origin + (f" with {' '.join(overrides)}" if overrides else "")
        raise ConfigError(_explain(error, where)) from error
    home = os.environ.get("LMRRG_HOME")
    return rebase(config, Path(home)) if home else config


def save_config(config: Config, path: Path) -> None:
    """Write the resolved tree as YAML, every default included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_writer(path) as out:
        # In the order of the tree, in which related settings stand together.
        yaml.safe_dump(config.model_dump(mode="json"), out, sort_keys=False)


def _merge(tree: dict[str, Any], other: dict[str, Any]) -> None:
    """Put ``other`` into ``tree``, group by group; its values win."""
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value


def rebase(branch: BranchT, home: Path) -> BranchT:
    """Return the settings with every relative path below ``home``.

    The names of the decoder and of the text encoder are changed only where a folder of that name
    lies there. Actors have a working directory of their own, so what they get must be absolute.
    """
    changed: dict[str, Any] = {}
    for name, value in branch:
        if isinstance(value, Path):
            changed[name] = home / value
        elif isinstance(value, Settings):
            changed[name] = rebase(value, home)
        elif name in _NAME_OR_FOLDER and _is_folder(value, home):
            changed[name] = str(home / value)
    # A copy is not validated again; the rules know no difference between relative and absolute.
    return branch.model_copy(update=changed)


def _is_folder(model: str | None, home: Path) -> bool:
    """Return whether a model's name is that of a folder below ``home``.

    "minilm" always means the packaged model.
    """
    return model not in (None, "", "minilm") and (home / model).is_dir()


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {override!r} is not of the form key=value")
    *branches, leaf = key.split(".")
    # Unknown branches are created here and refused by the validation, which knows the close names.
    for branch in branches:
        tree = tree.setdefault(branch, {})
        if not isinstance(tree, dict):
            raise ConfigError(
                f"override {override!r}: {branch} is a value, not a group of settings"
            )
    try:
        tree[leaf] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {override!r}: the value is not valid YAML") from error


def _explain(error: ValidationError, where: str) -> str:
    known = [setting.key for setting in describe_config()]
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(_explain_unknown(key, known))
        # A rule of ours: its message is complete. Below, pydantic's own, which needs the value.
        elif problem["type"] == "value_error":
            lines.append(f"{key or 'config'}: {problem['msg'].removeprefix('Value error, ')}")
        else:
            lines.append(f"{key}: {problem['msg']} (got {problem['input']!r})")
    return f"{where}: " + "; ".join(lines)


def _explain_unknown(key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    branch = _parent(key)
    siblings = {
        other.removeprefix(branch).split(".")[0] for other in known if other.startswith(branch)
    }
    return f"{key} is not a setting; {hint}allowed here: {', '.join(sorted(siblings))}"


def _parent(key: str) -> str:
    return key.rpartition(".")[0] + "." if "." in key else ""
