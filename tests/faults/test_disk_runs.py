"""Runs on a full disk and into a folder that cannot be written: one line, nothing half done."""

from __future__ import annotations

import functools
import json

import pytest

from tests.faults.steps import (
    SMALL,
    assert_one_line,
)

slow = functools.partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.fault(14)
def test_output_folder_that_cannot_be_written(run, tmp_path):
    (tmp_path / "file").write_text("in the way")
    ran = run(f"runtime.output_root={tmp_path / 'file' / 'outputs'}")
    assert_one_line(ran, str(tmp_path / "file"), "output_root")
    assert "features" not in ran.out  # before any work


@pytest.mark.fault(13)
@pytest.mark.parametrize(
    ("most", "warm", "victim"),
    [
        pytest.param(40_000, False, ".safetensors", id="features"),
        slow(7_000, True, "ckpt.bin", id="checkpoint"),
        slow(12_000, True, "samples.json", id="FiftyOne"),
        slow(80_000, True, "in-progress/tb/events", id="TensorBoard"),
    ],
)
def test_disk_full(start_job, tmp_path, most, warm, victim):
    """A file that cannot grow: the line names it and the bytes, what is there stays, exit 1."""
    usual = (*(SMALL if warm else ()), f"runtime.cache_root={tmp_path / 'cache'}")
    if warm:
        assert start_job(*usual, "runtime.run_id=before").wait() == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    job = start_job(*usual, "runtime.run_id=r", most=most)
    assert job.wait() == 1
    assert victim in job.line
    assert "bytes" in job.line
    assert "Traceback" not in job.output
    assert [path for path in tmp_path.glob("outputs/r/*/*") if path.name[0] not in ".i"] == []
    (status,) = tmp_path.glob("outputs/r/*/in-progress/status.json")
    assert json.loads(status.read_text())["state"] == "failed"
    assert all(path.read_bytes() == data for path, data in before.items())
