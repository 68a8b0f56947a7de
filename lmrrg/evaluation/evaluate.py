"""The evaluation of a run or of one checkpoint: generate, score, compare, write.

Checkpoints are opened one after the other: two language models are never in memory together.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from lmrrg import RESEARCH_USE_ONLY
from lmrrg.config.tree import Config
from lmrrg.data.priors import prior_reports
from lmrrg.evaluation.baseline_systems import baseline_systems
from lmrrg.evaluation.errors import EvaluationError
from lmrrg.evaluation.examples import EXAMPLE_RULE, choose_examples
from lmrrg.evaluation.markdown import results_table
from lmrrg.evaluation.results import (
    compare_records,
    failed_checks,
    guard_records,
    system_record,
    write_reports,
)
from lmrrg.evaluation.rows import ScoreNames
from lmrrg.evaluation.scoring import ScoredSystem, ScoringSetup, score_system
from lmrrg.evaluation.study_set import EvaluationSet, evaluation_set
from lmrrg.evaluation.systems import (
    OpenGenerator,
    SystemReports,
    checkpoint_record,
    model_system,
    vllm_generator,
)
from lmrrg.files import atomic_writer, check_outputs
from lmrrg.manifest import manifest_hash, read_studies
from lmrrg.metrics.backends import make_backend
from lmrrg.metrics.text.conventions import Convention, Raw, make_convention, r2gen_dataset
from lmrrg.metrics.text.meteor.score import prepare_meteor
from lmrrg.model.checkpoint import checkpoint_encoder
from lmrrg.model.evidence import checkpoint_thresholds
from lmrrg.own_code import load_own
from lmrrg.policy.start_checks import check_own_code
from lmrrg.progress import progress_bar
from lmrrg.run.layout import RunLayout
from lmrrg.run.record import git_state, record_run, sft_of_run
from lmrrg.run.studies import studies_of
from lmrrg.studies import Study

SCHEMA = "lmrrg-evaluation/2"
TRAINED = {"sft": "SFT", "ppo": "PPO"}
"""Title of each trained system of a run by the name of its stage."""


def evaluate_run(config: Config, open_generator: OpenGenerator | None = None) -> Path:
    """Compare SFT, PPO and the baselines on the run's evaluation split.

    Writes into ``run_dir/evaluation/``: ``results.json``; ``results.md``, which is also printed;
    ``<system>.jsonl`` with the reports; and ``regions.safetensors`` with the region attention of
    the example studies.

    Args:
        config: settings of the run.
        open_generator: opens a checkpoint for generation; by default with vLLM.

    Returns:
        The path of ``results.json``.

    Raises:
        EvaluationError: ``checkpoint_missing``, ``no_studies``, ``no_training`` or ``one_patient``.
        StudyError: the run has no readable manifest.
    """
    layout = RunLayout(config.run_dir)
    checkpoints = {"sft": sft_of_run(layout.root), "ppo": layout.best("ppo")}
    for checkpoint in checkpoints.values():
        checkpoint_record(checkpoint)  # fails here, before hours of work, where one is missing
    training = studies_of(config, "train")
    chosen = studies_of(config, config.data.eval_split)
    setup = _scoring_setup(training, chosen, config)
    # From the whole manifest: a prior study may be in no split, or beyond the limit.
    priors = prior_reports(read_studies(layout.studies), config.data.section)
    # PPO keeps the encoder of the SFT model it starts from.
    encoder = checkpoint_encoder(checkpoints["sft"], config.model.image_encoder)
    evaluated = evaluation_set(chosen, config.data, setup.backend.labeler, priors, encoder)
    record_run(config, layout.studies)
    open_generator = open_generator or _vllm(config)
    systems = _trained_systems(checkpoints, evaluated, config, open_generator)
    baselines = baseline_systems(
        evaluated,
        training,
        config.data,
        config.evaluation.uncertain_policy,
        # The operating point at which the trained systems read the image encoder, too.
        checkpoint_thresholds(checkpoints["ppo"], config.evidence).double().numpy(),
        setup.backend,
        config.seed,
    )
    systems += baselines.systems
    scored = {one.system.name: one for one in _score(systems, evaluated, setup)}
    examples = choose_examples(
        evaluated.studies,
        {name: one.scores["raw"].columns["radcliq_v1"] for name, one in scored.items()},
        config.evaluation.examples,
        config.seed,
    )
    results = {
        "schema": SCHEMA,
        "notice": RESEARCH_USE_ONLY,
        "stamp": _stamp(evaluated, scored["sft"], setup, layout.studies, config),
        **_comparison(scored, setup),
        "left_out": baselines.left_out,
        "examples": {
            "ids": [evaluated.studies[example.row].id for example in examples],
            "groups": [example.group for example in examples],
            "rule": EXAMPLE_RULE,
            "attention": "ppo",
        },
    }
    layout.evaluation.mkdir(parents=True, exist_ok=True)
    rows = [example.row for example in examples]
    _write_attention(layout.region_attention, scored["ppo"].system, rows)
    for name, one in scored.items():
        write_reports(layout.reports(name), one, evaluated)
    # Last, because the run report takes this file as the sign of a finished evaluation.
    return _write_results(layout.results, results)


def evaluate_checkpoint(
    checkpoint: Path,
    manifest: Path,
    config: Config,
    out: Path,
    open_generator: OpenGenerator | None = None,
) -> dict[str, Any]:
    """Generate and score with one checkpoint on ``config.data.eval_split`` of a manifest.

    Writes the results to ``out``, and beside it the table (``.md``) and the reports
    (``.reports.jsonl``).

    Args:
        checkpoint: model directory.
        manifest: studies; those of the training split give the vocabulary of "r2gen".
        config: settings.
        out: path of the results.
        open_generator: opens the checkpoint for generation; by default with vLLM.

    Returns:
        The results.

    Raises:
        CodedError: ``bad_output``, before any work.
        EvaluationError: ``checkpoint_missing``, ``no_studies`` or ``one_patient``.
        StudyError: the manifest cannot be read.
    """
    reports = out.with_suffix(".reports.jsonl")
    check_outputs([out, out.with_suffix(".md"), reports], [manifest])
    studies = read_studies(manifest)
    chosen = [study for study in studies if study.split == config.data.eval_split]
    chosen = chosen[: config.data.eval_limit]
    training = [study for study in studies if study.split == "train"]
    setup = _scoring_setup(training, chosen, config)
    priors = prior_reports(studies, config.data.section)
    encoder = checkpoint_encoder(checkpoint, config.model.image_encoder)
    evaluated = evaluation_set(chosen, config.data, setup.backend.labeler, priors, encoder)
    system = model_system(
        "checkpoint",
        checkpoint.name,
        checkpoint,
        evaluated,
        config.data,
        config.evidence,
        config.seed,
        open_generator or _vllm(config),
        config.evaluation.operating_points,
    )
    (scored,) = _score([system], evaluated, setup)
    results = {
        "schema": SCHEMA,
        "notice": RESEARCH_USE_ONLY,
        "stamp": _stamp(evaluated, scored, setup, manifest, config),
        "systems": [system_record(scored, setup)],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_reports(reports, scored, evaluated)
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


def _trained_systems(
    checkpoints: Mapping[str, Path],
    evaluated: EvaluationSet,
    config: Config,
    open_generator: OpenGenerator,
) -> list[SystemReports]:
    """Return SFT and PPO; ``checkpoints`` maps the name of a stage to its model directory."""
    systems = []
    for name, checkpoint in checkpoints.items():
        system = model_system(
            name,
            TRAINED[name],
            checkpoint,
            evaluated,
            config.data,
            config.evidence,
            config.seed,
            open_generator,
            config.evaluation.operating_points,
        )
        systems.append(system)
    return systems


def _comparison(scored: Mapping[str, ScoredSystem], setup: ScoringSetup) -> dict[str, Any]:
    """Return the ``systems`` of a run, the ``comparison`` of PPO with SFT, and its ``guards``."""
    records = {name: system_record(one, setup) for name, one in scored.items()}
    comparison = compare_records(scored["ppo"], scored["sft"], setup)
    policy = setup.evaluation.uncertain_policy
    return {
        "systems": list(records.values()),
        "comparison": comparison,
        "guards": guard_records(
            records["sft"], records["ppo"], comparison, policy, setup.backend.name
        ),
    }


def _vllm(config: Config) -> OpenGenerator:
    return vllm_generator(config.rollout, seed=config.seed, threads=config.threads)


def _scoring_setup(
    training: Sequence[Study], evaluated: Sequence[Study], config: Config
) -> ScoringSetup:
    """Return how reports are scored: untouched text always, and the convention of the settings.

    "r2gen" depends on the data set of the evaluated studies and on the words of the training
    reports.
    """
    # Loaded first: a wrong name must not cost hours of generation.
    check_own_code(config)
    own = {
        name: load_own(name, "evaluation.extra_metrics") for name in config.evaluation.extra_metrics
    }
    conventions: dict[str, Convention] = {"raw": Raw()}
    name = config.evaluation.convention
    if name != "raw":
        reports = [study.report(config.data.section) for study in training]
        dataset = r2gen_dataset(study.source for study in evaluated)
        conventions[name] = make_convention(config.evaluation, reports, dataset)
    return ScoringSetup(
        conventions=conventions,
        backend=make_backend(config.reward),
        reward=config.reward,
        evaluation=config.evaluation,
        section=config.data.section,
        split=config.data.eval_split,
        seed=config.seed,
        own_metrics=own,
    )


def _score(
    systems: Sequence[SystemReports], evaluated: EvaluationSet, setup: ScoringSetup
) -> list[ScoredSystem]:
    if setup.evaluation.meteor:
        _prepare_meteor(systems, evaluated, setup.conventions)
    bar = progress_bar(systems, desc="scoring", unit="system")
    return [score_system(system, evaluated, setup) for system in bar]


def _prepare_meteor(
    systems: Sequence[SystemReports],
    evaluated: EvaluationSet,
    conventions: Mapping[str, Convention],
) -> None:
    """Read METEOR's paraphrase table once for all texts; every reading takes seconds."""
    texts: list[str] = []
    for convention in conventions.values():
        for system in systems:
            texts += map(convention.hypothesis, system.reports)
        texts += map(convention.reference, evaluated.references)
    prepare_meteor(texts)


