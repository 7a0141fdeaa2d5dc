"""How a process responds to signals to stop: each test sends real signals to a real process.

A program prints `ready` and waits for a line. A signal that is sent before this line is delivered
before the program continues.
"""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fgvc
from fgvc.exit_codes import PREEMPTED
from fgvc.parallel.signals import CLUSTER_SIGNALS, STOP_SIGNALS
from tests.jobs import HANG

INT, TERM, USR1 = signal.SIGINT, signal.SIGTERM, signal.SIGUSR1
PREAMBLE = """
import os, signal, subprocess, sys, threading
from fgvc.parallel import signals

def say(*words):  # at once; print() fails if a handler interrupts a print()
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def wait():
    say("ready")
    sys.stdin.readline()

def name(number):
    return signal.Signals(number).name
"""
SETTERS = {
    *("signal", "set_wakeup_fd", "pthread_sigmask", "siginterrupt", "sigwait", "sigwaitinfo"),
    *("sigtimedwait", "setitimer", "alarm", "add_signal_handler"),
}


class Program:
    """A running program of this test."""

    def __init__(self, code: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def send(self, *numbers: int) -> None:
        """Send these signals where the program waits, one after another, and let it continue."""
        assert self.read() == "ready"
        for number in numbers:
            self.process.send_signal(number)
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        try:
            self.process.stdin.flush()
        except BrokenPipeError:  # a signal has ended it
            assert numbers

    def wait(self) -> int:
        return self.process.wait(HANG)


@pytest.fixture
def start(monkeypatch) -> Iterator[Callable[..., Program]]:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    programs: list[Program] = []

    def start(code: str, **environment: str) -> Program:
        programs.append(Program(code, **environment))
        return programs[-1]

    yield start
    for program in programs:
        program.process.kill()
        program.process.communicate()


def test_no_other_module_sets_a_handler_a_mask_or_a_wakeup_descriptor():
    folder = Path(fgvc.__file__).parent
    users = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in SETTERS:
                if isinstance(node.value, ast.Name) and node.value.id == "signals":
                    continue
                users.add(path.relative_to(folder).as_posix())
            if isinstance(node, ast.ImportFrom) and node.module == "signal":
                users |= {path.as_posix() for alias in node.names if alias.name in SETTERS}
    assert users == {"parallel/signals.py"}


# --- until the end of the process ---


def test_ignored_signals_do_not_end_a_process(start):
    program = start("signals.ignore(); wait(); say('alive')")
    program.send(*STOP_SIGNALS)
    assert (program.read(), program.wait()) == ("alive", 0)


def test_only_the_given_signals_are_ignored(start):
    program = start("signals.ignore([signal.SIGINT]); wait(); wait()")
    program.send(INT)
    program.send(TERM)
    assert program.wait() == -TERM


def test_the_second_sigterm_ends_a_process_that_ignores_the_first(start):
    program = start("signals.ignore_first_sigterm(); wait(); wait(); wait()")
    program.send(*STOP_SIGNALS)
    program.send(INT, USR1)
    program.send(TERM)
    assert program.wait() == -TERM


PAUSES = """
signal.signal(signal.SIGUSR1, lambda *_: say("handled"))
read = os.read

def read_after_signal(*arguments):
    thread = threading.Thread(target=lambda: signal.raise_signal(signal.SIGUSR1))
    {arrival}
    return read(*arguments)

os.read = read_after_signal
signals.pause()
say("over")
"""


@pytest.mark.parametrize("arrival", ["thread.run()", "thread.start(); thread.join()"])
def test_a_pause_ends_on_a_signal_just_before_it_or_in_another_thread(start, arrival):
    program = start(PAUSES.format(arrival=arrival))
    assert (program.read(), program.read(), program.wait()) == ("handled", "over", 0)


@pytest.mark.parametrize("number", STOP_SIGNALS)
@pytest.mark.parametrize(
    ("setting", "code"),
    [("exit_on_signal()", PREEMPTED), ("exit_on_signal(4)", 4), ("default()", None)],
)
def test_a_signal_ends_a_process_at_once(start, setting, code, number):
    program = start(f"signals.{setting}; wait(); signal.pause()")
    program.send(number)
    assert program.wait() == (-number if code is None else code)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_every_signal_raises_keyboard_interrupt(start, number):
    program = start(
        "signals.raise_keyboard_interrupt()\n"
        "try:\n    wait(); signal.pause()\n"
        "except KeyboardInterrupt:\n    say('interrupted')\n"
    )
    program.send(number)
    assert (program.read(), program.wait()) == ("interrupted", 0)


@pytest.mark.parametrize("setting", ["exit_on_signal", "raise_keyboard_interrupt", "default"])
def test_a_signal_that_the_shell_ignores_stays_ignored(start, setting):
    with_signal = "signal.signal(signal.SIGINT, signal.SIG_IGN)"
    program = start(f"{with_signal}; signals.{setting}(); wait(); say('alive')")
    program.send(INT)
    assert (program.read(), program.wait()) == ("alive", 0)


def test_a_process_that_exits_soon_exits_after_the_time_or_at_once_on_ctrl_c(start):
    late = start("signals.exit_within(0.05)\nwhile True: signal.pause()")
    assert late.wait() == 0
    stopped = start("signals.exit_within(600); wait()\nwhile True: signal.pause()")
    stopped.send(INT)
    assert stopped.wait() == 0


# --- during a block ---


def test_a_signal_in_a_block_that_blocks_it_is_delivered_afterwards(start):
    program = start(
        "with signals.blocked():\n"
        "    wait(); say('inside')\n"
        "    code = 'import signal; print(*sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())))'\n"
        "    say(subprocess.check_output([sys.executable, '-c', code], text=True).strip())\n"
        "say('outside')\n"
    )
    program.send(TERM)
    assert program.read() == "inside"
    assert program.read() == " ".join(str(int(number)) for number in sorted(STOP_SIGNALS))
    assert program.wait() == -TERM
    assert program.read() == ""


def test_handlers_get_blocked_signals_and_forward_to_earlier_handlers_which_are_restored(start):
    program = start(
        "signals.block()\n"
        "signal.signal(signal.SIGTERM, lambda number, frame: say('before', name(number)))\n"
        "def handle(number, forward):\n"
        "    say('block', name(number))\n"
        "    forward()\n"
        "wait()\n"
        "with signals.handled(handle):\n"
        "    wait()\n"
        "wait()\n"
        "wait()\n"
    )
    program.send(TERM)
    assert [program.read(), program.read()] == ["block SIGTERM", "before SIGTERM"]
    program.send(USR1)
    assert program.read() == "block SIGUSR1"  # there was no handler before
    program.send(TERM)
    assert program.read() == "before SIGTERM"
    program.send(USR1)
    assert program.wait() == -USR1


def test_handlers_are_restored_although_the_block_raises(start):
    program = start(
        "try:\n"
        "    with signals.handled(lambda number, forward: None): raise KeyError\n"
        "except KeyError: wait()\n"
    )
    program.send(TERM)
    assert program.wait() == -TERM


def test_only_the_main_thread_handles_signals(start):
    program = start(
        "def work():\n"
        "    with signals.handled(lambda number, forward: None): say('in a thread')\n"
        "thread = threading.Thread(target=work); thread.start(); thread.join()\n"
        "wait()\n"
    )
    assert program.read() == "in a thread"
    program.send(TERM)
    assert program.wait() == -TERM


def test_a_process_started_where_a_signal_is_ignored_ignores_it_for_good(start):
    code = "import sys; print('ready', flush=True); sys.stdin.readline(); print('alive')"
    program = start(
        "with signals.ignored([signal.SIGTERM]):\n"
        f"    child = subprocess.Popen([sys.executable, '-c', {code!r}], text=True,\n"
        "        stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "    wait(); child.stdout.readline(); child.send_signal(signal.SIGTERM)\n"
        "    say(child.communicate('\\n')[0].strip())\n"
        "wait()\n"
    )
    program.send(TERM)
    assert program.read() == "alive"
    program.send(TERM)
    assert program.wait() == -TERM


RAISES = (
    "class Stop(BaseException): pass\n"
    "signals.block()\n"
    "try:\n"
    "    with signals.raise_on_signal(Stop):\n"
    "        try: wait(); signal.pause()\n"
    "        except Stop as error: say(error)\n"
    "        wait()\n"
    "        say('alive')\n"
    "        raise Stop('later')\n"
    "except Stop as error: say(error)\n"
    "wait()\n"
)


@pytest.mark.parametrize("number", CLUSTER_SIGNALS)
def test_the_first_signal_raises_and_the_second_ends_the_process(start, number):
    program = start(RAISES)
    program.send(number)
    assert program.read() == number.name
    program.send(TERM)
    assert program.wait() == -TERM


def test_under_slurm_only_the_first_signal_counts(start):
    program = start(RAISES, SLURM_JOB_ID="7")
    program.send(USR1)
    assert program.read() == "SIGUSR1"
    program.send(*CLUSTER_SIGNALS)
    assert [program.read(), program.read()] == ["alive", "later"]
    program.send(TERM)  # after the block
    assert program.wait() == -TERM


def test_a_signal_raises_also_while_python_compiles_a_module(start):
    """The compiler drops any exception but KeyboardInterrupt while it folds constants."""
    program = start(
        "from fgvc.types import Preempted\n"
        "names = []\n"
        "def error(name): names.append(name); return Preempted(name)\n"
        "wait()\n"
        "try:\n"
        "    with signals.raise_on_signal(error):\n"
        "        say('compiling')\n"
        "        while not names: compile('x = 10**30\\n' * 50_000, 'module.py', 'exec')\n"
        "    say('lost', *names)\n"
        "except Preempted as error: say(error)\n"
    )
    program.send()
    assert program.read() == "compiling"
    time.sleep(0.1)  # until it is within a compilation, most probably
    program.process.send_signal(TERM)
    assert program.read() == "SIGTERM"


REPORTS = "with signals.report_first_signal(say):\n    wait(); wait(); say('alive')\nwait()\n"


@pytest.mark.parametrize("second", STOP_SIGNALS)
def test_the_first_signal_is_reported_and_the_second_ends_the_process(start, second):
    program = start(REPORTS)
    program.send(TERM)
    assert program.read() == "SIGTERM"
    program.send(second)
    assert program.wait() == -second


def test_under_slurm_only_a_second_ctrl_c_ends_the_process(start):
    program = start(REPORTS, SLURM_JOB_ID="7")
    program.send(INT)
    assert program.read() == "SIGINT"
    program.send(*CLUSTER_SIGNALS)
    assert program.read() == "alive"
    program.send(USR1)  # after the block
    assert program.wait() == -USR1


def test_the_numbers_of_signals_are_copied_while_the_main_thread_waits_outside_python(start):
    program = start(
        "import ctypes\n"
        "read_end, write_end = os.pipe()\n"
        "gate = os.pipe()\n"
        "os.set_inheritable(gate[0], True)\n"
        "os.set_blocking(write_end, False)\n"
        "def copy():\n"
        "    say(*os.read(read_end, 1))\n"
        "    os.write(gate[1], b'.')\n"
        "signal.signal(signal.SIGUSR1, lambda *_: say('handled'))\n"
        "with signals.copied_to(write_end):\n"
        "    threading.Thread(target=copy).start()\n"
        # in system(), the main thread waits outside Python, whatever signal arrives
        "    ctypes.CDLL(None).system(f'echo ready; head -c 1 <&{gate[0]} >/dev/null'.encode())\n"
        "say(signal.set_wakeup_fd(-1))\n"
    )
    program.send(USR1)
    assert [program.read(), program.read(), program.read()] == [str(int(USR1)), "handled", "-1"]
