"""Write the metrics of a run: a JSONL file for each stage, and Weights & Biases.

All metrics pass through this module, and it accepts nothing but numbers: report text cannot reach a
tracking service.
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

from lmrrg.config.tree import Config, TrackingConfig
from lmrrg.files import atomic_writer
from lmrrg.run.errors import TrackingError
from lmrrg.run.layout import RunLayout

logger = logging.getLogger(__name__)

RESERVED = ("step", "time")
_KEY_NEEDED = (
    "tracking.wandb_mode=online needs WANDB_API_KEY or `wandb login`; "
    "or take tracking.wandb_mode=offline"
)
_SERVICE_TROUBLE = (wandb.errors.CommError, MailboxClosedError, ConnectionError)


class RunTracker:
    """Write the metrics of one stage to ``run_dir/metrics/<stage>.jsonl`` and to Weights & Biases.

    A resumed stage appends to the same file. Its first :meth:`log` drops the lines from that step
    on: the interrupted process wrote them after its last checkpoint. The JSONL file is the record.
    A tracking service that cannot be reached is reported in the log and not used again; every other
    error is raised.
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
            TrackingError: ``bad_metric`` (not a number, or a reserved name) or ``step_order``
                (a step is lower than the one before).
        """
        values = {name: _as_number(name, value) for name, value in metrics.items()}
        if self._last_step is None:
            _drop_from(self.path, step)  # now, not at the start: a stage that dies before keeps all
        elif step < self._last_step:
            raise TrackingError(
                "step_order", f"step {step} after step {self._last_step} in {self.path.name}"
            )
        self._last_step = step
        record: dict[str, Any] = {"step": step, "time": _now()}
        for name, value in values.items():
            record[name] = value if math.isfinite(value) else None  # JSON has no NaN
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
    """Return the metrics of a stage, step by step, without ``time``; [] when the stage never ran.

    A null comes back as NaN. A last line that a killed process left unfinished is left out.

    Raises:
        TrackingError: ``metrics_line``, a line is not JSON.
    """
    return [
        _as_metrics(record) for record in _read_records(RunLayout(Path(run_dir)).metrics(stage))
    ]


def _as_metrics(record: Mapping[str, Any]) -> dict[str, float]:
    values = {name: value for name, value in record.items() if name != "time"}
    return {name: math.nan if value is None else value for name, value in values.items()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _as_number(name: str, value: object) -> float:
    # Refused by type: float() would accept the text "3". Scalars of torch and numpy have item().
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
        lines.pop()  # its process was killed while it wrote
    try:
        return [json.loads(line) for line in lines]
    except json.JSONDecodeError as error:
        raise TrackingError(
            "metrics_line", f"{path} holds a line that is not JSON: {error}"
        ) from error


def _drop_from(path: Path, step: int) -> None:
    """Rewrite the file without the lines of ``step`` and later steps."""
    kept = [record for record in _read_records(path) if record["step"] < step]
    with atomic_writer(path) as out:
        out.writelines(json.dumps(record) + "\n" for record in kept)


def require_wandb_key(tracking: TrackingConfig) -> None:
    """Fail before any work where Weights & Biases is wanted online and no key is known.

    Raises:
        TrackingError: ``wandb_key``.
    """
    if tracking.wandb_mode != "online":
        return
    try:
        has_key = wandb.login(prompt=False)
    except wandb.errors.AuthenticationError:
        has_key = True  # refused, or the service is down: the start of the tracking will tell
    if not has_key:
        raise TrackingError("wandb_key", _KEY_NEEDED)


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
            reinit="create_new",  # one process may track several stages
        )
    except (wandb.errors.AuthenticationError, wandb.errors.UsageError) as error:
        # A wrong key is a setting to correct, not a service that is down.
        raise TrackingError("wandb_key", f"{_KEY_NEEDED} ({error})") from error
    except _SERVICE_TROUBLE as error:
        logger.warning("Weights & Biases is out of reach (%s); metrics go to JSONL only", error)
        return None
