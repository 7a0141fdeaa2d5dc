"""Runs on folders with pipes, sockets and devices."""

from __future__ import annotations

import os

import pytest

from tests.faults.steps import (
    folder_run,
)


@pytest.mark.fault(52)
def test_a_pipe_among_the_images_is_skipped_without_waiting(run, pictures):
    os.mkfifo(pictures / "train" / "a=b, c" / "pipe.jpg")
    ran = folder_run(run, pictures)
    assert ran.code == 0, ran.err
    assert "1 FIFO, socket or device" in ran.out
