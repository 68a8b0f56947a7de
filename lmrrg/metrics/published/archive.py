"""Read a model that is published as one archive.

Nothing is unpacked to disk, and only tensors are unpickled.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from lmrrg.metrics.errors import MetricError


@dataclass(frozen=True)
class Archive:
    """The files of an archive by their path inside it."""

    path: Path
    files: Mapping[str, bytes]

    def read(self, name: str) -> bytes:
        """Return the content of one file.

        Raises:
            MetricError: ``weights_mismatch``.
        """
        if name not in self.files:
            raise MetricError("weights_mismatch", f"{self.path} has no {name}")
        return self.files[name]

    def weights(self, name: str) -> dict[str, Tensor]:
        """Return a state dict, on the CPU."""
        return torch.load(io.BytesIO(self.read(name)), map_location="cpu", weights_only=True)

    def names(self, folder: str) -> list[str]:
        """Return the paths of the files in one folder.

        >>> Archive(Path("m.tar.gz"), {"config.json": b"", "words/a.txt": b""}).names("words")
        ['words/a.txt']
        """
        return [name for name in self.files if PurePosixPath(name).parent == PurePosixPath(folder)]


def open_archive(path: Path) -> Archive:
    """Read a gzipped tar file; links and special files in it are ignored.

    Raises:
        MetricError: ``weights_mismatch`` where it is not such a file.
    """
    try:
        with tarfile.open(path, "r:gz") as tar:
            members = [member for member in tar.getmembers() if member.isfile()]
            # Some archives write "./config.json": a PurePosixPath drops the leading dot.
            files = {str(PurePosixPath(member.name)): _content(tar, member) for member in members}
    except tarfile.TarError as error:
        raise MetricError("weights_mismatch", f"{path} is not a gzipped tar archive") from error
    return Archive(path, files)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    return b"" if stream is None else stream.read()
