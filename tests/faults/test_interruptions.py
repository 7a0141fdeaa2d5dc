"""A run that is killed or told to stop at any moment: consistent files, and the same end."""

from __future__ import annotations

import contextlib
import json
import signal
import time

import numpy as np
import pytest

from tests.faults.steps import (
    EVERYTHING,
    SMALL,
    states,
    status,
)


def killed(job, here, wait_until, seconds):
    """Kill a job some time after it took a step of its own; whether it was alive then."""
    before = states(here)
    wait_until(lambda: states(here) - before or not job.process.is_alive())
    time.sleep(seconds)
    alive = job.process.is_alive()
    if alive:
        job.send(signal.SIGKILL)
    job.wait()
    for folder in here("*"):
        assert folder.name in ("in-progress", ".lock", ".resume"), job.said
    return alive


def survived(begun, here, wait_until, told, whole, delays, at_start=()):
    rng = np.random.default_rng(0)
    expected = whole()
    for seconds in delays:
        workers = f"runtime.num_workers={rng.integers(2)}"
        assert killed(begun(*EVERYTHING, workers), here, wait_until, seconds)
    for seconds in at_start:
        job = begun(*EVERYTHING)
        time.sleep(seconds)
        job.send(signal.SIGKILL)
        assert job.wait() == -signal.SIGKILL, job.said
    last = begun(*EVERYTHING, "runtime.num_workers=1")
    assert last.wait() == 0, last.said
    assert "resumed after step" in last.said
    (metrics,) = here("*/metrics.json")
    assert told(metrics.parent) == expected
    resumed = json.loads(metrics.read_text())["resumed"]
    assert resumed["step"] >= len(delays) // 2  # a state may be that of an epoch judged, no step
    assert (resumed["forced"], resumed["other_code"]) == (False, False)
    assert not here("in-progress")
    assert not here(".resume")


@pytest.mark.fault(1, 2, 5, 6)
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_fourteen_times_it_ends_as_if_nothing_had_been(begun, here, wait_until, told, whole):
    delays = [0.0, 0.02, 0.05, *np.random.default_rng(7).uniform(0, 0.06, 7)]
    survived(begun, here, wait_until, told, whole, delays, (0.05, 0.3, 0.6, 0.9))


@pytest.mark.fault(3, 5)
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.slow)]
)
def test_asked_to_stop_it_saves_and_the_same_command_goes_on(begun, here, told, whole, number):
    job = begun(*EVERYTHING, "runtime.save_every=null")  # only the signal saves within an epoch
    job.until(lambda: states(here))
    job.send(number)
    assert job.wait(20) == 75, job.said
    assert status(here)["state"] == "preempted"
    assert "runtime.run_id=r" in job.line
    assert "stopping after this step" in job.said
    last = begun(*EVERYTHING)
    assert last.wait() == 0, last.said
    (metrics,) = here("*/metrics.json")
    assert told(metrics.parent) == whole()


@pytest.mark.fault(4)
@pytest.mark.slow
def test_asked_twice_it_ends_at_once_and_can_still_go_on(begun, here, told, whole):
    """The first notice is seen and the step not yet over when the second comes."""
    job = begun(*EVERYTHING, "task.epochs=6")
    job.until(lambda: states(here))
    for _ in range(2):
        job.send(signal.SIGTERM)
        time.sleep(0.001)
    assert job.wait(20) in (-signal.SIGTERM, 75), job.said
    last = begun(*EVERYTHING)
    assert last.wait() == 0, last.said
    (metrics,) = here("*/metrics.json")
    assert told(metrics.parent) == whole()


@pytest.mark.fault(3)
def test_sigterm_is_preempted_and_resumable(started, tmp_path):
    usual = ("runtime.run_id=r", f"runtime.cache_root={tmp_path / 'cache'}")
    job = started(*usual)
    job.until(lambda: list(tmp_path.glob("outputs/r/*/in-progress/status.json")))
    job.send(signal.SIGTERM)
    assert job.wait() == 75, job.said
    assert "runtime.run_id" in job.line
    (status,) = tmp_path.glob("outputs/r/*/in-progress/status.json")
    assert json.loads(status.read_text())["state"] == "preempted"
    assert started(*usual).wait() == 0
    assert not list(tmp_path.glob("outputs/r/*/in-progress"))


MOMENTS = (  # what has just been written when the process dies
    "cache/features/*/*.safetensors",
    "outputs/r/*/*/status.json",
    "outputs/r/*/*/env_stamp.json",
    "outputs/r/*/*/predictions.parquet",
    "outputs/r/*/*/ckpt.bin",
    "outputs/r/*/*/artifacts.json",
)


def written(root, moment):
    found = {}
    for path in root.glob(moment):
        with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
            found[path] = path.stat().st_mtime_ns
    return found.items()


@pytest.mark.fault(2)
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sigkill_at_any_moment_leaves_nothing_that_looks_complete(started, wait_until, tmp_path):
    """Killed at several moments, then run to the end: the bytes of an undisturbed run."""
    usual = (*SMALL, "runtime.run_id=r", f"runtime.cache_root={tmp_path / 'cache'}")
    codes = []
    for moment in MOMENTS:
        before = written(tmp_path, moment)
        job = started(*usual)
        wait_until(lambda j=job, m=moment, b=before: written(tmp_path, m) - b or j.ended)
        job.process.kill()
        codes.append(job.wait())
        for folder in tmp_path.glob("outputs/r/*/*"):
            assert folder.name in ("in-progress", ".lock") or (folder / "metrics.json").is_file()
    # a machine that looks away for a second sees a later moment, or the end
    assert codes[:2] == [-signal.SIGKILL] * 2
    assert set(codes) <= {-signal.SIGKILL, 0}
    last = started(*usual)
    assert last.wait() == 0, last.said
    (folder,) = (p.parent for p in tmp_path.glob("outputs/r/*/*/metrics.json"))
    other = started(
        *usual, *(f"runtime.{name}_root={tmp_path / 'other'}" for name in ("cache", "output"))
    )
    assert other.wait() == 0, other.said
    (undisturbed,) = (p.parent for p in tmp_path.glob("other/r/*/*/metrics.json"))
    for name in ("predictions.parquet", "ckpt.bin"):
        assert (folder / name).read_bytes() == (undisturbed / name).read_bytes()
