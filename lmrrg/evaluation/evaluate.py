"""The evaluation of a run or of one checkpoint: generate, score, compare, write.

Checkpoints are loaded one after the other and closed, so that two language models are never in memory together.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from lmrrg import RESEARCH_USE_ONLY
from lmrrg.config.tree import Config
from lmrrg.data.priors import prior_reports
from lmrrg.evaluation.examples import EXAMPLE_RULE, choose_examples
from lmrrg.evaluation.results import (
    ScoredSystem,
    compare_records,
    guard_records,
    results_table,
    score_system,
    system_record,
    write_reports,
)
from lmrrg.evaluation.rows import ScoreNames
from lmrrg.evaluation.systems import (
    EvaluationError,
    EvaluationSet,
    LoadEngine,
    SystemReports,
    baseline_systems,
    checkpoint_record,
    evaluation_set,
    load_engine,
    model_system,
)
from lmrrg.files import atomic_writer, check_outputs
from lmrrg.manifest import manifest_hash, read_studies
from lmrrg.metrics.backends import make_backend
from lmrrg.metrics.interfaces import Backend
from lmrrg.metrics.text.conventions import Convention, Raw, make_convention, r2gen_dataset
from lmrrg.metrics.text.meteor.score import prepare_meteor
from lmrrg.progress import progress_bar
from lmrrg.run.layout import RunLayout
from lmrrg.run.record import git_state, record_run
from lmrrg.run.studies import studies_of
from lmrrg.studies import Study

SCHEMA = "lmrrg-evaluation/1"
TRAINED = {"sft": "SFT", "ppo": "PPO"}
"""Trained systems of a run: the folder of their stage, and their title."""


@dataclass(frozen=True)
class Scale:
    """How one evaluation measures: the text conventions, the metric backend, and the manifest it read."""

    conventions: Mapping[str, Convention]
    backend: Backend
    manifest: Path


def evaluate_run(config: Config, load: LoadEngine = load_engine) -> Path:
    """Compare SFT, PPO and the three baselines on the run's evaluation split.

    Writes ``run_dir/evaluation/``: ``results.json``, ``results.md`` (also printed), ``<system>.jsonl`` with the
    reports, and ``regions.safetensors`` with the region attention of the example studies. Returns the path of
    ``results.json``.

    Raises:
        EvaluationError: ``checkpoint_missing``, ``no_studies``, ``no_training`` or ``one_patient``.
        StudyError: the run has no readable manifest.
    """
    layout = RunLayout(config.run_dir)
    manifest = layout.studies
    checkpoints = {name: layout.best(name) for name in TRAINED}
    for checkpoint in checkpoints.values():
        checkpoint_record(checkpoint)  # a missing one is told before any work
    training, evaluated = studies_of(config, "train"), studies_of(config, config.data.eval_split)
    scale = _scale(training, evaluated, manifest, config)
    priors = prior_reports(read_studies(manifest), config.data.section)
    data = evaluation_set(evaluated, config, scale.backend.labeler, priors)
    record_run(config, manifest)
    examples = choose_examples(data.studies, config.evaluation.examples, config.seed)
    systems = [
        model_system(name, TRAINED[name], checkpoint, data, examples, config, load)
        for name, checkpoint in checkpoints.items()
    ]
    scored = _score([*systems, *baseline_systems(data, training, config)], data, scale, config)
    by_name = {one.system.name: one for one in scored}
    comparison = compare_records(by_name["ppo"], by_name["sft"], config)
    results = {
        "schema": SCHEMA,
        "notice": RESEARCH_USE_ONLY,
        "stamp": _stamp(data, scored[0], scale, config),
        "systems": [system_record(one, config) for one in scored],
        "comparison": comparison,
        "guards": guard_records(by_name["sft"], by_name["ppo"], comparison, config),
        "examples": {
            "ids": [data.studies[row].id for row in examples],
            "rule": EXAMPLE_RULE,
            "attention": "ppo",
        },
    }
    layout.evaluation.mkdir(parents=True, exist_ok=True)
    _write_attention(layout.region_attention, by_name["ppo"].system)
    for one in scored:
        write_reports(layout.reports(one.system.name), one, data)
    return _write_results(layout.results, results)


def evaluate_checkpoint(
    checkpoint: Path, manifest: Path, config: Config, out: Path, load: LoadEngine = load_engine
) -> dict[str, Any]:
    """Generate and score with one checkpoint on ``config.data.eval_split`` of a manifest.

    Writes ``out`` (results), the same name with ``.md``, and with ``.reports.jsonl`` the reports. Returns the results.

    Raises:
        CodedError: ``bad_output``, before any work.
        EvaluationError: ``checkpoint_missing``, ``no_studies`` or ``one_patient``.
        StudyError: the manifest cannot be read.
    """
    reports = out.with_suffix(".reports.jsonl")
    check_outputs([out, out.with_suffix(".md"), reports], [manifest])
    studies = read_studies(manifest)
    chosen = [study for study in studies if study.split == config.data.eval_split][
        : config.data.eval_limit
    ]
    scale = _scale([study for study in studies if study.split == "train"], chosen, manifest, config)
    priors = prior_reports(studies, config.data.section)
    data = evaluation_set(chosen, config, scale.backend.labeler, priors)
    system = model_system("checkpoint", checkpoint.name, checkpoint, data, [], config, load)
    (scored,) = _score([system], data, scale, config)
    results = {
        "schema": SCHEMA,
        "notice": RESEARCH_USE_ONLY,
        "stamp": _stamp(data, scored, scale, config),
        "systems": [system_record(scored, config)],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_reports(reports, scored, data)
    _write_results(out, results)
    return results


def read_results(path: Path) -> dict[str, Any]:
    """Read a results file.

    Raises:
        EvaluationError: ``no_results`` (no such file) or ``bad_results`` (not one of ours).
    """
    if not path.is_file():
        raise EvaluationError("no_results", f"{path} does not exist; run `lmrrg evaluate` first")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise EvaluationError("bad_results", f"{path} is not JSON: {error}") from error
    if not isinstance(results, dict) or results.get("schema") != SCHEMA:
        raise EvaluationError("bad_results", f"{path} is no results file of schema {SCHEMA}")
    return results


def _score(
    systems: Sequence[SystemReports], data: EvaluationSet, scale: Scale, config: Config
) -> list[ScoredSystem]:
    if config.evaluation.meteor:
        for_all = scale.conventions.values()
        hypotheses = [
            convention.hypothesis(text)
            for convention in for_all
            for one in systems
            for text in one.reports
        ]
        prepare_meteor(
            [*hypotheses, *(c.reference(text) for c in for_all for text in data.references)]
        )
    bar = progress_bar(systems, desc="scoring", unit="system")
    return [score_system(system, data, scale.conventions, scale.backend, config) for system in bar]


def _scale(
    training: Sequence[Study], evaluated: Sequence[Study], manifest: Path, config: Config
) -> Scale:
    """Raw text always; R2Gen's convention where asked: the evaluated studies' data set, the training reports' words."""
    conventions: dict[str, Convention] = {"raw": Raw()}
    if config.evaluation.convention == "r2gen":
        reports = [study.report(config.data.section) for study in training]
        dataset = r2gen_dataset(study.source for study in evaluated)
        conventions["r2gen"] = make_convention(config.evaluation, reports, dataset)
    return Scale(conventions, make_backend(config.reward), manifest)


