import os
import signal
from types import SimpleNamespace

import pytest

from actors.actor_pool import PoolError
from lmrrg.config.loading import load_config
from lmrrg.ppo.errors import PPOError
from rl import recovery
from rl.recovery import Preempted, Restarts, full_disk_named, preemption_notice
from rl.trainer import CQRL, CQRLConfig

LOST, FAILED = (
    PoolError("actors_lost", "policy: 1 of 2 actors died"),
    PoolError("actor_error", "rewards: bad input"),
)


def test_losses_without_progress_are_bounded():
    restarts = Restarts(2)
    restarts.lose(LOST, 10)
    restarts.lose(LOST, 10)
    with pytest.raises(PoolError, match="actors died"):
        restarts.lose(LOST, 10)


def test_a_new_state_between_two_losses_starts_the_count_again():
    restarts = Restarts(1)
    for reached in (10, 20, 30):
        restarts.lose(LOST, reached)
    assert restarts.total == 3


def test_an_error_of_the_work_itself_is_not_tried_again():
    with pytest.raises(PoolError, match="bad input"):
        Restarts(3).lose(FAILED, 0)


def test_the_time_of_a_recovery_is_told_once():
    restarts = Restarts(1)
    assert restarts.recovered() == 0
    restarts.lose(LOST, 0)
    assert restarts.recovered() > 0
    assert restarts.recovered() == 0


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_is_a_notice_inside_and_what_it_was_outside(number, exit_code):
    before = signal.getsignal(number)
    with preemption_notice() as preempted:
        assert not preempted()
        os.kill(os.getpid(), number)
        assert preempted()
        assert preempted.exit_code == exit_code
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_stops_at_once():
    with preemption_notice():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("free", "error", "full"),
    [
        (0, RuntimeError("basic_ios::clear: iostream error"), True),
        (1 << 40, OSError(28, "No space left on device"), True),
        (1 << 40, RuntimeError("something else"), False),
        (0, PPOError("parity_broken", "a check of the training"), False),
        (0, Preempted("on notice"), False),
    ],
)
def test_a_full_disk_is_told_apart_from_other_failures(tmp_path, monkeypatch, free, error, full):
    monkeypatch.setattr(recovery.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(PPOError if full else type(error)) as raised, full_disk_named(tmp_path):
        raise error
    assert (raised.value is error) is not full
    assert not full or (raised.value.code == "disk_full" and raised.value.__cause__ is error)


def test_a_sampling_temperature_that_the_log_probs_do_not_know_is_refused(tmp_path):
    with pytest.raises(PPOError, match="sampling_temperature"):
        CQRL(CQRLConfig.of(load_config(None, ["rollout.temperature=0.5"]), tmp_path))
