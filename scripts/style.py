#!/usr/bin/env python3
"""Print how the code reads, in figures, and exit with 1 where a limit is broken.

    python scripts/style.py [--root DIR]

Counted is the Python code of the packages; tests, benchmarks and scripts are left out, but for the
files per folder, which are counted everywhere.
"""

from __future__ import annotations

import argparse
import ast
import io
import statistics
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("lmrrg", "actors", "rl", "sft", "serve_app")
FOLDERS = (*PACKAGES, "benchmarks", "configs", "docs", "scripts", "tests")
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
LONG_LINE = 100
"""Columns."""


class Limit(NamedTuple):
    """What a figure may be at most, or must be at least."""

    name: str
    bound: float
    is_minimum: bool = False

    def holds(self, value: float) -> bool:
        """Return whether a measured value keeps the limit."""
        return value >= self.bound if self.is_minimum else value <= self.bound


LIMITS = (
    Limit("files in one folder, most", 16),
    Limit("lines in one file, most", 400),
    Limit("lines in one function, median", 9),
    Limit("comments in 100 lines", 2.0, is_minimum=True),
    Limit("comprehensions in 100 lines", 3.0),
    Limit("comprehensions inside another", 0),
    Limit("lines over 100 columns, percent", 3.0),
    Limit("several assignments in one, percent", 2.0),
    Limit("doctest examples", 50, is_minimum=True),
)


def measure(root: Path) -> dict[str, float]:
    """Return the figure of every limit for the checkout at ``root``."""
    sources = [path.read_text(encoding="utf-8") for path in python_files(root)]
    trees = [ast.parse(source) for source in sources]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    lines = sum(source.count("\n") for source in sources)
    long_lines = sum(len(line) > LONG_LINE for source in sources for line in source.splitlines())
    comprehensions = [node for node in nodes if isinstance(node, COMPREHENSIONS)]
    assignments = [node for node in nodes if isinstance(node, ast.Assign)]
    function_lengths = [
        node.end_lineno - node.lineno + 1
        for node in nodes
        if isinstance(node, FUNCTIONS) and node.end_lineno is not None
    ]
    return {
        "files in one folder, most": max(files_per_folder(root).values()),
        "lines in one file, most": max(source.count("\n") for source in sources),
        "lines in one function, median": statistics.median(function_lengths),
        "comments in 100 lines": 100 * sum(map(count_comments, sources)) / lines,
        "comprehensions in 100 lines": 100 * len(comprehensions) / lines,
        "comprehensions inside another": sum(map(holds_comprehension, comprehensions)),
        "lines over 100 columns, percent": 100 * long_lines / lines,
        "several assignments in one, percent": 100
        * sum(map(is_tuple_assignment, assignments))
        / len(assignments),
        "doctest examples": sum(source.count(">>> ") for source in sources),
    }


def python_files(root: Path) -> Iterator[Path]:
    """Yield every Python file of the packages."""
    for package in PACKAGES:
        yield from sorted((root / package).rglob("*.py"))


def files_per_folder(root: Path) -> Counter[str]:
    """Count the files of every folder; an ``__init__.py`` is part of its folder and not counted."""
    counts: Counter[str] = Counter()
    for folder in FOLDERS:
        for path in (root / folder).rglob("*"):
            if path.is_file() and path.name != "__init__.py" and "__pycache__" not in path.parts:
                counts[str(path.parent.relative_to(root))] += 1
    return counts


def count_comments(source: str) -> int:
    """Count the comment lines that say something; directives for tools are none."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = (token.string for token in tokens if token.type == tokenize.COMMENT)
    return sum(not text.startswith(("#!", "# noqa", "# type:", "# fmt:")) for text in comments)


def holds_comprehension(comprehension: ast.AST) -> bool:
    """Return whether another comprehension stands inside this one."""
    inside = (node for node in ast.walk(comprehension) if node is not comprehension)
    return any(isinstance(node, COMPREHENSIONS) for node in inside)


def is_tuple_assignment(assignment: ast.Assign) -> bool:
    """Return whether one line gives several values to several names, as in ``a, b = 1, 2``.

    Taking a function's result apart is another thing, and not counted.
    """
    is_unpacked = any(isinstance(target, ast.Tuple) for target in assignment.targets)
    return is_unpacked and isinstance(assignment.value, ast.Tuple)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1])
    figures = measure(parser.parse_args().root)
    broken = 0
    for limit in LIMITS:
        value, holds = figures[limit.name], limit.holds(figures[limit.name])
        broken += not holds
        sign = "≥" if limit.is_minimum else "≤"
        mark = "" if holds else "   BROKEN"
        print(f"{limit.name:40} {value:8.2f}   {sign} {limit.bound:g}{mark}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
