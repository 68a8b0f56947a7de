import pickle

import pytest

from lmrrg.engine.interfaces import EngineError
from lmrrg.errors import CodedError, one_sentence, run_command


def test_an_error_keeps_its_type_code_and_text_between_processes():
    for kind in (CodedError, EngineError):
        error = pickle.loads(pickle.dumps(kind("checksum", "not these weights")))  # noqa: S301
        assert type(error) is kind
        assert isinstance(error, ValueError)
        assert error.code == "checksum"
        assert str(error) == "checksum: not these weights"


def test_an_error_of_the_system_is_told_by_its_file():
    renamed = FileNotFoundError(2, "No such file", "part", None, "results.json")
    assert one_sentence(renamed) == "results.json: No such file"
    assert one_sentence(NotADirectoryError(20, "Not a directory", "run")) == "run: Not a directory"
    assert one_sentence(OSError("no file in it")) == "no file in it"
    assert one_sentence(CodedError("code", "why")) == "code: why"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (CodedError("code", "why"), "tool: code: why"),
        (FileNotFoundError(2, "No such file", "a.json"), "tool: a.json: No such file"),
    ],
)
def test_a_command_reports_bad_input_in_one_sentence(error, sentence, capsys):
    def command() -> int:
        raise error

    assert run_command("tool", command) == 2
    assert capsys.readouterr().err == sentence + "\n"


def test_a_command_keeps_its_exit_code_and_the_traceback_of_a_defect():
    assert run_command("tool", lambda: 1) == 1
    with pytest.raises(ZeroDivisionError):
        run_command("tool", lambda: 1 // 0)


class CarriedError(CodedError):
    """An actor's error on the driver: its text is a traceback, its ``cause`` the error itself."""

    def __init__(self, cause: CodedError):
        super().__init__("carried", "Traceback (most recent call last): ...")
        self.cause = cause


@pytest.mark.parametrize("is_pooled", [False, True])
def test_the_coded_error_of_an_actor_is_one_sentence(capsys, is_pooled):
    refusal = CodedError("decoder_attention", "capped scores")

    def fail() -> int:
        if is_pooled:
            raise CodedError("actor_error", "policy: log_probs failed") from CarriedError(refusal)
        raise CarriedError(refusal)

    assert run_command("ppo", fail) == 2
    assert capsys.readouterr().err == "ppo: decoder_attention: capped scores\n"


def test_an_error_that_explains_another_is_kept(capsys):
    def fail() -> int:
        raise CodedError("bad_file", "no checkpoint") from CodedError("json", "line 3")

    assert run_command("ppo", fail) == 2
    assert capsys.readouterr().err == "ppo: bad_file: no checkpoint\n"


def test_ctrl_c_is_one_sentence_with_the_way_on(capsys):
    def stop() -> int:
        raise KeyboardInterrupt

    assert run_command("sft", stop, "the same command continues") == 130
    assert capsys.readouterr().err == "sft: interrupted; the same command continues\n"
