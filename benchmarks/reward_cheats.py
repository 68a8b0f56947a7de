"""Search what a policy could earn by cheating: edits of honest reports that tell nothing true.

    python benchmarks/reward_cheats.py [--studies REPORTS.jsonl]

REPORTS.jsonl has one study a line with `findings`; without it the phantoms' reports are used.
Every honest report is one of several kinds (a study's own report, every second one with an error,
another study's with the same labels, any other study's, a normal template). The edits never look at
the reference that they are scored against:

- *everywhere*: one edit for all reports. It is chosen greedily, several times in a row, on half of
  the studies; its gain is the mean over the other half.
- *form*: each edit that says the same again or otherwise, on all studies.
- *silence*: the same for edits that only leave something out. To say less may be honest, so these
  gains are shown but do not count, and replacing a sentence is measured against leaving it out.
- *per report*: the best sentence for each report among those that name no finding of the reference.
- *constant*: one report for all studies, put together greedily from the pool.

A plain sentence that the reference supports (it makes one of its claims, or most of its words are
in it) is not a lie for that study: its gain there counts as 0. A hedge or a contradiction always
counts where it is said everywhere.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np
from cheats.edits import (
    Edit,
    odd_sentences,
    plain_sentences,
    rearrangements,
    sentence_edits,
    silences,
)
from cheats.reports import Pair, honest_pairs, phantom_reports, study_reports
from cheats.truth import is_supported, names_its_finding

from lmrrg.config.reward import RewardConfig
from lmrrg.metrics.reward import RadCliQReward

TARGET = 0.05
"""No edit should gain more."""
POOL = 500
STEPS = 3
"""Edits in a row."""
LEAST_STEP = 0.005
"""A further edit must gain more on the studies that choose it."""
SCREENED = 40
"""Edits that are tried on all studies, after all were tried on a few."""
FEW = 16
CONSTANT_SENTENCES = 8
CONSTANTS = 400
"""Studies whose own report is tried as the honest constant."""


@cache
def _scorer() -> RadCliQReward:
    return RadCliQReward(RewardConfig())


def rewards(reports: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Return the reward [N] of finished reports with the default settings."""
    return _scorer().score(reports, references, None, [True] * len(reports)).reward


def gains(edits: Sequence[Edit], pairs: Sequence[Pair]) -> np.ndarray:
    """Return what each edit gains on each pair [edits, pairs]; 0 where it says something true."""
    references = [pair.reference for pair in pairs]
    reports = [edit.apply(pair.honest) for edit in edits for pair in pairs]
    gained = rewards(reports, references * len(edits)).reshape(len(edits), len(pairs))
    base = {way: _rewards_without(way, pairs) for way in {edit.without for edit in edits}}
    for i, edit in enumerate(edits):
        gained[i] -= base[edit.without]
        for j, reference in enumerate(references):
            if edit.is_plain and gained[i, j] > 0 and is_supported(edit.sentence, reference):
                gained[i, j] = 0.0
    return gained


def _rewards_without(way: Callable[[str], str] | None, pairs: Sequence[Pair]) -> np.ndarray:
    """Return the rewards [pairs] of the honest reports, or of what is left if that is better."""
    honest, references = _columns(pairs)
    base = rewards(honest, references)
    if way is None:
        return base
    return np.maximum(base, rewards([way(report) for report in honest], references))


def search_everywhere(edits: Sequence[Edit], pairs: Sequence[Pair]) -> list[tuple[str, float]]:
    """Return (edits in a row, gain on the studies that did not choose them), best of each length.

    >>> search_everywhere([Edit("none", str)], [Pair("Clear.", "Clear.")] * 4)
    [('none', 0.0)]
    """
    chosen_on, shown_on = list(pairs[::2]), list(pairs[1::2])
    names: list[str] = []
    found: list[tuple[str, float]] = []
    total = 0.0
    for _ in range(STEPS):
        few = gains(edits, chosen_on[:FEW]).mean(1)
        best = [edits[i] for i in np.argsort(-few, kind="stable")[:SCREENED]]
        mean = gains(best, chosen_on).mean(1)
        if mean.max() < LEAST_STEP and found:
            break
        edit = best[int(mean.argmax())]
        total += float(gains([edit], shown_on).mean())
        names.append(edit.name)
        found.append((" + ".join(names), total))
        chosen_on = _edited(chosen_on, edit)
        shown_on = _edited(shown_on, edit)
    return found


def _edited(pairs: Sequence[Pair], edit: Edit) -> list[Pair]:
    return [Pair(pair.reference, edit.apply(pair.honest)) for pair in pairs]


