"""The ``lmrrg`` command.

A subcommand is a module of this package with ``add_arguments(parser)`` and ``run(args) -> int``.
"""

from __future__ import annotations

import argparse
import importlib
import sys

from lmrrg.errors import run_command

COMMANDS = {
    "data": "read a data set into a manifest of studies",
    "score": "score hypothesis reports against references",
    "compare": "test whether systems differ, from files with their reports",
    "evaluate": "generate reports with a checkpoint and score them",
    "generate": "write reports for films that have none",
    "watch": "take studies from an archive (PACS) and store their reports there",
    "export": "make a folder of a model for others, with its card",
    "explain": "show matched, missed and invented findings of every report, in colour",
    "demo": "run SFT, PPO, evaluation and the run report with one config",
    "doctor": "say what is installed and what is missing, or check a run before it starts",
}


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand and return its exit code.

    Bad input, or a file that cannot be read or written, ends with one sentence on stderr and exit
    code 2.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] not in COMMANDS:
        return _usage(argv)
    name = argv[0]
    # Imported by name: some commands load torch and vLLM, which the others need not wait for.
    command = importlib.import_module(f"lmrrg.cli.{name}")
    parser = argparse.ArgumentParser(
        prog=f"lmrrg {name}",
        description=COMMANDS[name],
        epilog=getattr(command, "EPILOG", None),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    args = parser.parse_args(argv[1:])
    return run_command(f"lmrrg {name}", lambda: command.run(args))


def _usage(argv: list[str]) -> int:
    # Asked for, the usage is the output of the command; else it explains an error.
    wants_help = bool(argv) and argv[0] in ("-h", "--help")
    out = sys.stdout if wants_help else sys.stderr
    if argv and not wants_help:
        print(f"lmrrg: unknown command {argv[0]!r}", file=out)
    print("usage: lmrrg COMMAND [--help]\n", file=out)
    for name, text in COMMANDS.items():
        print(f"  {name:10} {text}", file=out)
    return 0 if wants_help else 2


if __name__ == "__main__":
    sys.exit(main())
