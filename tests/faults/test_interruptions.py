"""A run that is killed or stopped at any moment: consistent files, equal result after a resume."""

from __future__ import annotations

import contextlib
import json
import signal
import time

import numpy as np
import pytest

from fgvc.pipeline.finetune import Finetune
from tests.faults.steps import (
    EVERYTHING,
    SMALL,
    read_status,
    state_names,
)
from tests.jobs import MINI


def kill_after_step(job, run_files, wait_until, seconds):
    """Kill a job some time after one of its own steps; returns whether it was alive."""
    before = state_names(run_files)
    wait_until(lambda: state_names(run_files) - before or not job.process.is_alive())
    time.sleep(seconds)
    alive = job.process.is_alive()
    if alive:
        job.send(signal.SIGKILL)
    job.wait()
    for folder in run_files("*"):
        assert folder.name in ("in-progress", ".lock", ".resume"), job.output
    return alive


def assert_survives(
    start_finetune, run_files, wait_until, read_outcome, undisturbed_outcome, delays, at_start=()
):
    rng = np.random.default_rng(0)
    expected = undisturbed_outcome()
    for seconds in delays:
        workers = f"runtime.num_workers={rng.integers(2)}"
        assert kill_after_step(start_finetune(*EVERYTHING, workers), run_files, wait_until, seconds)
    for seconds in at_start:
        job = start_finetune(*EVERYTHING)
        time.sleep(seconds)
        job.send(signal.SIGKILL)
        assert job.wait() == -signal.SIGKILL, job.output
    last = start_finetune(*EVERYTHING, "runtime.num_workers=1")
    assert last.wait() == 0, last.output
    assert "resumed after step" in last.output
    (metrics,) = run_files("*/metrics.json")
    assert read_outcome(metrics.parent) == expected
    resumed = json.loads(metrics.read_text())["resumed"]
    assert resumed["step"] >= len(delays) // 2  # a state may be that of an epoch judged, no step
    assert (resumed["forced"], resumed["other_code"]) == (False, False)
    assert not run_files("in-progress")
    assert not run_files(".resume")


@pytest.mark.fault(1, 2, 5, 6)
@pytest.mark.slow
def test_a_finetune_killed_fourteen_times_equals_an_undisturbed_one(
    start_finetune, run_files, wait_until, read_outcome, undisturbed_outcome
):
    delays = [0.0, 0.02, 0.05, *np.random.default_rng(7).uniform(0, 0.06, 7)]
    assert_survives(
        start_finetune,
        run_files,
        wait_until,
        read_outcome,
        undisturbed_outcome,
        delays,
        (0.05, 0.3, 0.6, 0.9),
    )


@pytest.mark.fault(3, 5)
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.slow)]
)
def test_a_stop_signal_saves_a_state_and_the_same_command_resumes(
    start_finetune, run_files, read_outcome, undisturbed_outcome, number
):
    job = start_finetune(
        *EVERYTHING, "runtime.save_every=null"
    )  # only the signal saves within an epoch
    job.until(lambda: state_names(run_files))
    job.send(number)
    assert job.wait() == 75, job.output
    assert read_status(run_files)["state"] == "preempted"
    assert "runtime.run_id=r" in job.line
    assert "stopping after this step or validation" in job.output
    last = start_finetune(*EVERYTHING)
    assert last.wait() == 0, last.output
    (metrics,) = run_files("*/metrics.json")
    assert read_outcome(metrics.parent) == undisturbed_outcome()


@pytest.mark.fault(3)
def test_a_stop_signal_in_the_last_validation_stops_before_test(finetune, run_files, monkeypatch):
    options = (*SMALL, "runtime.run_id=r")
    validate = Finetune._validate

    def validate_signalled(self, log):
        if self.epoch == self.conf.task.epochs:
            signal.raise_signal(signal.SIGTERM)
        validate(self, log)

    with monkeypatch.context() as patch:
        patch.setattr(Finetune, "_validate", validate_signalled)
        stopped = finetune(*options)
    assert stopped.code == 75, stopped.err
    assert read_status(run_files)["state"] == "preempted"
    resumed, undisturbed = finetune(*options), finetune(*SMALL, "runtime.run_id=s")
    assert "resumed after step 9" in resumed.out
    predictions = [run.folder / "predictions.parquet" for run in (resumed, undisturbed)]
    assert predictions[0].read_bytes() == predictions[1].read_bytes()


