"""Find the files of the published backend in a local folder or in the Hugging Face cache.

Nothing is downloaded here. A folder holds one subfolder per repository, named like the last part of
the repository's name, as ``hf download REPOSITORY FILES --local-dir FOLDER/NAME`` makes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lmrrg.metrics.errors import MetricError


@dataclass(frozen=True)
class Source:
    """Files of one repository; ``aliases`` are former names of the same repository."""

    repository: str
    files: tuple[str, ...]
    aliases: tuple[str, ...] = ()

    def command(self, folder: Path | None) -> str:
        """Return the command that fetches the files into ``folder`` or the Hugging Face cache.

        >>> SOURCES["CheXbert"].command(Path("weights"))
        'hf download StanfordAIMI/RRG_scorers chexbert.pth --local-dir weights/RRG_scorers'
        """
        command = f"hf download {self.repository} {' '.join(self.files)}"
        if folder is None:
            return command
        return f"{command} --local-dir {_subfolder(folder, self.repository)}"


SOURCES: dict[str, Source] = {
    "RadGraph": Source("StanfordAIMI/RRG_scorers", ("radgraph.tar.gz",)),
    "RadGraph encoder": Source(
        "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
        ("config.json", "vocab.txt"),
        ("microsoft/BiomedNLP-PubMedBERT-base-uncased-abstract",),
    ),
    "CheXbert": Source("StanfordAIMI/RRG_scorers", ("chexbert.pth",)),
    "CheXbert encoder": Source(
        "google-bert/bert-base-uncased", ("config.json", "vocab.txt"), ("bert-base-uncased",)
    ),
    "BERTScore": Source(
        "distilbert/distilroberta-base",
        ("config.json", "model.safetensors", "vocab.json", "merges.txt"),
        ("distilroberta-base",),
    ),
}
"""The files of each part of the backend."""


def find(part: str, folder: Path | None) -> dict[str, Path]:
    """Return the paths of a part's files, by name.

    Raises:
        MetricError: ``weights_missing``; the message says how to fetch them.
    """
    source = SOURCES[part]
    located = {name: _locate(source, name, folder) for name in source.files}
    found = {name: path for name, path in located.items() if path is not None}
    absent = [name for name in source.files if name not in found]
    if absent:
        where = f"in {folder} or " if folder is not None else "in "
        raise MetricError(
            "weights_missing",
            f"{part} lacks {', '.join(absent)} {where}the Hugging Face cache; "
            f"fetch it with `{source.command(folder)}`",
        )
    return found


def find_all(folder: Path | None) -> dict[str, dict[str, Path]]:
    """Return the paths of the files of every part, by part and name.

    Raises:
        MetricError: ``weights_missing``; the message says how to fetch them.
    """
    return {part: find(part, folder) for part in SOURCES}


def missing_files(folder: Path | None) -> dict[str, list[str]]:
    """Return for each part of the backend the commands that fetch its missing files.

    The list is empty where no file is missing.
    """
    commands: dict[str, list[str]] = {}
    for part, source in SOURCES.items():
        is_missing = any(_locate(source, name, folder) is None for name in source.files)
        commands[part] = [source.command(folder)] if is_missing else []
    return commands


def _subfolder(folder: Path, repository: str) -> Path:
    """Return the folder of one repository inside ``folder``."""
    return folder / repository.rpartition("/")[2]


def _locate(source: Source, name: str, folder: Path | None) -> Path | None:
    """Return the path of one file, None where it is missing; a folder comes before the cache."""
    # Imported here because it is slow to import, and the table above does not need it.
    from huggingface_hub import try_to_load_from_cache

    for repository in (source.repository, *source.aliases):
        if folder is not None:
            path = _subfolder(folder, repository) / name
            if path.is_file():
                return path
        cached = try_to_load_from_cache(repository, name)
        if isinstance(cached, str):
            return Path(cached)
    return None
