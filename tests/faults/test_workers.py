"""Child processes of fgvc: signals that arrive before the handlers are installed, and deaths.

Each new process waits, at a moment of its birth that the test chooses, for the test to let it
continue: no test depends on time. Meanwhile the test sends it every notice that a cluster may send.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing.forkserver import _forkserver
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.data._utils as data_utils

from fgvc import run as entry
from fgvc.config.compose import composed
from fgvc.config.schema import Generator
from fgvc.data import loader, manifest
from fgvc.data.datasets import dogs
from fgvc.data.datasets.synthetic import folder as synthetic
from fgvc.data.preprocess import Preprocess
from fgvc.exit_codes import DONE, FAILED, PREEMPTED
from fgvc.launch import job_process
from fgvc.parallel import process_group, rank_monitor, signals
from fgvc.parallel.watchdog import Watchdog
from fgvc.types import Manifest
from tests.jobs import import_path

PREPROCESS = Preprocess("shared", 32, "imagenet", "vit")
CONNECT = """
import os, socket
with socket.socket(socket.AF_UNIX) as gate:
    gate.connect({place!r})
    gate.sendall(str(os.getpid()).encode() + b"\\n")
    gate.recv(1)
"""


class Gate:
    """Makes new processes wait; calls `at_birth(pid)` for each, then lets it continue."""

    def __init__(self, place: str, at_birth: Callable[[int], object]) -> None:
        self.place, self.at_birth, self.pids = place, at_birth, []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(place)
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def code(self) -> str:
        """Code by which a process waits here."""
        return CONNECT.format(place=self.place)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                waiting, _ = self._listener.accept()
                with waiting:
                    pid = int(waiting.makefile().readline())
                    self.pids.append(pid)
                    self.at_birth(pid)
                    waiting.sendall(b".")  # not its end: another child may hold a copy of this one

    def close(self) -> None:
        self._listener.close()


def send_all(pid: int) -> None:
    for notice in signals.STOP_SIGNALS:
        os.kill(pid, notice)


@pytest.fixture
def gate(tmp_path, monkeypatch) -> Iterator[Callable[..., Gate]]:
    """`gate(only)`: a new Python with `only` in its command line waits before its first line.

    If `only` is None, forked processes wait right after the fork.
    """
    gates: list[Gate] = []

    def make(only: str | None, at_birth: Callable[[int], object] = send_all) -> Gate:
        gates.append(Gate(str(tmp_path / f"gate{len(gates)}"), at_birth))
        if only is None:
            monkeypatch.setattr(sys.modules[__name__], "_in_child", gates[-1].code)
        else:
            (tmp_path / "sitecustomize.py").write_text(
                f"import sys\nif {only!r} in ' '.join(sys.orig_argv):\n"
                f"    exec({gates[-1].code!r})\n"
            )
            path = import_path(tmp_path)
            monkeypatch.setenv("PYTHONPATH", path)
        return gates[-1]

    yield make
    for open_gate in gates:
        open_gate.close()


_in_child = ""  # code that a forked process runs first
os.register_at_fork(after_in_child=lambda: exec(_in_child))


@pytest.fixture
def table(copies, tmp_path) -> Manifest:
    return manifest.build(dogs.read(copies.dogs(), False), tmp_path / "cache")


def assert_read_whole(table: Manifest, workers: int) -> None:
    rows = np.arange(len(table))
    alone = loader.batches(table, rows, PREPROCESS, 4, 0)
    read = loader.batches(table, rows, PREPROCESS, 4, workers)
    for batch, expected in zip(read, alone, strict=True):
        assert torch.equal(batch.pixels_BCHW, expected.pixels_BCHW)


@pytest.mark.fault(3, 33)
def test_a_loader_worker_that_is_just_forked_survives_every_signal(table, gate):
    waiting = gate(None)
    assert_read_whole(table, 2)
    assert len(waiting.pids) == 2


@pytest.mark.fault(3, 33)
@pytest.mark.slow
def test_a_loader_worker_that_is_just_spawned_survives_every_signal(table, gate):
    """As on macOS: a new Python, whose imports take seconds."""
    waiting, before = gate("spawn_main"), multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    try:
        assert_read_whole(table, 1)
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert len(waiting.pids) == 1


class Stop(BaseException):
    """Raised by the signal handler in the main process."""


@pytest.mark.fault(3, 33)
def test_a_worker_that_hangs_at_its_birth_does_not_outlive_its_loader(table, gate, monkeypatch):
    monkeypatch.setattr(data_utils, "MP_STATUS_CHECK_INTERVAL", 0.1)
    never, main = threading.Event(), os.getpid()

    def stop(number: int, frame: object) -> None:
        raise Stop

    def at_birth(pid: int) -> None:
        os.kill(main, signal.SIGUSR1)
        never.wait()

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        waiting = gate(None, at_birth)
        with pytest.raises(Stop):
            next(loader.batches(table, np.arange(4), PREPROCESS, 4, 1))
        (pid,) = waiting.pids
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    finally:
        signal.signal(signal.SIGUSR1, before)
        never.set()


@pytest.mark.fault(3)
def test_a_signal_that_arrives_while_workers_start_is_delivered(table):
    """This process answers it once, and no worker that it starts meanwhile is lost."""
    received = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        with signals.blocked():
            os.kill(os.getpid(), signal.SIGTERM)
            assert_read_whole(table, 1)
        assert received == [signal.SIGTERM]
        with signals.blocked(tracked=True):  # where the resource tracker is started, too
            assert set(signals.STOP_SIGNALS) <= signal.pthread_sigmask(signal.SIG_BLOCK, ())
        assert not set(signals.STOP_SIGNALS) & signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.fault(3, 40)
@pytest.mark.slow
def test_a_rank_that_is_just_started_survives_every_signal(gate, monkeypatch):
    monkeypatch.setattr(rank_monitor, "GRACE", 0.0)
    waiting = gate("fgvc.launch.ddp_worker")
    with process_group._start_ranks(2, Watchdog(1.0)):  # once rank 1 has started
        assert len(waiting.pids) == 1


@pytest.mark.fault(3)
def test_a_process_that_draws_birds_survives_every_signal(gate, tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "MIN_POOL_IMAGES", 4)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    generator = Generator(1, 2, 2, 1, 64, 0)
    waiting = gate("spawn_main")
    assert synthetic.write(tmp_path / "birds", generator).is_dir()
    assert waiting.pids


EARLY = """
import os, sys
class Notice:
    def find_spec(self, name, path=None, target=None):
        if name == "hydra":
            os.kill(os.getpid(), {number})
