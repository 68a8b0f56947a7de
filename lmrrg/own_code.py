"""Load a function of somebody's own that a setting names as ``module:function``."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from lmrrg.errors import CodedError

_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not of the form module:function")
    return name


OwnCode = Annotated[str, AfterValidator(_checked_name)]
"""The name of a function, such as ``my_lab.rewards:score``."""


def load_own(name: str, setting: str) -> Callable[..., Any]:
    """Return the function that a setting names.

    The module is looked for on Python's path and in the working directory, which is also where
    ``ray job submit --working-dir .`` puts a lab's modules on every node.

    Args:
        name: module and function, such as ``my_lab.rewards:score``.
        setting: the setting's key, for the error message.

    >>> load_own("lmrrg.metrics.reward:length_excess", "reward.function")(40, 10)
    0.6931

    Raises:
        CodedError: ``own_code``, there is no such module or function, or its import failed.
    """
    module_name, _, function_name = name.partition(":")
    # A checkpoint that somebody else made names its encoder, too: it must not name, say, os.
    if module_name.partition(".")[0] in sys.stdlib_module_names:
        raise CodedError("own_code", f"{setting} names {module_name}, a module of Python itself")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            where = f"neither installed nor in the working directory {folder}"
            why = f"{setting} names the module {error.name}, which is {where}"
            raise CodedError("own_code", why) from error
        raise _failed_import(setting, module_name, error) from error
    except Exception as error:
        raise _failed_import(setting, module_name, error) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        why = f"{setting} names {function_name}, which is no function of {module_name}"
        raise CodedError("own_code", why)
    return function


def is_own(name: str) -> bool:
    """Return whether a setting names a function of somebody's own rather than one of ours."""
    return ":" in name


def _failed_import(setting: str, module: str, error: Exception) -> CodedError:
    why = f"{type(error).__name__}: {error}"
    return CodedError("own_code", f"{setting} names {module}, which cannot be imported: {why}")
