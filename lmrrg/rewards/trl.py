"""The RadCliQ reward as a reward function of TRL's GRPO trainer.

    from lmrrg.rewards.trl import reward
    GRPOTrainer(model=..., reward_funcs=reward, train_dataset=...)  # with a column "reference"

TRL calls a reward function with all columns of the data set by name and wants one number for each
completion, or None for one that shall not count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from lmrrg.config.reward import RewardConfig
from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.reward import RadCliQReward

REFERENCE_COLUMNS = ("reference", "ground_truth", "findings", "report")
"""Columns that may hold the radiologist's report; the first one present is taken."""

RewardFunction = Callable[..., list[float | None]]


def make_reward(
    settings: RewardConfig | None = None, reference_column: str | None = None
) -> RewardFunction:
    """Return a reward function with its own settings.

    Args:
        settings: backend, clip and penalties; default: the embedded backend (no download).
        reference_column: column of the radiologist's reports; default: the first of
            :data:`REFERENCE_COLUMNS` that the data set has.
    """
    scorer = RadCliQReward(settings or RewardConfig())

    def radcliq_reward(completions: Sequence[Any], **columns: Any) -> list[float | None]:
        return _score(scorer, completions, columns, reference_column)

    return radcliq_reward


def reward(completions: Sequence[Any], **columns: Any) -> list[float | None]:
    """Return minus RadCliQ (embedded backend) per completion; None where it cannot be scored.

    Args:
        completions: N texts, or N conversations (lists of messages with "role" and "content"),
            of which the last message of the assistant counts.
        columns: the data set's columns by name, N values each; one of :data:`REFERENCE_COLUMNS`
            holds the radiologist's reports. Others, such as ``prompts``, are not read.

    Raises:
        MetricError: ``missing_text``, a completion or reference is no text; ``missing_column``,
            there are no references; ``length_mismatch``, not as many references as completions.

    >>> said = "There is a small left pleural effusion."
    >>> plain, chat = said, [{"role": "assistant", "content": said}]
    >>> [round(value, 4) for value in reward([plain, chat], reference=[said, said])]
    [1.4407, 1.4407]
    """
    return _default_reward()(completions, **columns)


@cache
def _default_reward() -> RewardFunction:
    return make_reward()


def _score(
    scorer: RadCliQReward,
    completions: Sequence[Any],
    columns: Mapping[str, Any],
    reference_column: str | None,
) -> list[float | None]:
    reports = [_text_of(completion, row) for row, completion in enumerate(completions)]
    references = _references(columns, reference_column)
    # TRL does not tell which completions ended by themselves, so none pays for a missing end.
    scores = scorer.score(reports, references, None, [True] * len(reports))
    pairs = zip(scores.reward, scores.valid, strict=True)
    return [float(value) if valid else None for value, valid in pairs]


def _references(columns: Mapping[str, Any], wanted: str | None) -> list[str]:
    names = (wanted,) if wanted else REFERENCE_COLUMNS
    for name in names:
        if name in columns:
            return [_text_of(value, row) for row, value in enumerate(columns[name])]
    raise MetricError(
        "missing_column",
        f"the reward needs the radiologist's reports in a column {' or '.join(names)}; "
        f"the data set has {', '.join(sorted(columns)) or 'no column'}",
    )


def _text_of(value: Any, row: int) -> str:
    """Return the text of a completion, plain or conversational.

    Raises:
        MetricError: ``missing_text``; the message names the row and the type, never the text.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        value = [value]
    if isinstance(value, Sequence):
        for message in reversed(value):
            content = message.get("content") if isinstance(message, Mapping) else None
            if isinstance(content, str) and message.get("role", "assistant") == "assistant":
                return content
    raise MetricError(
        "missing_text",
        f"row {row} holds neither text nor a conversation with a message of the assistant, "
        f"but {type(value).__name__}",
    )
