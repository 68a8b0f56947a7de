"""The ``published`` backend: RadCliQ's parts by the published models. Its scores may be called RadCliQ."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from lmrrg.metrics.parts import Parts
from lmrrg.metrics.published.bertscore import BertScore, bertscore_f1
from lmrrg.metrics.published.cache import Analysis, AnalysisCache
from lmrrg.metrics.published.chexbert import CheXbert
from lmrrg.metrics.published.radgraph import RadGraph, radgraph_f1
from lmrrg.metrics.published.weight_files import find, missing_files
from lmrrg.metrics.text.bleu import bleu2

_CODE_VERSION = "1"  # raise it when a change of this code can change a score
_TOKEN_BUDGET = 1024  # padded tokens per batch on CPU, where more no longer fits the cache; a GPU takes 64 times as many


class PublishedBackend:
    """RadGraph, CheXbert and BERTScore, loaded once.

    Texts that occur more than once in a call are analysed once; references are also looked up in (and added to) a cache
    on disk. Results do not depend on the batch: batches hold reports of similar length and padding is masked.
    """

    name = "radcliq"

    def __init__(
        self, folder: Path | None, *, cache: Path | None = None, token_budget: int | None = None
    ):
        """Load every model from ``folder`` or the Hugging Face cache; ``cache`` keeps the reference side on disk.

        Raises:
            MetricError: ``weights_missing`` (the message says how to fetch them), ``weights_mismatch``,
                ``unsupported_model``.
        """
        files = {part: find(part, folder) for part in missing_files(folder)}
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        budget = token_budget or _TOKEN_BUDGET * (64 if device.type == "cuda" else 1)
        self.version = f"{_CODE_VERSION}-{_fingerprint(path for part in files.values() for path in part.values())}"
        self._bertscore = BertScore(files["BERTScore"], device, budget=budget)
        chexbert = files["CheXbert"]["chexbert.pth"]
        self._chexbert = CheXbert(chexbert, files["CheXbert encoder"], device, budget=budget)
        radgraph = files["RadGraph"]["radgraph.tar.gz"]
        self._radgraph = RadGraph(radgraph, files["RadGraph encoder"], device, budget=budget)
        self._references = AnalysisCache(cache, self.version)

    def score(self, hypotheses: Sequence[str], references: Sequence[str]) -> Parts:
        """Parts of N pairs, each float64 [N]."""
        known = {
            text: analysis
            for text in set(references)
            if (analysis := self._references.get(text)) is not None
        }
        unknown = [text for text in dict.fromkeys([*references, *hypotheses]) if text not in known]
        fresh = dict(zip(unknown, self._analyse(unknown), strict=True))
        for text in set(references) & fresh.keys():
            self._references.put(text, fresh[text])
        analyses = known | fresh
        rows = [
            _pair(analyses[h], analyses[r]) for h, r in zip(hypotheses, references, strict=True)
        ]
        rg_e, rg_er, rg_bar_er, radgraph, bertscore, semb = (
            np.array(rows, dtype=np.float64).reshape(-1, 6).T
        )
        return Parts(
            rg_e, rg_er, rg_bar_er, radgraph, bertscore, semb, bleu2(hypotheses, references)
        )

    @property
    def labeler(self) -> CheXbert:
        """The labeler behind the field's clinical F1."""
        return self._chexbert

    def _analyse(self, reports: Sequence[str]) -> list[Analysis]:
        tokens = self._bertscore.embed(reports)
        embeddings = self._chexbert.embed(reports)
        annotations = self._radgraph.annotate(reports)
        return [Analysis(*parts) for parts in zip(tokens, embeddings, annotations, strict=True)]


def _pair(hypothesis: Analysis, reference: Analysis) -> tuple[float, ...]:
    levels = radgraph_f1(hypothesis.annotation, reference.annotation)
    bertscore = bertscore_f1(hypothesis.tokens, reference.tokens)
    cosine = torch.nn.functional.cosine_similarity(hypothesis.embedding, reference.embedding, dim=0)
    return *levels, bertscore, float(cosine)


def _fingerprint(paths: Iterable[Path]) -> str:
    """A short hash of the files' content, so that other weights never share a version or a cache entry."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        with path.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:16]
