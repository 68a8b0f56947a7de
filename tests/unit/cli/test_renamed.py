"""Old names of options are refused with the new name."""

import pytest

from lmrrg.cli.main import main

FILES = ["--references", "a.csv", "--hypotheses", "b.csv"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["score", *FILES, "--backend", "reference"], "reference is now called published"),
        (["score", *FILES, "--weights", "w"], "--weights is now called --published-dir"),
        (["doctor", "--reference-dir", "w"], "--reference-dir is now called --published-dir"),
    ],
)
def test_an_old_name_is_refused_with_the_new_one(argv, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["score", "doctor"])
def test_help_lists_the_new_name_only(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = capsys.readouterr().out
    assert "--published-dir" in text
    assert "--weights" not in text
    assert "--reference-dir" not in text
