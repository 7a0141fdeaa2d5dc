"""When the watchdog abandons a wait for other ranks; the tests set the clock."""

import signal

import pytest

from fgvc.exit_codes import PREEMPTED
from fgvc.parallel.watchdog import FACTOR, Watchdog

GRACE = 20.0


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def watchdog(clock):
    return Watchdog(GRACE, clock)


def test_without_a_signal_a_wait_may_last(watchdog, clock):
    with watchdog.waiting():
        clock.advance(1e6)
        assert watchdog.overdue() is None


@pytest.mark.fault(45)
def test_after_a_signal_a_wait_ends_when_the_grace_is_over(watchdog, clock):
    with watchdog.waiting():
        clock.advance(500.0)
        watchdog.record_signal(signal.SIGTERM)
        clock.advance(GRACE)
        assert watchdog.overdue() is None
        clock.advance(1.0)
        assert watchdog.overdue() == "SIGTERM: no answer from the other ranks for 21 s"
    assert watchdog.overdue() is None


def test_a_slow_step_is_not_cut_short_if_earlier_steps_were_as_slow(watchdog, clock):
    with watchdog.waiting():
        clock.advance(60.0)
    with watchdog.waiting():
        watchdog.record_signal(signal.SIGUSR1)
        clock.advance(FACTOR * 60.0)
        assert watchdog.overdue() is None
        clock.advance(1.0)
        assert "SIGUSR1: no answer" in watchdog.overdue()


def test_an_untypical_wait_does_not_extend_later_waits(watchdog, clock):
    with watchdog.waiting(typical=False):
        clock.advance(600.0)
    with watchdog.waiting():
        watchdog.record_signal(signal.SIGTERM)
        clock.advance(GRACE + 1)
        assert watchdog.overdue() is not None


def test_progress_within_a_step_and_work_of_this_rank_alone_are_no_waits(watchdog, clock):
    """A signal during a long validation, or while this rank saves a state, ends neither."""
    watchdog.record_signal(signal.SIGTERM)
    clock.advance(1e4)
    assert watchdog.overdue() is None
    with watchdog.waiting():
        for _ in range(10):
            clock.advance(GRACE - 1)
            assert watchdog.overdue() is None
            watchdog.mark()


@pytest.mark.fault(4)
@pytest.mark.parametrize(("slurm", "ends"), [(False, True), (True, False)])
def test_a_second_signal_ends_a_wait_at_once_except_under_slurm(watchdog, monkeypatch, slurm, ends):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    if slurm:
        monkeypatch.setenv("SLURM_JOB_ID", "7")
    with watchdog.waiting():
        for _ in range(2):
            watchdog.record_signal(signal.SIGTERM)
        assert (watchdog.overdue() == "SIGTERM came twice") is ends


def test_other_signals_are_ignored(watchdog, clock):
    with watchdog.waiting():
        watchdog.record_signal(signal.SIGCHLD)
        clock.advance(1e6)
        assert watchdog.overdue() is None


def test_a_signal_to_a_forked_child_is_not_recorded_in_the_parent(
    watchdog, forked, ended, wait_until
):
    """Loader processes receive separate signals when they are stopped."""
    numbers = (signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    try:
        with watchdog.watching():
            assert ended(forked(lambda: signal.raise_signal(signal.SIGTERM))) == 0
            signal.raise_signal(signal.SIGUSR1)
            wait_until(lambda: watchdog._signals)
            assert [number for number, _ in watchdog._signals] == [signal.SIGUSR1]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize(
    ("saved", "is_training", "message"),
    [
        (
            None,
            True,
            "the same command with this runtime.run_id resumes from the last state, if any",
        ),
        (False, True, "no state was saved yet: the same command starts from the first step"),
        (True, True, "the same command with this runtime.run_id resumes from the last state"),
        (
            None,
            False,
            "finished shards are kept, and the same command computes the others; if memory ran "
            "out, set a smaller runtime.nproc",
        ),
    ],
)
def test_the_last_line_reports_what_was_saved(
    watchdog, forked, ended, capfd, saved, is_training, message
):
    watchdog.state_saved, watchdog.is_training = saved, is_training

    def stopped_twice():
        signal.signal(signal.SIGTERM, lambda *_: None)
        with watchdog.watching(), watchdog.waiting():
            watchdog.record_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            signal.pause()

    assert ended(forked(stopped_twice)) == PREEMPTED
    assert capfd.readouterr().err == f"fgvc: SIGTERM came twice; {message}\n"
