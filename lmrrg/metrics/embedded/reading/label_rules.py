"""Read the rules of the labels, ``lexicons/labels.yaml``, once per process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from lmrrg.metrics.embedded.lexicon import Phrases, phrase_table, read_yaml


@dataclass(frozen=True)
class Topic:
    """An organ that is judged by the words near it."""

    label: str
    """Class that is positive where the organ is abnormal."""
    borderline_at_limit: bool
    """Whether "upper limits of normal" counts as abnormal."""
    blocked_by: frozenset[str]
    """Words that show that the organ's name means something else ("cardiac monitor")."""
    abnormal: frozenset[str]
    """Words that call the organ abnormal."""


@dataclass(frozen=True)
class Elsewhere:
    """Words beside a mention that show that it means something else."""

    words: frozenset[str]
    unless: frozenset[str]
    """Words that show that it does mean its class."""


@dataclass(frozen=True)
class LabelRules:
    """The content of ``labels.yaml``, which explains each part."""

    mentions: Phrases
    hints: frozenset[tuple[str, ...]]
    opacities: frozenset[str]
    shapes: frozenset[str]
    explains_interstitial: frozenset[str]
    probable: frozenset[str]
    within_limit: frozenset[str]
    topics: dict[str, Topic]
    """Word that names an organ -> the organ."""
    elsewhere: dict[str, Elsewhere]
    """Class -> words beside which its mention is none of it."""
    outline: frozenset[str]
    states: frozenset[str]
    denied: frozenset[str]
    normal: frozenset[str]
    stable: frozenset[str]
    abnormal: frozenset[str]


@cache
def label_rules() -> LabelRules:
    """Return the rules of the labels."""
    data = read_yaml("labels.yaml")
    return LabelRules(
        mentions=phrase_table(_phrases(data)),
        hints=frozenset(tuple(phrase.split()) for phrase in data["hints"]),
        opacities=frozenset(data["focal"]["opacities"]),
        shapes=frozenset(data["focal"]["shapes"]),
        explains_interstitial=frozenset(data["explains_interstitial"]),
        probable=frozenset(data["probable"]),
        within_limit=frozenset(data["within_limit"]),
        topics=_topics(data["topics"]),
        elsewhere={
            label: Elsewhere(frozenset(rule["words"].split()), frozenset(rule["unless"].split()))
            for label, rule in data["elsewhere"].items()
        },
        outline=frozenset(data["outline"].split()),
        states=frozenset(data["states"]),
        denied=frozenset(data["denied"]),
        normal=frozenset(data["normal"]),
        stable=frozenset(data["stable"]),
        abnormal=frozenset(data["abnormal"].split()),
    )


def _phrases(data: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (phrase, class) of every mention, and (phrase, "") of what only looks like one."""
    phrases: list[tuple[str, str]] = []
    for label, mentions in data["mentions"].items():
        phrases += [(phrase, label) for phrase in mentions]
    return phrases + [(phrase, "") for phrase in data["nothing"]]


def _topics(data: dict[str, Any]) -> dict[str, Topic]:
    topics: dict[str, Topic] = {}
    for label, topic in data.items():
        rule = Topic(
            label,
            topic["borderline_at_limit"],
            frozenset(topic["blocked_by"]),
            frozenset(topic["abnormal"]),
        )
        topics |= dict.fromkeys(topic["words"], rule)
    return topics
