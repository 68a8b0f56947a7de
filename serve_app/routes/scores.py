"""``POST /v1/score``: compare a report with its reference."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from fastapi import APIRouter
from pydantic import ConfigDict, Field

from lmrrg import RESEARCH_USE_ONLY
from lmrrg.metrics.backends import score_parts
from lmrrg.metrics.embedded.backend import EmbeddedBackend
from lmrrg.metrics.embedded.explanation import Verdict, explain
from lmrrg.metrics.embedded.reading.language import is_readable
from lmrrg.metrics.parts import is_empty
from lmrrg.metrics.radcliq import radcliq_v1
from serve_app.errors import ServiceError
from serve_app.schemas import Schema
from serve_app.service import errors

_LONGEST = 10_000


class ScoreRequest(Schema):
    """A candidate report and the reference, what a radiologist wrote about the same study."""

    model_config = ConfigDict(extra="forbid")

    candidate: str = Field(max_length=_LONGEST, description="the report to judge")
    reference: str = Field(max_length=_LONGEST, description="the report to judge it by")


class ScoreParts(Schema):
    """What RadCliQ is made of."""

    radgraph: float = Field(description="agreement of entities and relations, 0 to 1")
    bertscore: float = Field(description="likeness of the words; a substitute on BERTScore's scale")
    semb: float = Field(description="cosine of the label vectors")
    bleu2: float = Field(description="BLEU-2; no part of RadCliQ-v1")


class ScoredClaim(Schema):
    """One finding that the candidate or the reference asserts."""

    finding: str
    verdict: Verdict = Field(
        description="matched; different: another side, place, severity, course or certainty; "
        "missed: the reference alone asserts it; invented: the candidate alone"
    )
    candidate: str = Field(description="the claim in words; empty where it is not asserted")
    reference: str = Field(description="the claim in words; empty where it is not asserted")


class ScoredSentence(Schema):
    """One sentence, in lower case, with the worst verdict on its claims."""

    text: str
    verdict: Verdict


class ScoreResponse(Schema):
    """How a candidate compares with its reference."""

    radcliq_v1: float = Field(description="lower is better")
    parts: ScoreParts
    claims: list[ScoredClaim]
    candidate: list[ScoredSentence]
    reference: list[ScoredSentence]
    backend: str
    backend_version: str
    notice: str = RESEARCH_USE_ONLY


def scores() -> APIRouter:
    """Return the route that scores reports."""
    router = APIRouter()
    # One thread: the backend's memories of read sentences are not made for several.
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scores")

    @router.post("/v1/score", responses=errors(413, 415, 422, 500))
    async def score(request: ScoreRequest) -> ScoreResponse:
        """Compare a report with its reference, by the rules of the embedded backend."""
        return await asyncio.get_running_loop().run_in_executor(
            thread, score_pair, request.candidate, request.reference
        )

    return router


def score_pair(candidate: str, reference: str) -> ScoreResponse:
    """Score and explain one pair of reports.

    Raises:
        ServiceError: ``unscorable``, the reference is empty or is no report in English.
    """
    if is_empty(reference) or not is_readable(reference):
        raise ServiceError("unscorable", "the reference is empty, or no chest report in English")
    backend = EmbeddedBackend()
    parts = score_parts(backend, [candidate], [reference])
    values = {name: float(getattr(parts, name)[0]) for name in ScoreParts.model_fields}
    found = explain(candidate, reference)
    return ScoreResponse(
        radcliq_v1=float(radcliq_v1(values["radgraph"], values["bertscore"], values["semb"])),
        parts=ScoreParts(**values),
        claims=[
            ScoredClaim(
                finding=claim.finding,
                verdict=claim.verdict,
                candidate=claim.report,
                reference=claim.reference,
            )
            for claim in found.claims
        ],
        candidate=[ScoredSentence(text=each.text, verdict=each.verdict) for each in found.report],
        reference=[
            ScoredSentence(text=each.text, verdict=each.verdict) for each in found.reference
        ],
        backend=backend.name,
        backend_version=backend.version,
    )
