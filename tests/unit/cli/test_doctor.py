"""The doctor finds what is here, names what is not, and says how to get it."""

import json

import pytest

from lmrrg.cli import doctor
from lmrrg.cli.main import main


def test_a_complete_machine_passes(capsys):
    assert main(["doctor", "--json"]) == 0
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert checks["torch"]["level"] == "ok"
    assert checks["engine"]["detail"].startswith("vllm")


def test_published_weights_come_with_the_command_that_fetches_them(tmp_path, capsys):
    main(["doctor", "--json", "--published-dir", str(tmp_path)])
    details = [
        c["detail"]
        for c in json.loads(capsys.readouterr().out)
        if c["name"].startswith("published: ")
    ]
    assert details
    assert all(detail.startswith("hf download ") or detail == "found" for detail in details)


def test_a_missing_package_fails_and_says_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "no-such-package"))
    assert main(["doctor"]) == 1
    line = next(line for line in capsys.readouterr().out.splitlines() if "no-such-package" in line)
    assert line.startswith("missing")
    assert "scripts/setup.sh" in line


@pytest.mark.parametrize("argv", [[], ["frobnicate"]])
def test_unknown_commands_list_the_known_ones(argv, capsys):
    assert main(argv) == 2
    assert "doctor" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["data", "score", "evaluate", "demo", "doctor"])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert command in capsys.readouterr().out


def test_bad_settings_end_with_one_sentence(capsys):
    assert main(["demo", "--config", "nowhere.yaml"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lmrrg demo: config file nowhere.yaml")
    assert len(error.strip().splitlines()) == 1