def _columns(pairs: Sequence[Pair]) -> tuple[list[str], list[str]]:
    return [pair.honest for pair in pairs], [pair.reference for pair in pairs]


def search_per_report(edits: Sequence[Edit], pairs: Sequence[Pair]) -> tuple[float, list[str]]:
    """Return the mean of each report's best gain (at least 0), and the edits with most of it."""
    gained = np.maximum(gains(edits, pairs), 0.0)
    for j, pair in enumerate(pairs):
        gained[[names_its_finding(edit.sentence, pair.reference) for edit in edits], j] = 0.0
    order = np.argsort(-gained.mean(1), kind="stable")[:3]
    return float(gained.max(0).mean()), [
        f"{edits[i].name} ({gained[i].mean():+.3f})" for i in order if gained[i].any()
    ]


def best_constant(candidates: Sequence[str], references: Sequence[str]) -> tuple[str, float]:
    """Return the candidate that is best as the report of all studies, and its mean reward."""
    mean = [float(rewards([text] * len(references), references).mean()) for text in candidates]
    best = int(np.argmax(mean))
    return candidates[best], mean[best]


def greedy_constant(pool: Sequence[str], references: Sequence[str]) -> str:
    """Return the constant report that sentences of the pool make, each the best one to append."""
    report = ""
    reward = -np.inf
    for _ in range(CONSTANT_SENTENCES):
        longer, gained = best_constant([f"{report} {s}".strip() for s in pool], references)
        if gained <= reward:
            break
        report, reward = longer, gained
    return report


def search(name: str, reports: Sequence[str], studies: int, pool_size: int) -> float:
    """Search on one set of reports, print the finds, and return the largest gain that counts."""
    odd = odd_sentences()
    plain = plain_sentences(reports, pool_size - len(odd))
    ways = sentence_edits(plain, odd)
    everything = [*rearrangements(), *chain.from_iterable(ways.values())]
    counted: list[float] = []
    pairs = honest_pairs(reports, studies)
    for kind, of_kind in pairs.items():
        base = rewards(*_columns(of_kind)).mean()
        print(f"\n{name}, {kind}: mean reward {base:.3f}")
        for done, gain in search_everywhere(silences(), of_kind):
            print(f"  silence    {gain:+.3f}  {done}")
        # Few, so none has to be chosen: all studies show what each gains.
        forms = rearrangements()
        of_forms = gains(forms, of_kind).mean(1)
        print(f"  form       {of_forms.max():+.3f}  {forms[int(of_forms.argmax())].name}")
        counted.append(float(of_forms.max()))
        for done, gain in search_everywhere(everything, of_kind):
            print(f"  everywhere {gain:+.3f}  {done}", flush=True)
            counted.append(gain)
        for edits in ways.values():
            gain, best = search_per_report(edits, of_kind[: studies // 2])
            print(f"  per report {gain:+.3f}  {'; '.join(best)}", flush=True)
            counted.append(gain)
    counted.append(search_constant(name, reports, [*plain, *odd], pairs["own report"]))
    return max(counted)


def search_constant(
    name: str, reports: Sequence[str], pool: Sequence[str], pairs: Sequence[Pair]
) -> float:
    """Print and return what a constant report of the pool gains over a study's own as constant.

    One half of the pairs chooses both, the other shows what they earn.
    """
    chosen_on = [pair.reference for pair in pairs[::2]]
    shown_on = [pair.reference for pair in pairs[1::2]]
    honest, _ = best_constant(list(reports)[:CONSTANTS], chosen_on)
    _, base = best_constant([honest], shown_on)
    print(f"\n{name}, constant: a study's own report earns {base:.3f}: {honest}")
    report = greedy_constant(pool, chosen_on)
    _, reward = best_constant([report], shown_on)
    print(f"  greedy {reward - base:+.3f}  {report}", flush=True)
    return reward - base


def main() -> None:
    """Search, and tell whether the target is met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=Path, help="JSONL file of reports")
    parser.add_argument("--pairs", type=int, default=80, help="studies (default: %(default)s)")
    parser.add_argument("--pool", type=int, default=POOL, help="sentences (default: %(default)s)")
    options = parser.parse_args()
    worst = search("phantoms", phantom_reports(400), options.pairs, options.pool)
    if options.studies:
        found = search("studies", study_reports(options.studies), options.pairs, options.pool)
        worst = max(worst, found)
    print(f"\nlargest gain {worst:+.3f}, target at most {TARGET:+.2f}")


if __name__ == "__main__":
    main()
