"""The one place that writes metrics: a JSONL file for every stage of a run, Weights & Biases, and the run's record.

Only numbers pass through here. Report text never does, so it cannot reach a tracking service.
"""

from __future__ import annotations

import json
import logging
import math
import numbers
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import wandb
from wandb.sdk.mailbox import MailboxClosedError

from lmrrg.config.tree import Config
from lmrrg.files import atomic_writer
from lmrrg.run.errors import TrackingError
from lmrrg.run.layout import RunLayout

logger = logging.getLogger(__name__)

RESERVED = ("step", "time")
_SERVICE_TROUBLE = (wandb.errors.CommError, MailboxClosedError, ConnectionError)


class RunTracker:
    """Write the metrics of one stage to ``run_dir/metrics/<stage>.jsonl`` and to Weights & Biases.

    A resumed stage opens the same file: its first :meth:`log` drops the lines from that step on, which the
    interrupted process had written after its last checkpoint. JSONL is the record; a tracking service that cannot be
    reached is reported in the log and left alone, everything else that goes wrong is raised.
    """

    def __init__(self, run_dir: Path, stage: str, config: Config):
        self.path = RunLayout(Path(run_dir)).metrics(stage)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._last_step: int | None = None
        self._wandb = _start_wandb(Path(run_dir), stage, config)

    def __enter__(self) -> RunTracker:
        return self

    def __exit__(self, error_type, error, traceback) -> None:
        self.finish(exit_code=0 if error_type is None else 1)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line, on disk when this returns; NaN and infinity are stored as null.

        Raises:
            TrackingError: ``bad_metric`` (not a number, or a reserved name) or ``step_order`` (steps go back).
        """
        values = {name: _as_number(name, value) for name, value in metrics.items()}
        if self._last_step is None:
            _drop_from(self.path, step)
        elif step < self._last_step:
            raise TrackingError(
                "step_order", f"step {step} after step {self._last_step} in {self.path.name}"
            )
        self._last_step = step
        record = {"step": step, "time": _now()} | {
            k: v if math.isfinite(v) else None for k, v in values.items()
        }
        with self.path.open("a", encoding="utf-8") as out:
            out.write(json.dumps(record, allow_nan=False) + "\n")
        if self._wandb is not None:
            self._call_wandb(self._wandb.log, values, step=step)

    def finish(self, exit_code: int = 0) -> None:
        """Close the Weights & Biases run; a second call does nothing."""
        if self._wandb is not None:
            self._call_wandb(self._wandb.finish, exit_code=exit_code)
        self._wandb = None

    def _call_wandb(self, function: Any, *args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except _SERVICE_TROUBLE as error:
            logger.warning(
                "Weights & Biases is out of reach (%s); metrics go on to %s only", error, self.path
            )
            self._wandb = None


def read_metrics(run_dir: Path, stage: str) -> list[dict[str, float]]:
    """The lines of a stage in order; nulls come back as NaN, ``time`` is left out; [] when the stage never ran.

    Raises:
        TrackingError: ``metrics_line``, a line is not JSON (a torn last line, of a killed process, is left out).
    """
    path = RunLayout(Path(run_dir)).metrics(stage)
    return [
        {
            name: math.nan if value is None else value
            for name, value in record.items()
            if name != "time"
        }
        for record in _read_records(path)
    ]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _as_number(name: str, value: object) -> float:
    # float("3") works, so text is refused by type; torch and numpy scalars of size 1 have item().
    scalar = value.item() if hasattr(value, "item") else value
    if name in RESERVED or not isinstance(scalar, numbers.Real):
        raise TrackingError(
            "bad_metric", f"{name} is a reserved name or no number ({type(value).__name__})"
        )
    return float(scalar)


def _read_records(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    try:
        return [json.loads(line) for line in lines]
    except json.JSONDecodeError as error:
        raise TrackingError(
            "metrics_line", f"{path} holds a line that is not JSON: {error}"
        ) from error


def _drop_from(path: Path, step: int) -> None:
    kept = [record for record in _read_records(path) if record["step"] < step]
    with atomic_writer(path) as out:
        out.writelines(json.dumps(record) + "\n" for record in kept)


def _start_wandb(run_dir: Path, stage: str, config: Config) -> Any | None:
    mode = config.tracking.wandb_mode
    if mode == "disabled":
        return None
    # Console capture, code, git and machine details stay off: printed text may hold reports.
    settings = wandb.Settings(
        console="off",
        silent=True,
        save_code=False,
        disable_git=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
    )
    try:
        return wandb.init(
            project=config.tracking.wandb_project,
            name=f"{config.name}-{stage}",
            group=config.name,
            job_type=stage,
            dir=str(run_dir),
            mode=mode,
            config=config.model_dump(mode="json"),
            settings=settings,
            reinit="create_new",
        )
    except wandb.errors.AuthenticationError:
        raise  # a wrong key is a setting to correct, not a service that is down
    except _SERVICE_TROUBLE as error:
        logger.warning("Weights & Biases is out of reach (%s); metrics go to JSONL only", error)
        return None