def _stamp(
    data: EvaluationSet, scored: ScoredSystem, scale: Scale, config: Config
) -> dict[str, Any]:
    backend = scale.backend
    return {
        "run": config.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "studies": len(data.studies),
        "abnormal_studies": sum(data.abnormal),
        "split": config.data.eval_split,
        "section": config.data.section,
        "labels_from": data.labels_from,
        "uncertain_policy": config.evaluation.uncertain_policy,
        "conventions": list(scale.conventions),
        "scoring": {name: asdict(scores.stamp) for name, scores in scored.scores.items()},
        "backend": {"name": backend.name, "version": backend.version},
        "metric_title": ScoreNames.of(backend.name).radcliq,
        "bootstrap": config.evaluation.bootstrap,
        "seed": config.seed,
        "decoding": {"temperature": 0.0, "max_new_tokens": config.rollout.max_new_tokens},
        "data_sha256": manifest_hash(scale.manifest),
        "git": git_state(),
    }


def _write_attention(path: Path, system: SystemReports) -> None:
    assert system.attention is not None
    part = path.with_suffix(".part")
    save_file({"attention": system.attention.contiguous()}, part)
    os.replace(part, path)


def _write_results(path: Path, results: Mapping[str, Any]) -> Path:
    table = results_table(results)
    with atomic_writer(path) as out:
        json.dump(results, out, indent=2, allow_nan=False)
    with atomic_writer(path.with_suffix(".md")) as out:
        out.write(table)
    print(table)
    for system in results["systems"]:
        for finding in system["sanity"] if system["checkpoint"] else ():
            print(f"SANITY CHECK FAILED, {system['title']}: {finding['message']}", file=sys.stderr)
    return path
