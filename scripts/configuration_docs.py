#!/usr/bin/env python3
"""Write docs/configuration.md from the settings.

    python scripts/configuration_docs.py [--check]

With --check nothing is written: the exit code is 1 where the file is not what would be written.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from lmrrg.config.base import Settings
from lmrrg.config.description import Setting, describe_config
from lmrrg.config.tree import Config

TARGET = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
STAGES = {"data": "studies", "sft": "SFT", "ppo": "PPO"}
INTRODUCTION = """\
# Settings

<!-- Written by scripts/configuration_docs.py from lmrrg/config: edit the settings, not this. -->

Settings are given in YAML files (`--config`, several with commas between them: later ones win) and
as `key=value` on the command line, which wins over the files:

    python rl/ppo.py --config configs/iu_xray.yaml,configs/layouts/8gpu_split.yaml ppo.iterations=20

An unknown key, a value that is not allowed and an impossible combination are errors that name the
key. Where `$LMRRG_HOME` is set, relative paths lie below it. Every run writes all of its settings,
defaults included, to `config.yaml` in its folder.

**Fixed for** names the stages whose results a setting changes. Such a stage refuses to continue
with another value (error code `resume_mismatch`); it can start again with `sft.resume=false` or
`ppo.resume=false`, or under another `name`. A setting with – may change whenever a run continues.
"""


def main() -> int:
    """Write the file, or compare it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    args = parser.parse_args()
    text = configuration_page()
    if not args.check:
        TARGET.write_text(text, encoding="utf-8")
        return 0
    if TARGET.is_file() and TARGET.read_text(encoding="utf-8") == text:
        return 0
    print(f"{TARGET} is outdated; run python {Path(__file__).name}", file=sys.stderr)
    return 1


def configuration_page() -> str:
    """Return the page: a table for each branch of the settings, in their order."""
    parts = [INTRODUCTION]
    # Sorting keeps the order inside a branch, and puts a branch's own settings before its branches.
    settings = sorted(describe_config(), key=lambda setting: _order(_branch(setting)))
    for branch, rows in groupby(settings, key=_branch):
        parts.append(_section(branch, rows))
    return "\n".join(parts)


def _branch(setting: Setting) -> str:
    return setting.key.rpartition(".")[0]


def _order(branch: str) -> tuple[int, int]:
    """Return the sort key of a branch: its outermost branch's place in the tree, then its depth."""
    outermost = branch.split(".")[0]
    return list(Config.model_fields).index(outermost) if branch else -1, branch.count(".")


def _section(branch: str, rows: Iterable[Setting]) -> str:
    title = f"`{branch}`" if branch else "The run"
    return "\n".join(
        [
            f"##{'#' * branch.count('.')} {title}",
            "",
            inspect.getdoc(_model(branch)) or "",
            "",
            "| Setting | Type | Default | Meaning | Fixed for |",
            "|---|---|---|---|---|",
            *_table_rows(rows),
            "",
        ]
    )


def _model(branch: str) -> type[Settings]:
    """Return the class of a branch."""
    model: type[Settings] = Config
    for name in filter(None, branch.split(".")):
        annotation = model.model_fields[name].annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, Settings)
        model = annotation
    return model


def _table_rows(rows: Iterable[Setting]) -> Iterator[str]:
    for setting in rows:
        fixed = ", ".join(STAGES[stage] for stage in STAGES if stage in setting.stages) or "–"
        cells = (
            f"`{setting.key}`",
            setting.type,
            f"`{setting.default}`",
            setting.meaning,
            fixed,
        )
        yield "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
