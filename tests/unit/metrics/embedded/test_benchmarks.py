"""The fit's folds and the search for cheats, on a handful of reports."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture
def benchmark(repo_root: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that imports a module of the folder of benchmarks."""
    monkeypatch.syspath_prepend(str(repo_root / "benchmarks"))

    def load(name: str) -> ModuleType:
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return load


TEMPLATE = "the heart is normal . the lungs are clear ."


def _rows() -> list[dict[str, str]]:
    """Return pairs of 12 studies, each with a template and with the next study's report."""
    reports = [f"small left effusion . nodule {i} in the right lung ." for i in range(12)]
    rows: list[dict[str, str]] = []
    for i, reference in enumerate(reports):
        for hypothesis, score in ((TEMPLATE, "0.0"), (reports[(i + 1) % 12], "0.8")):
            pair = {"study": str(i), "reference": reference, "hypothesis": hypothesis}
            rows.append(pair | {"rg_e": score, "rg_er": score})
    return rows


def test_no_fit_sees_a_study_or_a_text_of_a_held_out_pair(benchmark):
    folds = benchmark("embedded.folds")
    rows = _rows()
    parts = folds.held_out_parts(rows, folds=3)
    assert np.sum(parts, axis=0).tolist() == [1] * len(rows)
    for part in parts:
        seen = [row for row, use in zip(rows, folds.unrelated(rows, part), strict=True) if use]
        held = [row for row, is_held in zip(rows, part, strict=True) if is_held]
        assert {row["study"] for row in seen}.isdisjoint(row["study"] for row in held)
        texts = {row[side] for row in held for side in ("reference", "hypothesis")}
        assert texts.isdisjoint(row[side] for row in seen for side in ("reference", "hypothesis"))


def test_marks_do_not_make_a_text_another_one(benchmark):
    folds = benchmark("embedded.folds")
    assert folds.same_words("T-spine osteophytes.") == folds.same_words("tspine osteophytes .")


def test_features_of_held_out_texts_weigh_nothing(benchmark):
    fit = benchmark("embedded_fit")
    rows = _rows()
    problem = fit.make_problem(rows)
    use = fit.torch.tensor([row["hypothesis"] == TEMPLATE for row in rows])
    without = fit.torch.tensor([row["study"] == "0" for row in rows]) & use
    model = fit.fit(problem, without)
    lacking = ~fit.known_features(problem, without)
    assert lacking.any()
    assert not model.weights[lacking].any()


def test_gains_of_supported_sentences_do_not_count(benchmark):
    cheats = benchmark("reward_cheats")
    assert cheats.is_supported("No effusion.", "There is no pleural effusion.")
    assert not cheats.is_supported("No effusion.", "There is a pleural effusion.")
    appending = benchmark("cheats.edits").appending
    pair = cheats.Pair("No pneumothorax. Lungs are clear.", "Lungs are clear.")
    honest = appending("No pneumothorax.", True)
    assert cheats.gains([honest], [pair])[0, 0] == 0.0
    wrong = appending("There is a mass.", True)
    assert cheats.gains([wrong], [pair])[0, 0] < 0.0


def test_a_replacement_is_measured_against_silence(benchmark):
    cheats = benchmark("reward_cheats")
    pair = cheats.Pair("Lungs are clear.", "Lungs are clear. Large mass.")
    edit = benchmark("cheats.edits").replacing_last("Small nodule.", True)
    assert edit.apply(pair.honest) == "Lungs are clear. Small nodule."
    assert cheats.gains([edit], [pair])[0, 0] < 0.0


def test_variants_repeat_a_sentence_with_other_words(benchmark):
    edits = benchmark("cheats.edits")
    report = edits.with_variants("Left effusion. Clear lungs.", edits.SIDE, ["left", "right"])
    assert report == "Left effusion. right effusion. Clear lungs."


def test_the_docs_have_the_costs_of_errors_as_they_are(benchmark, repo_root: Path):
    costs = benchmark("error_costs").error_costs()
    docs = (repo_root / "docs" / "metrics_embedded.md").read_text(encoding="utf-8")
    written = dict(re.findall(r"^\| (.+?) \| \*\*(-?[\d.]+)\*\* \|", docs, re.MULTILINE))
    for kind, cost in costs.items():
        assert float(written[kind]) == pytest.approx(cost.mean, abs=0.1), kind


def test_errors_cost_in_the_order_of_their_weight(benchmark):
    cost = {kind: cost.mean for kind, cost in benchmark("error_costs").error_costs().items()}
    ordered = [
        "free wording, for comparison",
        "distance or size a little off (6 for 7 mm)",
        "wrong severity, one step",
        "wrong severity, more",
        "wrong side",
        "finding missed",
    ]
    costs = [cost[kind] for kind in ordered]
    assert costs == sorted(costs)
    assert cost["comparison invented"] > cost["comparison omitted"]
    assert min(cost["tension missed"], cost["size ten times as large"]) > 0.8
