"""Reads of test are counted over all processes of a run, including killed ones."""

from __future__ import annotations

import os
import shutil
import signal

import pytest

from fgvc.report.audit import run_audit

# the first process is killed when it calls the method of that name
KILL = """
import functools, os, signal
from {module} import {owner}
honest = {owner}.{method}

@functools.wraps(honest)
def killed(own, *given, **named):
    if {when}:
        os.kill(os.getpid(), signal.SIGKILL)
    return honest(own, *given, **named)

{owner}.{method} = killed
"""
BEFORE_SEALING = {"module": "fgvc.record.run_dir", "owner": "RunFolder", "method": "seal"}
WHILE_SEALING = {"module": "fgvc.record", "owner": "retention", "method": "write"}
TINY = (
    "backbone=vit",
    "backbone.size=mini",
    "dataset.subset=tiny",
    "resolution.name=r64",
    "resolution.side=64",
    "runtime.run_id=r",
    "runtime.stack_check=false",
    "runtime.device=cpu",
)
TASKS = {
    "probe": ("task.c_count=9",),
    "zero_shot": ("backbone=clip", "task=zero_shot"),
    "train": ("task=train", "task.epochs=1", "task.batch_size=8", "task.warmup_steps=0"),
}


def kill(when="True", **place):
    return KILL.format(when=when, **place)


@pytest.fixture
def again(run, monkeypatch):
    """Repeat the command of a killed job in this process, outside any git checkout."""
    monkeypatch.setenv("GIT_DIR", os.devnull)

    def start(*overrides):
        birds = not any(item.startswith("dataset=") for item in overrides)
        return run(*TINY, "runtime.threads=1", *overrides, birds=birds)

    return start


def reads_of(ran):
    return ran.json("metrics.json")["test_reads"]


def check_of_reads(ran):
    (result,) = [check for check in run_audit(ran.folder)[1] if check.id == "test-read-once"]
    return result


@pytest.mark.fault(2)
@pytest.mark.parametrize(
    ("task", "place"), [*((task, BEFORE_SEALING) for task in TASKS), ("train", WHILE_SEALING)]
)
def test_killed_between_reading_test_and_sealing_both_reads_count(start_job, again, task, place):
    job = start_job(*TINY, *TASKS[task], setup=kill(**place))
    assert job.wait() == -signal.SIGKILL, job.output
    ran = again(*TASKS[task])
    assert ran.code == 0, ran.err
    assert reads_of(ran) == 2
    assert "test split was read 2 times" in ran.out
    assert "test read twice: an earlier process" in (ran.folder / "report.html").read_text()
    result = check_of_reads(ran)
    assert (result.state, result.evidence.partition(";")[0]) == (
        "pass",
        "2 times, each for the same answer: earlier processes of this run were stopped",
    )


@pytest.mark.parametrize(
    ("task", "when", "place", "reads"),
    [
        ("probe", "given[0] == 'test'", ("features", "FeatureExtractor", "compute"), 2),
        ("train", "len(given[0]) == 12", ("finetune", "Finetune", "_classify"), 2),  # test images
        ("train", "True", ("finetune", "Finetune", "evaluate"), 1),  # validation is read first
    ],
)
def test_the_moment_of_death_decides(start_job, again, tmp_path, task, when, place, reads):
    module, owner, method = place
    own = ("seed=1", f"runtime.cache_root={tmp_path / 'cache'}")  # no test feature is cached
    setup = kill(when, module=f"fgvc.pipeline.{module}", owner=owner, method=method)
    job = start_job(*TINY, *TASKS[task], *own, setup=setup)
    assert job.wait() == -signal.SIGKILL, job.output
    ran = again(*TASKS[task], *own)
    assert ran.code == 0, ran.err
    assert reads_of(ran) == reads
    assert check_of_reads(ran).state == "pass"


def test_an_evaluation_that_was_killed_counts_too(start_job, again, run, finished):
    fitted = finished(*TINY)
    evaluation = (
        "task=eval",
        f'checkpoint="{fitted.folder}"',
        "runtime.run_id=e",
        "runtime.device=cpu",
    )
    job = start_job(*evaluation, bare=True, setup=kill(**BEFORE_SEALING))
    assert job.wait() == -signal.SIGKILL, job.output
    ran = run(*evaluation, bare=True)
    assert ran.code == 0, ran.err
    assert reads_of(ran) == 2


@pytest.fixture
def killed_training(start_job, tmp_path):
    job = start_job(*TINY, *TASKS["train"], setup=kill(**BEFORE_SEALING))
    assert job.wait() == -signal.SIGKILL, job.output
    (folder,) = tmp_path.glob("outputs/r/*/in-progress")
    return folder


@pytest.mark.slow
def test_a_training_that_continues_another_run_counts_its_reads(killed_training, again):
    overrides = ("runtime.run_id=second", f"runtime.resume={killed_training}")
    ran = again(*TASKS["train"], *overrides)
    assert ran.code == 0, ran.err
    assert reads_of(ran) == 2
    assert check_of_reads(ran).state == "pass"
    other = ("task.epochs=2", "runtime.resume_force=true", "runtime.run_id=third", overrides[1])
    forced = again(*TASKS["train"], *other)
    assert forced.code == 0, forced.err
    assert reads_of(forced) == 2
    result = check_of_reads(forced)
    assert (result.state, "read 1: config_hash" in result.evidence) == ("FAIL", True)


def test_test_reads_of_another_run_fail_the_audit(start_job, again, birds, tmp_path):
    """A probe was killed after reading test, then repeated on other images."""
    root = tmp_path / "copy"
    shutil.copytree(birds, root)
    cub = ("dataset=cub", f"dataset.root={root}", "dataset.partial=true", "task.c_count=9")
    job = start_job(*TINY, *cub, setup=kill(**BEFORE_SEALING))
    assert job.wait() == -signal.SIGKILL, job.output
    index = root / "train_test_split.txt"
    lines = index.read_text().splitlines(keepends=True)
    first = next(place for place, line in enumerate(lines) if line.endswith("0\n"))
    lines[first] = lines[first].replace(" 0", " 1")
    index.write_text("".join(lines))
    ran = again(*cub)
    assert ran.code == 0, ran.err
    assert reads_of(ran) == 2
    result = check_of_reads(ran)
    assert (result.state, "read 1: manifest_digest" in result.evidence) == ("FAIL", True)
