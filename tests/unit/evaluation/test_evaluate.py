"""A whole evaluation on phantoms with real models; only the vLLM engine is a fake."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from lmrrg import RESEARCH_USE_ONLY
from lmrrg.cli.main import main
from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config
from lmrrg.errors import CodedError
from lmrrg.evaluation.baseline_systems import NO_EVIDENCE, TITLES
from lmrrg.evaluation.errors import EvaluationError
from lmrrg.evaluation.evaluate import (
    _scoring_setup,
    evaluate_checkpoint,
    evaluate_run,
    read_results,
)
from lmrrg.evaluation.results import beaten_by_a_constant, guard_records
from lmrrg.evaluation.rows import metric_groups
from lmrrg.evaluation.scoring import _own_values, metric_names
from lmrrg.evaluation.study_set import other_patient_rows
from lmrrg.manifest import manifest_hash
from lmrrg.metrics.embedded.backend import EmbeddedBackend
from lmrrg.metrics.embedded.labeler import label_report
from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.suite import select_metrics
from lmrrg.run.studies import studies_of
from lmrrg.studies import POSITIVE, Study, StudyImage
from tests.support.evaluated_run import (
    NORMAL,
    SETTINGS,
    MemoryEngine,
    Written,
    finished_run,
    memory_engines,
)
from tests.support.own.lab import shared_words

NO_LABELS = {TITLES[name]: NO_EVIDENCE for name in ("template", "label_matched")}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return finished_run(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def results(run: Config) -> dict[str, Any]:
    return read_results(run.run_dir / "evaluation" / "results.json")


def _records(run: Config, system: str) -> list[dict[str, Any]]:
    text = (run.run_dir / "evaluation" / f"{system}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def _metrics(results: Mapping[str, Any], system: str) -> dict[str, Any]:
    return next(one["metrics"] for one in results["systems"] if one["name"] == system)


def test_the_difference_and_its_interval_agree_with_a_slow_bootstrap(
    run: Config, results: dict[str, Any]
) -> None:
    ppo, sft = (np.array([r["radcliq_v1"] for r in _records(run, name)]) for name in ("ppo", "sft"))
    found = results["comparison"]["metrics"]["radcliq_v1"]
    assert results["comparison"]["a"] == "ppo"
    assert found["difference"] == pytest.approx(ppo.mean() - sft.mean())
    assert found["difference"] < 0  # the stand-in for PPO forgets less
    rng = np.random.default_rng(11)
    draws = []
    for _ in range(4000):
        rows = rng.integers(len(ppo), size=len(ppo))
        draws.append(ppo[rows].mean() - sft[rows].mean())
    spread = np.std(draws)
    assert found["low"] == pytest.approx(np.quantile(draws, 0.025), abs=0.5 * spread)
    assert found["high"] == pytest.approx(np.quantile(draws, 0.975), abs=0.5 * spread)


def test_every_table_value_follows_from_the_reports_that_were_written(
    run: Config, results: dict[str, Any]
) -> None:
    truth = studies_of(run, "test")
    for system in (
        "sft",
        "ppo",
        "constant",
        "best_constant",
        "nearest",
        "random",
        "oracle_template",
    ):
        records, metrics = _records(run, system), _metrics(results, system)
        assert [r["id"] for r in records] == [study.id for study in truth]
        assert [r["reference_labels"] for r in records] == [
            dict(study.labels or {}) for study in truth
        ]
        reports = [r["report"] for r in records]
        assert metrics["distinct_reports"]["value"] == len(set(reports))
        assert metrics["distinct_finding_sets"]["value"] == len(
            {
                frozenset(k for k, v in r["labels"].items() if v and k != "No Finding")
                for r in records
            }
        )
        assert metrics["radcliq_v1"]["value"] == pytest.approx(
            np.mean([r["radcliq_v1"] for r in records])
        )
        assert metrics["reward"]["value"] == pytest.approx(np.mean([r["reward"] for r in records]))
        abnormal = [
            r["reward"] for r, study in zip(records, truth, strict=True) if study.is_abnormal
        ]
        assert metrics["reward_abnormal"]["value"] == pytest.approx(np.mean(abnormal))
        assert metrics["unfinished"]["value"] == pytest.approx(
            np.mean([not r["finished"] for r in records])
        )
        silent = [
            not any(v != 0 for k, v in label_report(text).items() if k != "No Finding")
            for text in reports
        ]
        assert metrics["all_normal"]["value"] == pytest.approx(np.mean(silent))


def test_the_bound_reads_the_true_labels_and_what_has_no_labels_is_left_out(
    run: Config, results: dict[str, Any]
) -> None:
    assert [one["name"] for one in results["systems"] if one["is_oracle"]] == ["oracle_template"]
    assert len(results["left_out"]) == 2
    table = (run.run_dir / "evaluation" / "results.md").read_text()
    assert all(f"Left out: {title}, because {why}." in table for title, why in NO_LABELS.items())
    f1 = "micro_f1_5_uncertain_positive"
    assert (
        _metrics(results, "oracle_template")[f1]["value"]
        > _metrics(results, "nearest")[f1]["value"]
    )


def test_side_and_severity_are_measured_on_phantoms_and_compared(results: dict[str, Any]) -> None:
    # The stand-in for PPO copies sentences of the references, which are right.
    for measure in ("side", "severity"):
        assert _metrics(results, "ppo")[measure]["value"] == 1
        assert results["comparison"]["metrics"][measure]["difference"] == 0


def test_coherence_is_the_share_of_reports_without_a_fault(
    run: Config, results: dict[str, Any]
) -> None:
    for system in results["systems"]:
        assert system["metrics"]["coherence"]["value"] == 1
        assert system["texts"]["incoherent_reports"] == 0
    assert all(record["coherence"] == 1 for record in _records(run, "ppo"))


@pytest.mark.parametrize(("share", "is_ok"), [(0.97, True), (0.96, True), (0.95, False)])
def test_the_guard_of_coherence_allows_one_point(share: float, is_ok: bool) -> None:
    metrics = {"radcliq_v1": {"value": 0.0}, "coherence": {"value": 0.97}}
    after = metrics | {"coherence": {"value": share}}
    comparison = {"metrics": {"radcliq_v1": {"high": -0.1}}}
    guards = guard_records(
        {"metrics": metrics}, {"metrics": after}, comparison, "positive", "radcliq"
    )
    assert [guard["ok"] for guard in guards] == [True, is_ok]


def test_intervals_hold_their_value_and_nothing_is_left_out(results: dict[str, Any]) -> None:
    for system in results["systems"]:
        for metric, entry in system["metrics"].items():
            if "low" in entry:
                assert entry["low"] - 1e-9 <= entry["value"] <= entry["high"] + 1e-9, metric
    assert {"raw.bleu_4", "r2gen.bleu_4", "raw.rouge_l", "r2gen.cider"} <= set(
        _metrics(results, "random")
    )


def test_a_metric_of_ones_own_is_scored_compared_and_shown(
    run: Config, results: dict[str, Any]
) -> None:
    key = "own.tests.support.own.lab:shared_words"
    records = _records(run, "ppo")
    expected = shared_words(
        [record["report"] for record in records], [record["reference"] for record in records]
    )
    found = _metrics(results, "ppo")[key]
    assert found["value"] == pytest.approx(np.mean(expected))
    assert found["low"] < found["value"] < found["high"]
    assert results["comparison"]["metrics"][key]["difference"] > 0
    table = (run.run_dir / "evaluation" / "results.md").read_text()
    assert "Metrics of your own" in table
    assert "tests.support.own.lab:shared_words" in table


@pytest.mark.parametrize("name", ["unknown", "one_too_few"])
def test_a_metric_of_ones_own_without_a_number_for_each_report_is_refused(
    run: Config, name: str
) -> None:
    own = f"tests.support.own.lab:{name}"
    config = load_config(None, [*SETTINGS, f"evaluation.extra_metrics=[{own}]"])
    setup = _scoring_setup([], studies_of(run, "test")[:2], config)
    with pytest.raises(MetricError, match="own_code"):
        _own_values(own, setup.own_metrics[own], ["Clear."] * 2, ["Clear."] * 2)


def test_coco_is_shown_beside_raw(run: Config) -> None:
    config = load_config(None, ["evaluation.convention=coco"])
    setup = _scoring_setup([], studies_of(run, "test"), config)
    assert [setup.conventions[name].describe() for name in ("raw", "coco")] == [
        {"name": "raw"},
        {"name": "coco"},
    ]
    titles = [title for title, _ in metric_groups("positive", "radcliq")]
    assert "Language, coco convention" in titles


@pytest.mark.parametrize("meteor", [True, False])
def test_meteor_is_left_out_on_request_alone(run: Config, meteor: bool) -> None:
    wanted = run.model_copy(
        update={"evaluation": run.evaluation.model_copy(update={"meteor": meteor})}
    )
    for convention in ("raw", "r2gen"):
        assert ("meteor" in select_metrics(metric_names(convention, wanted.evaluation))) == meteor
    in_raw = select_metrics(metric_names("raw", wanted.evaluation))
    assert in_raw >= select_metrics(["radcliq", "clinical", "coherence"])


def test_image_use_counts_the_reports_that_change(run: Config, results: dict[str, Any]) -> None:
    records, metrics = _records(run, "ppo"), _metrics(results, "ppo")
    reports = [r["report"] for r in records]
    # The fake engine looks at the image alone: another patient's image gives that patient's report.
    other = other_patient_rows([study.patient for study in studies_of(run, "test")], run.seed)
    changed = np.mean([reports[row] != reports[instead] for row, instead in enumerate(other)])
    assert metrics["changed_other"]["value"] == pytest.approx(changed)
    # For black images it always writes the same part of the normal report.
    parts = [f"{one}." for one in NORMAL.removesuffix(".").split(". ")]
    shares = [np.mean([report != blank for report in reports]) for blank in (NORMAL, *parts)]
    assert metrics["changed_blank"]["value"] in shares
    assert metrics["nll_right"]["value"] > 0
    assert "changed_blank" not in _metrics(results, "constant")


def test_the_stamp_says_everything_that_the_numbers_depend_on(
    run: Config, results: dict[str, Any]
) -> None:
    stamp = results["stamp"]
    assert stamp["split"] == "test"
    assert stamp["section"] == "findings"
    assert stamp["labels_from"] == "studies"
    assert stamp["conventions"] == ["raw", "r2gen"]
    assert stamp["scoring"]["r2gen"]["convention"]["vocabulary_words"] > 0
    assert stamp["backend"]["name"] == "radcliq-embedded"
    assert stamp["metric_title"] == "RadCliQ-embedded v1"
    assert stamp["data_sha256"] == manifest_hash(run.run_dir / "studies.jsonl")
    assert (stamp["studies"], stamp["seed"], stamp["bootstrap"]) == (20, run.seed, 200)
    hashes = {s["name"]: s["checkpoint"]["sha256"] for s in results["systems"] if s["checkpoint"]}
    assert set(hashes) == {"sft", "ppo"}
    assert hashes["sft"] != hashes["ppo"]


def test_every_file_says_what_it_is_not_for(run: Config, results: dict[str, Any]) -> None:
    assert results["notice"] == RESEARCH_USE_ONLY
    assert (
        RESEARCH_USE_ONLY in (run.run_dir / "evaluation" / "results.md").read_text().splitlines()[0]
    )
    assert {record["notice"] for record in _records(run, "ppo")} == {RESEARCH_USE_ONLY}


def test_region_attention_belongs_to_the_examples(run: Config, results: dict[str, Any]) -> None:
    attention = load_file(run.run_dir / "evaluation" / "regions.safetensors")["attention"]
    assert attention.shape == (len(results["examples"]["ids"]), 29, run.data.max_views, 64)
    np.testing.assert_allclose(attention.sum(axis=(2, 3)), 1.0, atol=1e-4)


def test_two_engines_are_never_open_together(run: Config) -> None:
    assert MemoryEngine.open_now == 0
    assert MemoryEngine.most_open == 1


def test_equal_systems_show_no_difference_and_fail_the_first_guard(
    run: Config, tmp_path: Path
) -> None:
    saved = {path: path.read_bytes() for path in (run.run_dir / "evaluation").iterdir()}
    results = read_results(evaluate_run(run, memory_engines(run, {"sft": 0.3, "ppo": 0.3})))
    value = results["comparison"]["metrics"]["radcliq_v1"]
    assert (value["difference"], value["low"], value["high"]) == (0, 0, 0)
    assert value["p_permutation"] == value["p_bootstrap"] == 1
    assert [guard["ok"] for guard in results["guards"]] == [False, True, True, True, True, True]
    for path, content in saved.items():
        path.write_bytes(content)


def test_a_run_without_its_checkpoints_is_refused_before_any_work(
    run: Config, tmp_path: Path
) -> None:
    elsewhere = run.model_copy(update={"storage_path": tmp_path})
    with pytest.raises(EvaluationError, match="checkpoint_missing"):
        evaluate_run(elsewhere)
    assert list(tmp_path.iterdir()) == []


class _Template:
    """An engine that writes one report for everybody."""

    def __init__(self, model: Any):
        self.model = model

    def generate(self, features: Any, prompts: list[Any], *, progress: Any) -> list[list[Written]]:
        progress(len(prompts))
        return [[Written(NORMAL)] for _ in prompts]

    def close(self) -> None:
        """Nothing to close."""


def test_one_checkpoint_from_the_command_line(
    run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lmrrg.model.checkpoint import load_checkpoint

    monkeypatch.setattr(
        "lmrrg.engine.report_engine.ReportEngine",
        lambda checkpoint, *_, **__: _Template(load_checkpoint(checkpoint)),
    )
    out = tmp_path / "results.json"
    command = ["evaluate", "--checkpoint", str(run.run_dir / "ppo" / "best"), "--out", str(out)]
    command += [
        "--studies",
        str(run.run_dir / "studies.jsonl"),
        "--split",
        "val",
        "--convention",
        "r2gen",
    ]
    command += [
        f"data.cache_dir={run.data.cache_dir}",
        "evaluation.bootstrap=50",
        "evaluation.meteor=false",
    ]
    assert main(command) == 0
    results = read_results(out)
    assert results["stamp"]["split"] == "val"
    assert results["systems"][0]["metrics"]["distinct_reports"]["value"] == 1
    assert {finding["code"] for finding in results["systems"][0]["sanity"]} >= {"image_ignored"}
    shown = capsys.readouterr()
    assert "SANITY CHECK FAILED" in shown.err
    assert "Language, r2gen convention" in shown.out
    assert (
        len(out.with_suffix(".reports.jsonl").read_text().splitlines())
        == results["stamp"]["studies"]
    )
    assert out.with_suffix(".md").is_file()
    assert main([*command, "--strict"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --config"),
        (["--studies", "x.jsonl"], "go with --checkpoint"),
        (["--checkpoint", "x"], "needs --studies"),
        (["--checkpoint", "x", "--studies", "x.jsonl", "--out", "results.md"], "must end in .json"),
        (["--checkpoint", "x", "--studies", "x.jsonl", "--out", "exp.step1"], "must end in .json"),
        (["--checkpoint", "missing", "--studies", "x.jsonl", "--out", "y.json"], "missing"),
        (["--config", "missing.yaml"], "does not exist"),
    ],
)
def test_bad_arguments_end_with_one_sentence(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "code"), [("{", "bad_results"), ('{"schema": "other"}', "bad_results")]
)
def test_damaged_results_are_named(tmp_path: Path, content: str, code: str) -> None:
    path = tmp_path / "results.json"
    with pytest.raises(EvaluationError, match="no_results"):
        read_results(path)
    path.write_text(content)
    with pytest.raises(EvaluationError, match=code):
        read_results(path)


@pytest.mark.parametrize("name", ["results.json", "results.md", "results.reports.jsonl"])
def test_outputs_are_checked_before_anything_is_loaded(
    run: Config, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).mkdir()
    manifest, out = run.run_dir / "studies.jsonl", tmp_path / "results.json"
    with pytest.raises(CodedError, match="bad_output"):
        evaluate_checkpoint(tmp_path, manifest, run, out, lambda *_: pytest.fail("loaded"))
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(("training", "threshold"), [(True, 10), (False, None)])
def test_mimic_studies_get_the_published_settings_without_a_config(
    training: bool, threshold: int | None
) -> None:
    study = Study(
        "s1", "p1", (StudyImage(Path("a.png")),), findings="Lungs clear.", source="mimic-cxr"
    )
    config = load_config(None, ["evaluation.convention=r2gen"])
    setup = _scoring_setup([study] * training, [study], config)
    stamp = setup.conventions["r2gen"].describe()
    assert (stamp["dataset"], stamp["vocabulary_threshold"], stamp["reference_tokens"]) == (
        "mimic-cxr",
        threshold,
        100,
    )


def test_evaluate_checkpoint_without_training_reports_keeps_rare_words(
    run: Config, tmp_path: Path
) -> None:
    manifest = tmp_path / "val.jsonl"
    lines = (
        (run.run_dir / "studies.jsonl")
        .read_text()
        .replace('"path": "', f'"path": "{run.run_dir.resolve()}/')
    )
    manifest.write_text(
        "".join(line + "\n" for line in lines.splitlines() if '"split": "test"' in line)
    )
    results = evaluate_checkpoint(
        run.run_dir / "sft" / "best",
        manifest,
        run,
        tmp_path / "out.json",
        memory_engines(run, {"sft": 0.5}),
    )
    assert results["stamp"]["scoring"]["r2gen"]["convention"]["vocabulary_words"] is None
    assert "comparison" not in results


class _EdemaLabeler:
    """A labeler that finds edema everywhere."""

    name = "edema"

    def label(self, reports: Sequence[str]) -> list[dict[str, int]]:
        return [{"Edema": POSITIVE} for _ in reports]


class _OwnLabeler(EmbeddedBackend):
    """A backend that reads the findings itself, as the published models do."""

    labeler = _EdemaLabeler()  # type: ignore[assignment]


def test_the_backend_reads_the_findings(
    run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmrrg.evaluation.evaluate.make_backend", lambda _: _OwnLabeler())
    manifest = tmp_path / "val.jsonl"
    records = [
        json.loads(line) for line in (run.run_dir / "studies.jsonl").read_text().splitlines()
    ]
    kept = [{k: v for k, v in r.items() if k != "labels"} for r in records if r["split"] == "test"]
    for record in kept:
        record["images"] = [
            image | {"path": str(run.run_dir.resolve() / image["path"])}
            for image in record["images"]
        ]
    manifest.write_text("".join(json.dumps(record) + "\n" for record in kept))
    out = tmp_path / "out.json"
    results = evaluate_checkpoint(
        run.run_dir / "sft" / "best", manifest, run, out, memory_engines(run, {"sft": 0.5})
    )
    assert results["stamp"]["scoring"]["raw"]["labeler"] == "edema"
    reports = [
        json.loads(line) for line in out.with_suffix(".reports.jsonl").read_text().splitlines()
    ]
    assert all(r["reference_labels"] == r["labels"] == {"Edema": POSITIVE} for r in reports)
    assert results["systems"][0]["metrics"]["micro_f1_14_uncertain_positive"]["value"] == 1


def _scored(name: str, radcliq: float, checkpoint: bool = False) -> dict[str, Any]:
    return {
        "name": name,
        "title": name.upper(),
        "checkpoint": {"path": "x"} if checkpoint else None,
        "metrics": {"radcliq_v1": {"value": radcliq}},
    }


def test_a_system_that_one_report_for_everybody_beats_is_named() -> None:
    systems = [
        _scored("sft", 0.5, checkpoint=True),
        _scored("ppo", 0.3, checkpoint=True),
        _scored("constant", 0.6),
        _scored("best_constant", 0.4),
        _scored("random", 0.9),
    ]
    (sentence,) = beaten_by_a_constant(systems, "embedded")
    assert sentence.startswith("SFT is no better than one report for everybody: RadCliQ-embedded")
    assert "0.500" in sentence
    assert "0.400" in sentence
    assert beaten_by_a_constant(systems[:2], "embedded") == []
