"""Cache of the models' results for reports, on disk, by content and model version."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lmrrg.metrics.published.radgraph import Annotation

# Analyses kept in memory per process; one is about 200 KB, so all are 800 MB at most.
_IN_MEMORY = 4096


@dataclass(frozen=True)
class Analysis:
    """The models' results for one report: all that scoring needs."""

    tokens: Tensor
    """BERTScore's unit-length token embeddings [T, H]."""
    embedding: Tensor
    """CheXbert's embedding [H]."""
    annotation: Annotation


class AnalysisCache:
    """An LRU cache in memory over files on disk; all processes that use the folder share the files.

    A file's name is the hash of the text and of the models' version, so no entry is ever stale, and
    files are written atomically. Report text is not written, but RadGraph's entities quote words of
    it: keep the folder where the reports may be kept.
    """

    def __init__(self, folder: Path | None, version: str):
        """``folder`` None keeps analyses in memory only."""
        self._folder = folder
        self._version = version
        self._memory: OrderedDict[str, Analysis] = OrderedDict()

    def get(self, report: str) -> Analysis | None:
        """Return the analysis of a report, None where there is none."""
        key = self._key(report)
        found = self._memory.get(key) or self._read(key)
        if found is not None:
            self._remember(key, found)
        return found

    def put(self, report: str, analysis: Analysis) -> None:
        """Keep an analysis in memory and, with a folder, on disk."""
        key = self._key(report)
        self._remember(key, analysis)
        if self._folder is not None:
            path = self._path(self._folder, key)
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, analysis)

    def _key(self, report: str) -> str:
        return hashlib.sha256(f"{self._version}\0{report}".encode()).hexdigest()

    @staticmethod
    def _path(folder: Path, key: str) -> Path:
        return folder / key[:2] / f"{key}.safetensors"

    def _remember(self, key: str, analysis: Analysis) -> None:
        self._memory[key] = analysis
        self._memory.move_to_end(key)
        if len(self._memory) > _IN_MEMORY:
            self._memory.popitem(last=False)

    def _read(self, key: str) -> Analysis | None:
        """Read an analysis from disk, None where there is no usable file."""
        if self._folder is None or not (path := self._path(self._folder, key)).is_file():
            return None
        try:
            with safe_open(path, framework="pt") as stored:
                graph = json.loads(stored.metadata()["annotation"])
                return Analysis(
                    tokens=stored.get_tensor("tokens"),
                    embedding=stored.get_tensor("embedding"),
                    annotation=Annotation(
                        tuple((tokens, label) for tokens, label in graph["entities"]),
                        tuple((head, tail, kind) for head, tail, kind in graph["relations"]),
                    ),
                )
        except SafetensorError:
            # A damaged file is not an error: the report is analysed again and the file replaced.
            return None


def _write(path: Path, analysis: Analysis) -> None:
    """Write an analysis by a rename, so that another process never reads half a file."""
    graph = {"entities": analysis.annotation.entities, "relations": analysis.annotation.relations}
    content = save(
        {"tokens": analysis.tokens.contiguous(), "embedding": analysis.embedding.contiguous()},
        metadata={"annotation": json.dumps(graph)},
    )
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as out:
        out.write(content)
    os.replace(out.name, path)