def _stamp(
    evaluated: EvaluationSet,
    scored: ScoredSystem,
    setup: ScoringSetup,
    manifest: Path,
    config: Config,
) -> dict[str, Any]:
    """Return everything that the results depend on; ``scored`` is any one of the systems."""
    return {
        "run": config.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "studies": len(evaluated.studies),
        "abnormal_studies": sum(evaluated.abnormal),
        "split": config.data.eval_split,
        "section": config.data.section,
        "labels_from": evaluated.labels_from,
        "uncertain_policy": config.evaluation.uncertain_policy,
        "conventions": list(setup.conventions),
        "scoring": {name: asdict(scores.stamp) for name, scores in scored.scores.items()},
        "backend": {"name": setup.backend.name, "version": setup.backend.version},
        "metric_title": ScoreNames.of(setup.backend.name).radcliq,
        "bootstrap": config.evaluation.bootstrap,
        "seed": config.seed,
        "evidence": config.evidence.model_dump(),
        "decoding": {"temperature": 0.0, "max_new_tokens": config.rollout.max_new_tokens},
        "data_sha256": manifest_hash(manifest),
        "git": git_state(),
    }


def _write_attention(path: Path, system: SystemReports, rows: Sequence[int]) -> None:
    assert system.attention is not None
    # safetensors writes to a path itself, so atomic_writer cannot stand in between.
    part = path.with_suffix(".part")
    save_file({"attention": system.attention[list(rows)]}, part)
    os.replace(part, path)


def _write_results(path: Path, results: Mapping[str, Any]) -> Path:
    """Write the results and their table, and print the table and the failed sanity checks."""
    table = results_table(results)
    with atomic_writer(path) as out:
        json.dump(results, out, indent=2, allow_nan=False)
    with atomic_writer(path.with_suffix(".md")) as out:
        out.write(table)
    print(table)
    for warning in failed_checks(results["systems"]):
        print(f"SANITY CHECK FAILED, {warning}", file=sys.stderr)
    return path
