"""Several processes at one job: the bytes of one, each error said once, and nobody left behind."""

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

HANDS = '''
import glob, os, signal, time
from fgvc.types import UserError

def begin(number):
    return work

def work(task, advance):
    """("pid", _) tells who; ("gate", path) waits to be opened, ("after", path) for
    somebody to wait there; ("raise", error); ("kill", _)."""
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
def hands(tmp_path, monkeypatch):
    """A module of work that misbehaves when it is told to, which workers can import."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "hands.py").write_text(HANDS)
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    sys.modules.pop("hands", None)
    return importlib.import_module("hands")


@pytest.fixture
def crew(hands):
    one = WorkerPool(2, hands.begin, "doing as told")
    yield one
    one.close()


def gone(pid):
    """Whether no such process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_every_task_is_answered_by_workers_that_stay_and_then_go(crew, wait_until):
    counted: list[int] = []
    assert list(dict(crew.answers([("pid", None)], counted.append))) == [0]
    assert len(crew._members) == 1  # there was nothing for another one to do
    first = dict(crew.answers([("pid", None)] * 5, counted.append))
    assert sorted(first) == list(range(5))
    assert sum(counted) == 6
    again = dict(crew.answers([("pid", None)] * 5, counted.append))
    pids = {*first.values(), *again.values()}
    assert len(pids) <= 2
    assert not any(map(gone, pids))
    assert dict(crew.answers([], counted.append)) == {}
    crew.close()
    assert all(map(gone, pids))


@pytest.mark.parametrize(
    ("task", "kind", "says"),
    [
        (("raise", UserError("a.jpg: no picture; mend it")), UserError, "a.jpg: no picture; mend"),
        (("raise", OSError(28, "No space left", "/full")), OSError, "/full"),
        (("raise", KeyError("whatever")), RuntimeError, "KeyError: 'whatever'"),
        (("kill", None), UserError, "of 2 ended with -9 while doing as told; what was finished"),
    ],
    ids=["user", "disk", "ours", "killed"],
)
def test_a_worker_that_fails_ends_all_after_what_was_finished(crew, tmp_path, task, kind, says):
    """The second worker stands before a gate that never opens, until it is let go."""
    found = []
    tasks = [("after", tmp_path / "gate"), ("gate", tmp_path / "gate"), ("pid", None), task]
    with pytest.raises(kind) as caught:
        found.extend(crew.answers(tasks, lambda n: None))
    assert says in str(caught.value)
    assert {place for place, _ in found} == {0, 2}
    if kind is RuntimeError:
        assert "in work" in caught.value.__notes__[0]
    assert all(gone(pid) for _, pid in found)
    (waiting,) = tmp_path.glob("gate.*")
    assert gone(int(waiting.suffix[1:]))


@pytest.mark.parametrize("notice", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_the_process_it_works_for(hands, tmp_path, wait_until, notice):
    """Nor does a notice that reaches all of them end a worker before its process says so."""

    def job():
        os.setpgid(0, 0)
        crew = WorkerPool(2, hands.begin, "doing as told")
        signal.signal(signal.SIGTERM, lambda *_: (tmp_path / "told").touch())
        dict(crew.answers([("gate", tmp_path / "gate")] * 2, lambda n: None))
        crew.close()

    process = multiprocessing.get_context("fork").Process(target=job)
    process.start()
    wait_until(lambda: len(list(tmp_path.glob("gate.*"))) == 2)
    pids = [int(path.suffix[1:]) for path in tmp_path.glob("gate.*")]
    assert process.pid is not None
    if notice == signal.SIGKILL:
        os.kill(process.pid, notice)
    else:
        os.killpg(process.pid, notice)
        wait_until((tmp_path / "told").exists)
        (tmp_path / "gate").touch()
    process.join()
    assert process.exitcode == (0 if notice == signal.SIGTERM else -notice)
    wait_until(lambda: all(map(gone, pids)), 10)


# --- whole runs ---

PROBE = ("task=probe", "backbone=vit", "backbone.size=mini", "head=knn", "head.k=3")
LOOKING = ("part_attention=transfg", "part_attention.tokens=4", "runtime.threads=1")


@pytest.fixture
def pictures(tmp_path):
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


def kept(root):
    """Every file of a feature cache but its locks, which say who was there."""
    files = [path for path in (root / "features").rglob("*") if path.is_file()]
    return {
        path.relative_to(root).as_posix(): hashing.sha256_file(path)
        for path in files
        if path.name != "lock"
    }


def test_two_processes_leave_the_bytes_of_one(run, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "SHARD", 8)
    told = {}
    for nproc in (1, 2):
        cache = tmp_path / f"cache{nproc}"
        places = (f"runtime.cache_root={cache}", f"runtime.run_id=n{nproc}")
        ran = run(*PROBE, *LOOKING, *pictures, *places, f"runtime.nproc={nproc}", birds=False)
        assert ran.code == 0, ran.err
        metrics, stamp = ran.json("metrics.json"), ran.json("env_stamp.json")
        counted = [metrics["cost"][name] for name in ("decoded", "forwarded", "parameters", "macs")]
        predictions = hashing.sha256_file(ran.folder / "predictions.parquet")
        told[nproc] = counted, metrics["unreadable"], kept(cache), predictions
        assert metrics["cost"]["images_per_s"] > 0
        assert metrics["cost"]["peak_memory_mib"] > 0
        assert (stamp["world_size"], stamp["launch"] != "one process") == (nproc, nproc == 2)
    assert told[1] == told[2]
    counted, unreadable, files, _ = told[2]
    assert counted[:2] == [35, 35]
    assert sum(unreadable.values()) == unreadable["train"] + unreadable["val"] == 1
    assert sum(name.endswith(".safetensors") for name in files) == 3 + 2


def test_jobs_that_want_the_same_features_at_once_extract_them_once(
    run, begun, pictures, tmp_path, wait_until
):
    """Both stand before the lock; whoever gets it computes, and the other one reads."""
    cache = tmp_path / "cache"
    usual = (*PROBE, *pictures, f"runtime.cache_root={cache}")
    assert run(*usual, birds=False).code == 0
    with contextlib.ExitStack() as held:
        for folder in (cache / "features").iterdir():
            for path in folder.iterdir():
                if path.name != "lock":
                    path.unlink()
            held.enter_context(lock(folder / "lock"))
        jobs = [begun(*usual, f"head.k={each}", options=()) for each in (1, 2)]
        for job in jobs:
            job.until(lambda job=job: "is held by" in job.said)
    assert [job.wait() for job in jobs] == [0, 0], [job.said for job in jobs]
    records = [json.loads(path.read_text()) for path in tmp_path.glob("outputs/*/*/*/metrics.json")]
    costs = [record["cost"] for record in records]
    assert len(costs) == 1 + 2
    assert sum(cost["forwarded"] for cost in costs) == 2 * 35
    assert sum(cost["decoded"] for cost in costs) == 2 * 35
