import pickle

from lmrrg.engine import EngineError
from lmrrg.errors import CodedError


def test_an_error_keeps_its_type_code_and_text_between_processes():
    for kind in (CodedError, EngineError):
        error = pickle.loads(pickle.dumps(kind("checksum", "not these weights")))  # noqa: S301
        assert type(error) is kind
        assert isinstance(error, ValueError)
        assert error.code == "checksum"
        assert str(error) == "checksum: not these weights"
