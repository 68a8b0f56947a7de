"""The ``published`` backend: RadCliQ's parts by the published models.

Only its scores may be called RadCliQ.
"""

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
from lmrrg.metrics.published.weight_files import find_all
from lmrrg.metrics.text.bleu import bleu2

# Raise it when a change of this code can change a score: it is part of every cache key.
_CODE_VERSION = "1"
# Padded tokens per batch on a CPU: more would no longer fit its cache. A GPU takes 64 times as
# many.
_TOKEN_BUDGET = 1024
_LEARNED_PARTS = ("rg_e", "rg_er", "rg_bar_er", "radgraph", "bertscore", "semb")


class PublishedBackend:
    """RadGraph, CheXbert and BERTScore, loaded once.

    Texts that occur more than once in a call are analysed once; references are also looked up in
    (and added to) a cache on disk. Results do not depend on the batch: batches hold reports of
    similar length and padding is masked.
    """

    name = "radcliq"

    def __init__(
        self, folder: Path | None, *, cache: Path | None = None, token_budget: int | None = None
    ):
        """Load every model from ``folder`` or the Hugging Face cache.

        The analyses of references are kept in the folder ``cache``; None keeps them in memory only.

        Raises:
            MetricError: ``weights_missing`` (the message has the command that fetches them),
                ``weights_mismatch``, ``unsupported_model``.
        """
        files = find_all(folder)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        budget = token_budget or _TOKEN_BUDGET * (64 if device.type == "cuda" else 1)
        paths = [path for part in files.values() for path in part.values()]
        self.version = f"{_CODE_VERSION}-{_fingerprint(paths)}"
        self._bertscore = BertScore(files["BERTScore"], device, budget=budget)
        chexbert = files["CheXbert"]["chexbert.pth"]
        self._chexbert = CheXbert(chexbert, files["CheXbert encoder"], device, budget=budget)
        radgraph = files["RadGraph"]["radgraph.tar.gz"]
        self._radgraph = RadGraph(radgraph, files["RadGraph encoder"], device, budget=budget)
        self._references = AnalysisCache(cache, self.version)

    def score(self, hypotheses: Sequence[str], references: Sequence[str]) -> Parts:
        """Return the parts of N pairs, each float64 [N]."""
        analyses: dict[str, Analysis] = {}
        for text in set(references):
            analysis = self._references.get(text)
            if analysis is not None:
                analyses[text] = analysis
        # A dictionary keeps the order of the texts, so that the batches do not depend on hashes.
        distinct = dict.fromkeys([*references, *hypotheses])
        unknown = [text for text in distinct if text not in analyses]
        fresh = dict(zip(unknown, self._analyse(unknown), strict=True))
        # Only references are kept: a sampled report hardly ever occurs again.
        for text in set(references) & fresh.keys():
            self._references.put(text, fresh[text])
        analyses |= fresh
        rows = [
            _pair_scores(analyses[hypothesis], analyses[reference])
            for hypothesis, reference in zip(hypotheses, references, strict=True)
        ]
        columns = np.array(rows, dtype=np.float64).reshape(-1, len(_LEARNED_PARTS)).T
        learned = dict(zip(_LEARNED_PARTS, columns, strict=True))
        return Parts(**learned, bleu2=bleu2(hypotheses, references))

    @property
    def labeler(self) -> CheXbert:
        """Return the labeler behind the field's clinical F1."""
        return self._chexbert

    def _analyse(self, reports: Sequence[str]) -> list[Analysis]:
        """Run the three models over some reports."""
        tokens = self._bertscore.embed(reports)
        embeddings = self._chexbert.embed(reports)
        annotations = self._radgraph.annotate(reports)
        return [Analysis(*parts) for parts in zip(tokens, embeddings, annotations, strict=True)]


def _pair_scores(hypothesis: Analysis, reference: Analysis) -> tuple[float, ...]:
    """Return the learned parts of one pair, in the order of ``_LEARNED_PARTS``."""
    levels = radgraph_f1(hypothesis.annotation, reference.annotation)
    bertscore = bertscore_f1(hypothesis.tokens, reference.tokens)
    cosine = torch.nn.functional.cosine_similarity(hypothesis.embedding, reference.embedding, dim=0)
    return *levels, bertscore, float(cosine)


def _fingerprint(paths: Iterable[Path]) -> str:
    """Return a short hash of the files' content.

    Different weights therefore never have the same version or share a cache entry.
    """
    digest = hashlib.sha256()
    for path in sorted(paths):
        with path.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:16]
