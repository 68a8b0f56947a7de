"""Refuse the old name of an option and give the new one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any


class RenamedOption(argparse.Action):
    """Refuse an option that has another name now; ``const`` is the new one."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """End the command with a message that names both options."""
        parser.error(f"{option_string} is now called {self.const}")


def add_renamed_option(parser: argparse.ArgumentParser, old: str, new: str) -> None:
    """Declare ``old`` as a former name of the option ``new``; it is not listed in ``--help``."""
    # The separate `dest` keeps the value of the new option out of reach.
    parser.add_argument(
        old, action=RenamedOption, const=new, dest="renamed_option", help=argparse.SUPPRESS
    )


def backend_name(text: str) -> str:
    """Return the name of a backend, or refuse the old name of ``published``; an argparse type."""
    if text == "reference":
        raise argparse.ArgumentTypeError("reference is now called published")
    return text
