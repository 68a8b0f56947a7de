"""Read some hundred damaged score files, manifests and tables; the benchmark reads 10,000 each."""

from __future__ import annotations

import importlib.util
import signal
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from lmrrg.studies import StudyError
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    path = ROOT / "benchmarks" / "fuzz" / "tables.py"
    spec = importlib.util.spec_from_file_location("fuzz_tables", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", ["score files", "manifests", "lab tables"])
def test_damaged_files_end_in_reports_or_in_a_code(
    fuzz: ModuleType, tmp_path: Path, kind: str
) -> None:
    signal.signal(signal.SIGALRM, fuzz._hang)
    make, read = fuzz.KINDS[kind]
    rng = np.random.default_rng(7)
    ends = {fuzz.outcome(read, fuzz.damaged_file(make(), tmp_path, rng)) for _ in range(200)}
    assert "read" in ends
    assert len(ends) > 2


def test_the_check_knows_a_quote(fuzz: ModuleType, tmp_path: Path) -> None:
    def quoting(path: Path) -> None:
        raise StudyError("bad_row", f"{path} has {fuzz.TEXTS[0]}")

    with pytest.raises(AssertionError):
        fuzz.outcome(quoting, tmp_path / "a.csv")
