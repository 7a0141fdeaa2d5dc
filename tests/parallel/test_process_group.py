"""The ranks of a process group: when they start, what ends them, and how long they wait."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import weakref
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from fgvc.parallel import process_group, rank_monitor
from fgvc.parallel.process_group import SINGLE_PROCESS, join_group
from fgvc.types import UserError

WORK = '''
import os, signal
from types import SimpleNamespace

class Work:
    """On each request, a rank sends its process id to rank 0, then waits, fails or dies."""
    conf = SimpleNamespace(runtime=SimpleNamespace(device="cpu"))

    def follow(self, group):
        while (request := group.request()) is not None:
            group.barrier()
            group.gather((os.getpid(), os.environ["LOCAL_RANK"]))
            if request == "wait":
                time.sleep(0.005)
            if request == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if request == "raise":
                raise RuntimeError("an error of its own")
'''


@pytest.fixture
def work(rank_module) -> Any:
    return rank_module("rank_work", WORK)


def has_ended(pid: int) -> bool:
    """Whether the process has ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def ask(group: process_group.ProcessGroup, request: str) -> list[tuple[int, str]]:
    """Process id and LOCAL_RANK of every other rank."""
    group.request(request)
    group.barrier()
    return group.gather(None)[1:]


@pytest.mark.slow
def test_ranks_start_with_the_first_request_serve_all_requests_and_end(work, monkeypatch):
    environment = dict(os.environ)
    with join_group(3, lazy=True) as group:
        assert (group.rank, group.size, group.local_size) == (0, 3, 3)
        assert group.launch == "runtime.nproc=3"
        assert group.requests is None
        assert dict(os.environ) == environment
        group.request(work.Work())
        first = ask(group, "pid")
        assert [rank for _, rank in first] == ["1", "2"]
        assert ask(group, "pid") == first
        assert not any(has_ended(pid) for pid, _ in first)
        torch_group = weakref.ref(group.requests)
        group.request(None)
    assert torch_group() is None  # a forked process must not collect it
    assert all(has_ended(pid) for pid, _ in first)
    assert dict(os.environ) == environment


@pytest.mark.slow
def test_ranks_connect_to_rank_0_also_in_a_process_of_torchrun(work, monkeypatch):
    """`torchrun --nproc-per-node 1` and `runtime.nproc=2`: the store is not that of torchrun."""
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    with join_group(2) as group:
        group.request(work.Work())
        assert len(ask(group, "pid")) == 1
        group.request(None)
    assert os.environ["TORCHELASTIC_USE_AGENT_STORE"] == "True"


def test_ranks_that_no_request_needs_do_not_start(monkeypatch):
    monkeypatch.setattr(process_group, "_start_rank", None)
    with join_group(2, lazy=True) as group:
        assert group.size == 2
    assert SINGLE_PROCESS.request("job") == "job"


@pytest.mark.slow
def test_ranks_may_wait_longer_for_a_request_than_for_other_calls(work, monkeypatch):
    """Rank 0 may fit a head for hours between two requests."""
    groups: list[Any] = []
    broadcast = dist.broadcast_object_list

    def record(values: list[Any], src: int, group: Any = None) -> None:
        groups.append(group)
        broadcast(values, src, group=group)

    monkeypatch.setattr(dist, "broadcast_object_list", record)
    with join_group(2) as group:
        group.request(work.Work())
        group.request(None)
        (requests,) = set(groups)
        cpu = torch.device("cpu")
        assert requests._get_backend(cpu).options._timeout.days >= 7
        assert dist.distributed_c10d._get_default_group()._get_backend(
            cpu
        ).options._timeout == timedelta(hours=1)


