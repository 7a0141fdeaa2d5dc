"""Several processes for one job: the bytes of one process, one error line, no process left over."""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgvc.parallel.worker_pool import WorkerPool
from fgvc.pipeline import features
from fgvc.store import hashing
from fgvc.store.file_lock import lock
from fgvc.types import UserError

WORK = '''
import glob, os, signal, time
from fgvc.types import UserError

def initialize(number):
    return work

def work(task, advance):
    """Returns the process id. ("gate", path) waits for a file, ("after", path) for a worker
    that waits there; ("raise", error); ("kill", _)."""
    kind, value = task
    while kind == "after" and not glob.glob(f"{value}.*"):
        time.sleep(0.01)
    if kind == "raise":
        raise value
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "gate":
        open(f"{value}.{os.getpid()}", "w").close()
        while not os.path.exists(value):
            time.sleep(0.01)
    advance(1)
    return os.getpid()
'''


@pytest.fixture
def work_module(tmp_path, monkeypatch):
    """A module that workers can import, with a function that can fail in several ways."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "work_module.py").write_text(WORK)
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    sys.modules.pop("work_module", None)
    return importlib.import_module("work_module")


@pytest.fixture
def pool(work_module):
    with contextlib.closing(WorkerPool(2, work_module.initialize, "testing")) as pool:
        yield pool


def has_ended(pid):
    """Whether no such process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_workers_compute_every_task_stay_for_the_next_and_end_on_close(pool, wait_until):
    advanced: list[int] = []
    assert list(dict(pool.imap_unordered([("pid", None)], advanced.append))) == [0]
    assert len(pool._workers) == 1  # there was no task for a second worker
    first = dict(pool.imap_unordered([("pid", None)] * 5, advanced.append))
    assert sorted(first) == list(range(5))
    assert sum(advanced) == 6
    again = dict(pool.imap_unordered([("pid", None)] * 5, advanced.append))
    pids = {*first.values(), *again.values()}
    assert len(pids) <= 2
    assert not any(map(has_ended, pids))
    assert dict(pool.imap_unordered([], advanced.append)) == {}
    pool.close()
    assert all(map(has_ended, pids))


@pytest.mark.parametrize(
    ("task", "kind", "message"),
    [
        (
            ("raise", UserError("a.jpg: not an image; repair it")),
            UserError,
            "a.jpg: not an image; repair",
        ),
        (("raise", OSError(28, "No space left", "/full")), OSError, "/full"),
        (("raise", KeyError("whatever")), RuntimeError, "KeyError: 'whatever'"),
        (("kill", None), UserError, "of 2 ended with -9 while testing"),
    ],
    ids=["user", "disk", "ours", "killed"],
)
def test_a_failed_worker_ends_all_workers_after_finished_results_are_yielded(
    pool, tmp_path, task, kind, message
):
    """The second worker waits at a gate that never opens, until it is stopped."""
    results = []
    tasks = [("after", tmp_path / "gate"), ("gate", tmp_path / "gate"), ("pid", None), task]
    with pytest.raises(kind) as caught:
        results.extend(pool.imap_unordered(tasks, lambda n: None))
    assert message in str(caught.value)
    assert {index for index, _ in results} == {0, 2}
    if kind is RuntimeError:
        assert "in work" in caught.value.__notes__[0]
    assert all(has_ended(pid) for _, pid in results)
    (waiting,) = tmp_path.glob("gate.*")
    assert has_ended(int(waiting.suffix[1:]))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_its_parent_process(work_module, tmp_path, wait_until, number):
    """Nor does a signal that reaches the whole group end a worker before its parent stops it."""

    def job():
        os.setpgid(0, 0)
        pool = WorkerPool(2, work_module.initialize, "testing")
        signal.signal(signal.SIGTERM, lambda *_: (tmp_path / "signalled").touch())
        dict(pool.imap_unordered([("gate", tmp_path / "gate")] * 2, lambda n: None))
        pool.close()

    process = multiprocessing.get_context("fork").Process(target=job)
    process.start()
    wait_until(lambda: len(list(tmp_path.glob("gate.*"))) == 2)
    pids = [int(path.suffix[1:]) for path in tmp_path.glob("gate.*")]
    assert process.pid is not None
    if number == signal.SIGKILL:
        os.kill(process.pid, number)
    else:
        os.killpg(process.pid, number)
        wait_until((tmp_path / "signalled").exists)
        (tmp_path / "gate").touch()
    process.join()
    assert process.exitcode == (0 if number == signal.SIGTERM else -number)
    wait_until(lambda: all(map(has_ended, pids)), 10)


