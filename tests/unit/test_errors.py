import pickle

from lmrrg.engine.interfaces import EngineError
from lmrrg.errors import CodedError, one_sentence


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
