import os
import signal

import pytest

from actors.supervision import PoolError
from rl.recovery import Restarts, preemption_notice

LOST, FAILED = PoolError("actors_lost", "policy: 1 of 2 actors died"), PoolError("actor_error", "rewards: bad input")


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


def test_sigterm_is_a_notice_inside_and_what_it_was_outside():
    before = signal.getsignal(signal.SIGTERM)
    with preemption_notice() as preempted:
        assert not preempted()
        os.kill(os.getpid(), signal.SIGTERM)
        assert preempted()
    assert signal.getsignal(signal.SIGTERM) is before
