"""The paths of a run folder are an interface: users, documents and other programs know them."""

from __future__ import annotations

from pathlib import Path

from lmrrg.data.importing import audit_path
from lmrrg.run.layout import RunLayout

LAYOUT = RunLayout(Path("runs/demo"))


def test_the_paths_of_a_run_folder():
    assert {
        path.relative_to(LAYOUT.root).as_posix()
        for path in (
            LAYOUT.settings,
            LAYOUT.record,
            LAYOUT.studies,
            LAYOUT.studies_audit,
            LAYOUT.studies_origin,
            LAYOUT.log,
            LAYOUT.report,
            LAYOUT.metrics("ppo"),
            LAYOUT.best("sft"),
            LAYOUT.last("ppo"),
            LAYOUT.fingerprint("sft"),
            LAYOUT.stage_settings("sft"),
            LAYOUT.ppo_start,
            LAYOUT.ppo_states,
            LAYOUT.ppo_rollouts,
            LAYOUT.ppo_replayed,
            LAYOUT.ppo_profile(1),
            LAYOUT.ppo_not_finite(0),
            LAYOUT.results,
            LAYOUT.region_attention,
            LAYOUT.reports("baseline"),
        )
    } == {
        "config.yaml",
        "run.json",
        "studies.jsonl",
        "studies.audit.json",
        "studies.made_from.json",
        "log",
        "report.html",
        "metrics/ppo.jsonl",
        "sft/best",
        "ppo/last",
        "sft/fingerprint",
        "sft/settings.json",
        "ppo/sft_checkpoint",
        "ppo/state",
        "ppo/rollouts",
        "ppo/replayed",
        "ppo/profile/update1.json.gz",
        "ppo/not_finite-rank0.safetensors",
        "evaluation/results.json",
        "evaluation/regions.safetensors",
        "evaluation/baseline.jsonl",
    }


def test_the_audit_lies_where_the_import_writes_it():
    assert audit_path(LAYOUT.studies) == LAYOUT.studies_audit
