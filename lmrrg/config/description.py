"""The settings described: key, type, default, meaning, and the stages that they belong to."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

import annotated_types
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lmrrg.config.base import STAGES_KEY, Stage
from lmrrg.config.tree import Config
from lmrrg.own_code import OwnCode

_EVERY_STAGE: tuple[Stage, ...] = get_args(Stage)
_SYMBOLS: dict[type, tuple[str, str]] = {
    annotated_types.Gt: ("gt", ">"),
    annotated_types.Ge: ("ge", ">="),
    annotated_types.Lt: ("lt", "<"),
    annotated_types.Le: ("le", "<="),
}


@dataclass(frozen=True)
class Setting:
    """One setting, as the help of a command and the documentation show it."""

    key: str
    """Dotted name, such as ``ppo.kl.initial``."""
    type: str
    """The allowed values, or a type with its bounds."""
    default: str
    """As it is written in YAML."""
    meaning: str
    """What it does, with the unit."""
    stages: frozenset[Stage]
    """The stages whose results it changes: see :func:`lmrrg.config.base.enters`."""


def describe_config(model: type[BaseModel] = Config) -> Iterator[Setting]:
    """Yield every setting of a branch, and of the branches below it, in their order."""
    yield from _describe(model, "", _EVERY_STAGE)


def config_help() -> str:
    """Return the settings as a text table, for ``--help``."""
    rows = (
        f"  {s.key}  ({s.type}; default {s.default})\n      {s.meaning}" for s in describe_config()
    )
    return "settings, given in the YAML file or as key=value:\n" + "\n".join(rows)


def _describe(
    model: type[BaseModel], prefix: str, inherited: tuple[Stage, ...]
) -> Iterator[Setting]:
    for name, info in model.model_fields.items():
        stages = _stages(info, inherited)
        branch = info.annotation
        if isinstance(branch, type) and issubclass(branch, BaseModel):
            yield from _describe(branch, f"{prefix}{name}.", stages)
        else:
            yield Setting(
                key=f"{prefix}{name}",
                type=_with_limits(info.annotation, info.metadata),
                default=_as_yaml(info.default),
                meaning=info.description or "",
                stages=frozenset(stages),
            )


def _stages(info: FieldInfo, inherited: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """Return the stages of the setting's own mark, or those of its branch."""
    extra = info.json_schema_extra
    if not isinstance(extra, dict) or STAGES_KEY not in extra:
        return inherited
    named = extra[STAGES_KEY]
    return tuple(stage for stage in _EVERY_STAGE if stage in cast(list[str], named))


def _with_limits(annotation: Any, constraints: Iterable[Any]) -> str:
    limits = ", ".join(_limits(constraints))
    return f"{_name(annotation)} {limits}".rstrip()


def _name(annotation: Any) -> str:
    origin = get_origin(annotation)
    if annotation == OwnCode:
        return "module:function"
    if origin is Annotated:
        plain, *constraints = get_args(annotation)
        return _with_limits(plain, constraints)
    if origin is Literal:
        return "|".join(str(value) for value in get_args(annotation))
    if origin in (Union, types.UnionType):
        return " or ".join(_name(part) for part in get_args(annotation))
    if origin is dict:
        return "mapping of names"
    if origin is list:
        return f"list of {_name(get_args(annotation)[0])}"
    names: dict[Any, str] = {str: "text", Path: "path", type(None): "null"}
    return names.get(annotation) or annotation.__name__


def _limits(constraints: Iterable[Any]) -> Iterator[str]:
    for constraint in constraints:
        attribute, symbol = _SYMBOLS.get(type(constraint), ("", ""))
        if symbol:
            yield f"{symbol} {getattr(constraint, attribute)}"


def _as_yaml(value: Any) -> str:
    if isinstance(value, Path):
        value = str(value)
    # PyYAML ends a document that is one plain value with a line of three dots.
    text: str = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return text.removesuffix("...\n").strip()