# --- whole runs ---

PROBE = ("task=probe", "backbone=vit", "backbone.size=mini", "head=knn", "head.k=3")
ATTENTION = ("part_attention=transfg", "part_attention.tokens=4", "runtime.threads=1")


@pytest.fixture
def images(tmp_path):
    """Three classes that differ in brightness: 24 to train on, one of them torn, 12 to test on."""
    root, rng = tmp_path / "birds", np.random.default_rng(0)
    for level, name in enumerate(("coot", "gull", "heron")):
        for split, count in (("train", 8), ("test", 4)):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                noise = rng.integers(0, 40, (40 + i, 60, 3)) + 70 * level
                Image.fromarray(noise.astype(np.uint8)).save(root / split / name / f"{i}.jpg")
    (root / "train" / "gull" / "3.jpg").write_bytes(b"torn")
    return "dataset=folder", f"dataset.root={root}", "dataset.on_bad_image=skip"


def cached_files(root):
    """Digests of every file of a feature cache except its locks, which name processes."""
    files = [path for path in (root / "features").rglob("*") if path.is_file()]
    return {
        path.relative_to(root).as_posix(): hashing.sha256_file(path)
        for path in files
        if path.name != "lock"
    }


def test_two_processes_write_the_same_bytes_as_one(run, images, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "SHARD", 8)
    results = {}
    for nproc in (1, 2):
        cache = tmp_path / f"cache{nproc}"
        places = (f"runtime.cache_root={cache}", f"runtime.run_id=n{nproc}")
        ran = run(*PROBE, *ATTENTION, *images, *places, f"runtime.nproc={nproc}", birds=False)
        assert ran.code == 0, ran.err
        metrics, stamp = ran.json("metrics.json"), ran.json("env_stamp.json")
        advanced = [
            metrics["cost"][name] for name in ("decoded", "forwarded", "parameters", "macs")
        ]
        predictions = hashing.sha256_file(ran.folder / "predictions.parquet")
        results[nproc] = advanced, metrics["unreadable"], cached_files(cache), predictions
        assert metrics["cost"]["images_per_s"] > 0
        assert metrics["cost"]["peak_memory_mib"] > 0
        assert (stamp["world_size"], stamp["launch"] != "one process") == (nproc, nproc == 2)
    assert results[1] == results[2]
    advanced, unreadable, files, _ = results[2]
    assert advanced[:2] == [35, 35]
    assert sum(unreadable.values()) == unreadable["train"] + unreadable["val"] == 1
    assert sum(name.endswith(".safetensors") for name in files) == 3 + 2


def test_two_jobs_extract_the_same_features_only_once(
    run, start_finetune, images, tmp_path, wait_until
):
    """Both wait for the lock; the first to get it computes, and the other reads the cache."""
    cache = tmp_path / "cache"
    overrides = (*PROBE, *images, f"runtime.cache_root={cache}")
    assert run(*overrides, birds=False).code == 0
    with contextlib.ExitStack() as locks:
        for folder in (cache / "features").iterdir():
            for path in folder.iterdir():
                if path.name != "lock":
                    path.unlink()
            locks.enter_context(lock(folder / "lock"))
        jobs = [start_finetune(*overrides, f"head.k={each}", options=()) for each in (1, 2)]
        for job in jobs:
            job.until(lambda job=job: "is held by" in job.output)
    assert [job.wait() for job in jobs] == [0, 0], [job.output for job in jobs]
    records = [json.loads(path.read_text()) for path in tmp_path.glob("outputs/*/*/*/metrics.json")]
    costs = [record["cost"] for record in records]
    assert len(costs) == 1 + 2
    assert sum(cost["forwarded"] for cost in costs) == 2 * 35
    assert sum(cost["decoded"] for cost in costs) == 2 * 35
