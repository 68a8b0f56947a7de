"""What becomes of a training run when a rank fails: lost workers are replaced, what a rank has to say is said."""

from __future__ import annotations

from typing import Any

from ray.train import Result
from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy, FailureDecision
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError
from ray.train.v2.torch.torch_trainer import TorchTrainer

from lmrrg.errors import CodedError


class FailurePolicy(DefaultFailurePolicy):
    """Ray Train's, but a rank's coded error ends the run: the next attempt would meet the same input."""

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        """Whether the run starts again from its last checkpoint."""
        if said_by_a_rank(training_failed_error):
            return FailureDecision.RAISE
        return super().make_decision(training_failed_error)


class Trainer(TorchTrainer):
    """A trainer under :class:`FailurePolicy`, for which Ray Train has no setting."""

    def _initialize_and_run_controller(self, **settings: Any) -> Result:
        default: DefaultFailurePolicy = settings["failure_policy"]
        policy = FailurePolicy(default.failure_config)
        return super()._initialize_and_run_controller(**settings | {"failure_policy": policy})


def said_by_a_rank(error: TrainingFailedError) -> CodedError | None:
    """The coded error of the first rank that has one; the others' are mostly that they lost this one."""
    failures = error.worker_failures.values() if isinstance(error, WorkerGroupError) else ()
    return next((failure for failure in failures if isinstance(failure, CodedError)), None)
