"""Reads settings from YAML files and overrides, writes them, and describes them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import (
    BaseModel,
    ValidationError,
)

from lmrrg.config.base import ConfigError, Settings
from lmrrg.config.tree import Config
from lmrrg.config.yaml_file import read_yaml
from lmrrg.files import atomic_writer

_NAME_OR_FOLDER = ("pretrained", "text_encoder")
"""Settings that name a model or the folder it lies in."""


def load_config(path: Path | str | None = None, overrides: Sequence[str] = ()) -> Config:
    """Read YAML settings and apply ``key.sub=value`` overrides (values are YAML).

    ``path`` may name several files, ``configs/iu_xray.yaml,configs/layouts/8gpu_split.yaml``: later ones win. Relative
    paths in the settings lie below ``$LMRRG_HOME`` where it is set: the storage that a cluster's nodes share. So do the
    decoder and the text encoder where a folder of that name is there; else the name is left as it is.

    Raises:
        ConfigError: the file is missing or not a mapping, a key occurs twice or is unknown (the nearest known key is
            named), a value is not allowed, or a combination is impossible.
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
    return _rebase(config, Path(home)) if home else config


def save_config(config: Config, path: Path) -> None:
    """Write the resolved tree as YAML, every default included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_writer(path) as out:
        yaml.safe_dump(config.model_dump(mode="json"), out, sort_keys=False)


def describe_config(
    model: type[BaseModel] = Config, prefix: str = ""
) -> Iterator[tuple[str, str, str, str]]:
    """Yield (dotted key, type, default, meaning with unit) for every setting, for ``--help`` and the docs."""
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from describe_config(info.annotation, f"{prefix}{name}.")
        else:
            yield (
                f"{prefix}{name}",
                _type_name(info.annotation),
                str(info.default),
                info.description or "",
            )


def config_help() -> str:
    """The settings as a text table."""
    rows = (
        f"  {key}  ({kind}; default {default})\n      {text}"
        for key, kind, default, text in describe_config()
    )
    return "settings, given in the YAML file or as key=value:\n" + "\n".join(rows)


def _merge(tree: dict[str, Any], other: dict[str, Any]) -> None:
    """Put ``other`` into ``tree``, group by group; its values win."""
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value


def _rebase(branch: Any, home: Path) -> Any:
    """The settings with every relative path below ``home``."""
    changed: dict[str, Any] = {}
    for name, value in branch:
        if isinstance(value, Path):
            changed[name] = home / value
        elif isinstance(value, Settings):
            changed[name] = _rebase(value, home)
        elif name in _NAME_OR_FOLDER and _is_folder(value, home):
            changed[name] = str(home / value)
    return branch.model_copy(update=changed)


def _is_folder(model: str | None, home: Path) -> bool:
    """Whether a model's name is that of a folder below ``home``; "minilm" always means the packaged one."""
    return model not in (None, "", "minilm") and (home / model).is_dir()


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {override!r} is not of the form key=value")
    *branches, leaf = key.split(".")
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
    known = [key for key, *_ in describe_config()]
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, known, n=1)
            siblings = sorted(
                {
                    k.removeprefix(_parent(key)).split(".")[0]
                    for k in known
                    if k.startswith(_parent(key))
                }
            )
            hint = f"did you mean {near[0]}? " if near else ""
            lines.append(f"{key} is not a setting; {hint}allowed here: {', '.join(siblings)}")
        elif problem["type"] == "value_error":
            lines.append(f"{key or 'config'}: {problem['msg'].removeprefix('Value error, ')}")
        else:
            lines.append(f"{key}: {problem['msg']} (got {problem['input']!r})")
    return f"{where}: " + "; ".join(lines)


def _parent(key: str) -> str:
    return key.rpartition(".")[0] + "." if "." in key else ""


def _type_name(annotation: Any) -> str:
    choices = get_args(annotation)
    if getattr(annotation, "__name__", "") == "Literal" or (
        choices and not isinstance(choices[0], type)
    ):
        return "|".join(str(choice) for choice in choices)
    return getattr(annotation, "__name__", str(annotation))
