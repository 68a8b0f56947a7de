"""The script that turns a GGUF decoder into a folder: what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from lmrrg.errors import CodedError
from lmrrg.model.decoder import DecoderError
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def dequantise() -> Callable[[Path, Path], int]:
    spec = spec_from_file_location("dequantise_script", ROOT / "scripts" / "dequantise.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.dequantise


def test_a_folder_that_exists_stays_as_it_is(
    dequantise: Callable[[Path, Path], int], tmp_path: Path
) -> None:
    source = tmp_path / "model.gguf"
    source.touch()
    (tmp_path / "out").mkdir()
    with pytest.raises(CodedError, match="bad_output"):
        dequantise(source, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_missing_file_and_a_missing_package_are_named(
    dequantise: Callable[[Path, Path], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DecoderError, match="pretrained_missing"):
        dequantise(tmp_path / "model.gguf", tmp_path / "out")
    (tmp_path / "model.gguf").touch()
    monkeypatch.setitem(dequantise.__globals__, "find_spec", lambda _: None)  # type: ignore[attr-defined]
    with pytest.raises(DecoderError, match=r"package_missing.*pip install gguf"):
        dequantise(tmp_path / "model.gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_file_is_refused_and_leaves_nothing(
    dequantise: Callable[[Path, Path], int], tmp_path: Path
) -> None:
    pytest.importorskip("gguf", reason="the package gguf is no locked dependency")
    (tmp_path / "model.gguf").write_bytes(np.random.default_rng(0).bytes(4000))
    with pytest.raises(DecoderError):
        dequantise(tmp_path / "model.gguf", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]
