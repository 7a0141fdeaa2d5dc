"""A signal to stop during a training."""

from __future__ import annotations

import array
import fcntl
import os
import signal
import subprocess
import sys
import termios

import pytest

from tests.jobs import HANG

PROGRAM = """
import logging, sys
from fgvc.pipeline.training_log import stop_after_step
from fgvc.types import Preempted
logging.basicConfig(level="INFO", stream=sys.stderr, format="%(message)s")
try:
    with stop_after_step() as should_stop:
        while not should_stop():
            print("." * 80)
        raise Preempted("as a training does")
except Preempted:
    pass
"""


@pytest.mark.slow
def test_a_signal_that_interrupts_a_print_stops_after_the_step(wait_until):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out_pipe = process.stdout
    assert out_pipe is not None
    unread = array.array("i", [0])

    def is_full() -> bool:  # thus the program waits in a print
        before = unread[0]
        fcntl.ioctl(out_pipe, termios.FIONREAD, unread)
        return unread[0] == before > 0

    wait_until(is_full)
    os.kill(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=HANG)
    assert process.returncode == 0, err
    assert b"SIGTERM: stopping after this step or validation\n" in out
    assert err == b"SIGTERM: stopping after this step or validation\n"
