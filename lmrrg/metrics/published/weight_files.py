"""Which published files the published backend needs, and where they are: a local folder or the Hugging Face cache.

Nothing is downloaded here. A folder holds one subfolder per repository, named like its last part, as
``hf download REPOSITORY FILES --local-dir FOLDER/NAME`` makes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lmrrg.metrics.errors import MetricError


@dataclass(frozen=True)
class Source:
    """Files of one repository; ``aliases`` are names under which the same repository was known before."""

    repository: str
    files: tuple[str, ...]
    aliases: tuple[str, ...] = ()

    def command(self, folder: Path | None) -> str:
        """How to fetch the files to where they are looked for: a folder, or the Hugging Face cache."""
        where = (
            "" if folder is None else f" --local-dir {folder / self.repository.rpartition('/')[2]}"
        )
        return f"hf download {self.repository} {' '.join(self.files)}{where}"


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
"""What each part needs."""


def find(part: str, folder: Path | None) -> dict[str, Path]:
    """Paths of a part's files, by name.

    Raises:
        MetricError: ``weights_missing``; the message says how to fetch them.
    """
    source = SOURCES[part]
    found = {
        name: path for name in source.files if (path := _locate(source, name, folder)) is not None
    }
    absent = [name for name in source.files if name not in found]
    if absent:
        where = f"in {folder} or " if folder is not None else "in "
        raise MetricError(
            "weights_missing",
            f"{part} lacks {', '.join(absent)} {where}the Hugging Face cache; fetch it with `{source.command(folder)}`",
        )
    return found


def missing_files(folder: Path | None) -> dict[str, list[str]]:
    """For each part of the backend the commands that fetch what is absent; an empty list where all is there."""
    return {
        part: [source.command(folder)]
        if any(_locate(source, name, folder) is None for name in source.files)
        else []
        for part, source in SOURCES.items()
    }


def _locate(source: Source, name: str, folder: Path | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for repository in (source.repository, *source.aliases):
        if folder is not None:
            path = folder / repository.rpartition("/")[2] / name
            if path.is_file():
                return path
        cached = try_to_load_from_cache(repository, name)
        if isinstance(cached, str):
            return Path(cached)
    return None
