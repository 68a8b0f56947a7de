"""Ask an OpenAI-compatible endpoint for judgements, many at a time, and remember its answers."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np

from lmrrg.config.reward import JudgeConfig
from lmrrg.files import atomic_writer
from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.judge.answer import (
    QUESTION_VERSION,
    Answer,
    answer_schema,
    parse_answer,
    question,
)
from lmrrg.metrics.parts import Array, is_empty

logger = logging.getLogger(__name__)

_ATTEMPTS = 2
"""Requests for one judgement, where the endpoint does not answer or has no time."""
_WORTH_ANOTHER_TRY = frozenset([408, 429, 500, 502, 503, 504])
_BAD_REQUEST = 400

Pair = tuple[str, str]
"""(report, reference)"""


class _NoAnswerError(Exception):
    """A request without a usable answer; the message is a word for the count of reasons."""


class Judge:
    """Scores reports by what a language model says of them.

    What cannot be had, because of a time-out, an error or an answer that is no valid one, is
    missing: it is counted and never replaced by a number.
    """

    def __init__(self, settings: JudgeConfig):
        """Prepare the connection; the endpoint is first asked by :meth:`score`.

        Raises:
            MetricError: ``judge_key_missing``, the environment variable of the key is not set.
        """
        self._settings = settings
        headers = {}
        if settings.api_key_env:
            key = os.environ.get(settings.api_key_env)
            if not key:
                raise MetricError(
                    "judge_key_missing",
                    f"reward.judge.api_key_env names {settings.api_key_env}, which is not set "
                    "where the reward is computed: export it before Ray starts",
                )
            headers["Authorization"] = f"Bearer {key}"
        self._client = httpx.Client(
            base_url=f"{settings.url}".rstrip("/") + "/",
            headers=headers,
            timeout=settings.timeout_s,
        )
        self._enforces_schema = True
        """Whether the endpoint is asked to keep to the schema; not all of them can."""

    def score(self, reports: Sequence[str], references: Sequence[str]) -> Array:
        """Return the score of N reports, 0 to 1; NaN where there is none.

        Identical pairs are asked for once. An empty report agrees on nothing: 0 without a question.
        """
        pairs = list(zip(reports, references, strict=True))
        known = {pair: self._without_question(pair) for pair in dict.fromkeys(pairs)}
        unknown = [pair for pair, score in known.items() if score is None]
        with ThreadPoolExecutor(self._settings.batch) as threads:
            outcomes = list(threads.map(self._ask, unknown))
        scores = dict(zip(unknown, outcomes, strict=True))
        missing = Counter([outcome for outcome in outcomes if isinstance(outcome, str)])
        if missing:
            reasons = ", ".join(f"{count} {reason}" for reason, count in missing.items())
            logger.warning(
                "the judge left %d reports without a score: %s", missing.total(), reasons
            )
        return np.array(
            [_number(known[pair], scores.get(pair)) for pair in pairs], dtype=np.float64
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _without_question(self, pair: Pair) -> float | None:
        """Return the score of a pair that needs no question; None where it needs one."""
        report, reference = pair
        if is_empty(reference):
            return float("nan")
        if is_empty(report):
            return 0.0
        kept = self._read(pair)
        return None if kept is None else kept.score

    def _ask(self, pair: Pair) -> float | str:
        """Return the score of one pair, or the reason why there is none."""
        try:
            answer = parse_answer(self._content(pair))
        except _NoAnswerError as error:
            return str(error)
        if answer is None:
            return "unparsable"
        self._keep(pair, answer)
        return answer.score

    def _content(self, pair: Pair) -> str:
        """Return the text that the endpoint answers."""
        reason = ""
        for _ in range(_ATTEMPTS):
            try:
                reply = self._post(pair)
            except httpx.TimeoutException:
                # Not asked again: the caller has waited long enough.
                raise _NoAnswerError("timed out") from None
            except httpx.HTTPError:
                reason = "unreachable"
                continue
            if reply.status_code not in _WORTH_ANOTHER_TRY:
                return _content_of(reply)
            reason = f"refused ({reply.status_code})"
        raise _NoAnswerError(reason)

    def _post(self, pair: Pair) -> httpx.Response:
        reply = self._client.post("chat/completions", json=self._request(pair))
        if reply.status_code == _BAD_REQUEST and self._enforces_schema:
            self._enforces_schema = False
            reply = self._client.post("chat/completions", json=self._request(pair))
        return reply

    def _request(self, pair: Pair) -> dict[str, object]:
        request: dict[str, object] = {
            "model": self._settings.model,
            "messages": question(*pair),
            "temperature": 0.0,
            "max_tokens": self._settings.max_tokens,
        }
        if self._enforces_schema:
            schema = {"name": "judgement", "schema": answer_schema()}
            request["response_format"] = {"type": "json_schema", "json_schema": schema}
        return request

    def _path(self, pair: Pair) -> Path | None:
        """Return the file of the answer on a pair, named by all that the answer depends on."""
        if self._settings.cache is None:
            return None
        asked = [QUESTION_VERSION, self._settings.model, self._settings.max_tokens, *pair]
        key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
        return self._settings.cache / key[:2] / f"{key}.json"

    def _read(self, pair: Pair) -> Answer | None:
        path = self._path(pair)
        if path is None or not path.is_file():
            return None
        # A damaged file is asked for again, and written anew.
        return parse_answer(path.read_text(encoding="utf-8"))

    def _keep(self, pair: Pair, answer: Answer) -> None:
        path = self._path(pair)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_writer(path) as out:
                out.write(answer.model_dump_json())


def _content_of(reply: httpx.Response) -> str:
    if not reply.is_success:
        raise _NoAnswerError(f"refused ({reply.status_code})")
    try:
        content = reply.json()["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        raise _NoAnswerError("unparsable") from None
    return content if isinstance(content, str) else ""


def _number(known: float | None, asked: float | str | None) -> float:
    """Return a score as a number; NaN for a reason in its place."""
    score = asked if known is None else known
    return score if isinstance(score, float) else float("nan")