@pytest.mark.fault(40)
def test_a_lost_rank_is_named_with_its_exit_code_and_ends_the_others(work):
    ranks: list[tuple[int, str]] = []

    def job() -> None:
        with join_group(3) as group:
            assert group.watchdog is not None
            group.watchdog.is_training = False
            group.request(work.Work())
            ranks.extend(ask(group, "kill"))
            group.barrier()

    with pytest.raises(
        UserError, match="rank [12] of ranks 0 to 2 ended with exit code -9"
    ) as caught:
        job()
    assert "if memory ran out, set a smaller runtime.nproc" in str(caught.value)
    assert len(ranks) == 2
    assert all(has_ended(pid) for pid, _ in ranks)


@pytest.mark.fault(40)
@pytest.mark.slow
def test_rank_0_learns_of_a_lost_rank_while_it_computes(work, wait_until):
    def job() -> None:
        with join_group(2) as group:
            group.check()
            group.request(work.Work())
            ask(group, "raise")
            wait_until(lambda: group.monitor is not None and group.monitor.lost)
            group.check()

    with pytest.raises(UserError, match="rank 1 of ranks 0 to 1 ended with exit code 1"):
        job()


@pytest.mark.fault(3, 40)
@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_an_error_or_a_signal_in_rank_0_ends_the_other_ranks_at_once(work, monkeypatch, error):
    """Even while they compute: no grace period is needed."""
    monkeypatch.setattr(rank_monitor, "GRACE", 1e6)
    ranks: list[tuple[int, str]] = []

    def job() -> None:
        with join_group(2) as group:
            group.request(work.Work())
            ranks.extend(ask(group, "wait"))
            raise error

    with pytest.raises(error):
        job()
    assert len(ranks) == 1
    assert all(has_ended(pid) for pid, _ in ranks)


class Stop(BaseException):
    """Raised by a signal handler."""


@pytest.mark.fault(3, 45)
@pytest.mark.slow
def test_a_signal_is_answered_while_rank_0_waits_for_the_others(work, monkeypatch):
    ranks: list[tuple[int, str]] = []

    def stop(number: int, frame: object) -> None:
        raise Stop

    def job() -> None:
        with join_group(2, grace=1e6) as group:
            group.request(work.Work())
            ranks.extend(ask(group, "wait"))
            # within the wait
            monkeypatch.setattr(process_group, "time", Clock())
            group.barrier()

    class Clock:
        monotonic = staticmethod(time.monotonic)

        def sleep(self, seconds: float) -> None:
            if seconds == process_group.POLL:
                os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(seconds)

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(Stop):
            job()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(ranks) == 1
    assert all(has_ended(pid) for pid, _ in ranks)


@pytest.mark.fault(3, 40)
@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_no_rank_outlives_rank_0_nor_ends_before_it(work, tmp_path, wait_until, number):
    """Only rank 0 responds to a signal to the whole group."""

    def job() -> None:
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, lambda *_: (tmp_path / "signalled").touch())
        with join_group(2, grace=1e6) as group:
            group.request(work.Work())
            ((pid, _),) = ask(group, "pid")
            (tmp_path / f"rank.{pid}").touch()
            while number == signal.SIGKILL or not (tmp_path / "signalled").exists():
                time.sleep(0.005)
            assert ask(group, "pid") == [(pid, "1")]
            group.request(None)

    process = multiprocessing.get_context("fork").Process(target=job)
    process.start()
    wait_until(lambda: list(tmp_path.glob("rank.*")))
    pid = int(next(tmp_path.glob("rank.*")).suffix[1:])
    assert process.pid is not None
    if number == signal.SIGKILL:
        os.kill(process.pid, number)
    else:
        os.killpg(process.pid, number)
    process.join()
    assert process.exitcode == (0 if number == signal.SIGTERM else -number)
    wait_until(lambda: has_ended(pid))


def test_more_ranks_than_gpus_are_refused_before_any_starts(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(process_group, "_start_rank", None)
    group = join_group(2, "cuda", lazy=True)
    with pytest.raises(UserError, match="runtime.device=cuda: 2 processes on 1 GPU"):
        group.__enter__()


def test_torchrun_and_another_number_of_ranks_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    group = join_group(3)
    with pytest.raises(UserError, match="runtime.nproc=3: torchrun started 2 already"):
        group.__enter__()