@pytest.mark.fault(4)
@pytest.mark.slow
def test_a_second_signal_ends_the_job_at_once_and_it_can_still_be_resumed(
    start_finetune, run_files, read_outcome, undisturbed_outcome
):
    """The second signal arrives while the step of the first signal still runs."""
    job = start_finetune(*EVERYTHING, "task.epochs=6")
    job.until(lambda: state_names(run_files))
    for _ in range(2):
        job.send(signal.SIGTERM)
        time.sleep(0.001)
    assert job.wait() in (-signal.SIGTERM, 75), job.output
    last = start_finetune(*EVERYTHING)
    assert last.wait() == 0, last.output
    (metrics,) = run_files("*/metrics.json")
    assert read_outcome(metrics.parent) == undisturbed_outcome()


@pytest.mark.fault(3)
@pytest.mark.slow
def test_sigterm_is_preempted_and_resumable(start_job, tmp_path):
    usual = (*MINI, "runtime.run_id=r", f"runtime.cache_root={tmp_path / 'cache'}")
    job = start_job(*usual)
    job.until(lambda: list(tmp_path.glob("outputs/r/*/in-progress/status.json")))
    job.send(signal.SIGTERM)
    assert job.wait() == 75, job.output
    assert "runtime.run_id" in job.line
    (status,) = tmp_path.glob("outputs/r/*/in-progress/status.json")
    assert json.loads(status.read_text())["state"] == "preempted"
    assert start_job(*usual).wait() == 0
    assert not list(tmp_path.glob("outputs/r/*/in-progress"))


MOMENTS = (  # what has just been written when the process dies
    "cache/features/*/*.safetensors",
    "outputs/r/*/*/status.json",
    "outputs/r/*/*/env_stamp.json",
    "outputs/r/*/*/predictions.parquet",
    "outputs/r/*/*/ckpt.bin",
    "outputs/r/*/*/artifacts.json",
)


def written_files(root, moment):
    mtime_of = {}
    for path in root.glob(moment):
        with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
            mtime_of[path] = path.stat().st_mtime_ns
    return mtime_of.items()


@pytest.mark.fault(2)
@pytest.mark.slow
def test_sigkill_at_any_moment_leaves_nothing_that_looks_complete(start_job, wait_until, tmp_path):
    """Killed at several moments, then run to the end: the bytes of an undisturbed run."""
    usual = (*SMALL, "runtime.run_id=r", f"runtime.cache_root={tmp_path / 'cache'}")
    codes = []
    for moment in MOMENTS:
        before = written_files(tmp_path, moment)
        job = start_job(*usual)
        wait_until(lambda j=job, m=moment, b=before: written_files(tmp_path, m) - b or j.ended)
        job.process.kill()
        codes.append(job.wait())
        for folder in tmp_path.glob("outputs/r/*/*"):
            assert folder.name in ("in-progress", ".lock") or (folder / "metrics.json").is_file()
    # a machine that looks away for a second sees a later moment, or the end
    assert codes[:2] == [-signal.SIGKILL] * 2
    assert set(codes) <= {-signal.SIGKILL, 0}
    last = start_job(*usual)
    assert last.wait() == 0, last.output
    (folder,) = (p.parent for p in tmp_path.glob("outputs/r/*/*/metrics.json"))
    other = start_job(
        *usual, *(f"runtime.{name}_root={tmp_path / 'other'}" for name in ("cache", "output"))
    )
    assert other.wait() == 0, other.output
    (undisturbed,) = (p.parent for p in tmp_path.glob("other/r/*/*/metrics.json"))
    for name in ("predictions.parquet", "ckpt.bin"):
        assert (folder / name).read_bytes() == (undisturbed / name).read_bytes()
