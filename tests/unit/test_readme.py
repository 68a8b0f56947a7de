"""The front door: links lead somewhere, the Python example imports, the commands exist."""

from __future__ import annotations

import ast
import importlib
import re

import pytest
import yaml

from lmrrg.cli.main import COMMANDS
from tests.support.paths import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_python_example_imports_what_it_names():
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert example is not None
    assert len(example[1].splitlines()) <= 14
    for node in ast.walk(ast.parse(example[1])):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            for name in node.names:
                assert hasattr(module, name.name) or node.module == "pathlib"


def test_the_readme_names_every_command_and_no_other():
    named = set(re.findall(r"^\| `lmrrg ([a-z]+)", README, re.MULTILINE))
    assert named == set(COMMANDS)


def test_the_citation_and_the_workflow_are_valid_yaml():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["license"] == "Apache-2.0"
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    steps = workflow["jobs"]["check"]["steps"]
    assert any(".ci/run" in step.get("run", "") for step in steps)