sys.meta_path.insert(0, Notice())
"""


@pytest.mark.fault(3)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_fgvc_is_imported_ends_resumably(tmp_path, number):
    (tmp_path / "sitecustomize.py").write_text(EARLY.format(number=int(number)))
    path = import_path(tmp_path)
    command = [sys.executable, "-m", "fgvc.run", "--help"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True)
    assert (done.returncode, done.stderr) == (PREEMPTED, b"")


@pytest.mark.fault(3)
@pytest.mark.parametrize("number", signals.STOP_SIGNALS)
def test_a_signal_while_a_command_is_composed_ends_resumably(monkeypatch, number):
    def composing(arguments: object, started: float) -> int:
        os.kill(os.getpid(), number)
        return FAILED

    monkeypatch.setattr(entry, "main", composing)
    before = {each: signal.getsignal(each) for each in signals.STOP_SIGNALS}
    for each in signals.STOP_SIGNALS:
        signal.signal(each, lambda number, frame: None)
    try:
        with pytest.raises(SystemExit) as end:
            entry.script()
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert end.value.code == PREEMPTED


AT_EXIT = """
import atexit, os
atexit.register(lambda: os.kill(os.getpid(), {number}))
"""


@pytest.mark.fault(3)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_end_changes_no_exit_code(tmp_path, number):
    """During the shutdown of Python, which can take a second."""
    (tmp_path / "sitecustomize.py").write_text(AT_EXIT.format(number=int(number)))
    path = import_path(tmp_path)
    command = [sys.executable, "-m", "fgvc.run", "--version"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True)
    assert (done.returncode, done.stderr) == (DONE, b"")


@pytest.mark.fault(3)
def test_a_sweep_receives_the_signals_that_were_blocked_at_its_start():
    """Like a sweep started by a fork server, which keeps them blocked."""
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        with signals.blocked():
            # to this thread: another one, without a block, would take it at once
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
            with job_process.forward_signals():
                assert job_process.stop_signals() == 1
    finally:
        signal.signal(signal.SIGUSR1, before)


class Waits:
    """An argument of a job: its new process waits at the gate when it reads it."""

    def __init__(self, gate: Gate) -> None:
        self.code = gate.code

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (self.code,)


@pytest.mark.fault(3, 18)
@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="jobs are forked from a server")
def test_neither_a_sweep_server_nor_a_starting_job_loses_a_signal(gate, monkeypatch):
    """The server outlives it, as it starts the other jobs; the job stops, resumably."""
    monkeypatch.setattr(
        job_process, "_stop_signals", 0
    )  # a sweep of an earlier test may have been stopped
    cfg = composed(["task=audit", "run=/nowhere"])
    _forkserver._stop()  # pyright: ignore[reportAttributeAccessIssue]
    server = gate("forkserver")
    ended = job_process.run_in_process(cfg, [], "python -m fgvc.run task=audit run=/nowhere")
    assert len(server.pids) == 1
    assert (ended.code, ended.state) == (FAILED, "failed")
    assert (ended.line or "").startswith("run=/nowhere")
    job = gate(None, lambda pid: os.kill(pid, signal.SIGTERM))
    waits: list[Any] = [Waits(job)]
    ended = job_process.run_in_process(cfg, waits, "python -m fgvc.run task=audit run=/nowhere")
    assert len(job.pids) == 1
    assert (ended.code, ended.state) == (PREEMPTED, "preempted")
