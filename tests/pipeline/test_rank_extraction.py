"""Features extracted by several ranks: the bytes of one process, and no finished shard is lost.

In the first tests, the ranks compute rows of numbers in place of images.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fgvc.config.compose import composed, typed
from fgvc.data import loader
from fgvc.parallel.process_group import join_group
from fgvc.pipeline import features, rank_extraction
from fgvc.pipeline.rank_extraction import RankedExtractor, rank_config
from fgvc.store import hashing
from fgvc.store.file_lock import lock
from fgvc.types import Features, UserError
from tests.jobs import ROOT
from tests.parallel.test_process_group import has_ended

slow = functools.partial(pytest.param, marks=pytest.mark.slow)
WORK = '''
import os, signal
from dataclasses import dataclass
from pathlib import Path
import numpy as np
from fgvc.pipeline import rank_extraction
from fgvc.types import Features, UserError

ERRORS = {
    "user": UserError("a.jpg: not an image; repair it"),
    "disk": OSError(28, "No space left", "/full"),
    "ours": KeyError("whatever"),
}

def compute(extractor, role, shards, advance):
    for index, row_N in enumerate(shards):
        yield index, compute_one(extractor, role, row_N, advance)

def compute_one(extractor, role, row_N, advance):
    """Features of a shard; a role that names a fault injects it into the shard of row 3."""
    if row_N[0] == 3 and role in ERRORS:
        raise ERRORS[role]
    if row_N[0] == 3 and role == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    advance(len(row_N))
    extractor.counters.decoded += len(row_N)
    extractor.counters.forwarded += 10 * len(row_N)
    return Features(np.stack([row_N, np.full_like(row_N, os.getpid())], 1), row_N, ())

def measure(device):
    return float(os.environ.get("LOCAL_RANK", "0")) * 1e9

@dataclass(frozen=True)
class Setup(rank_extraction.ExtractionSetup):
    def follow(self, group):
        rank_extraction.FeatureExtractor.compute = compute
        rank_extraction.peak_memory_mib = measure
        super().follow(group)
'''


@pytest.fixture
def work(rank_module, monkeypatch) -> Any:
    """A module that replaces the computation of a shard, on every rank."""
    module = rank_module("extraction_work", WORK)
    monkeypatch.setattr(features.FeatureExtractor, "compute", module.compute)
    monkeypatch.setattr(rank_extraction, "ExtractionSetup", module.Setup)
    return module


def conf_with(*overrides: str):
    small = ("backbone=vit", "backbone.size=mini", "backbone.pretrained=false")
    return typed(composed([*small, "runtime.device=cpu", *overrides]))


def extractor_of(group) -> RankedExtractor:
    conf = conf_with("runtime.threads=1", "runtime.num_workers=0")
    nothing: Any = None
    return RankedExtractor(conf, nothing, nothing, torch.device("cpu"), group=group)


SHARDS = [np.arange(start, start + 2) for start in range(5)]


def test_ranks_deal_out_the_shards_serve_again_and_end(work):
    advanced: list[int] = []
    with join_group(2, lazy=True) as group:
        extractor = extractor_of(group)
        compute = extractor.compute_many("train", advanced.append)
        alone = dict(compute(SHARDS[:1]))
        assert group.requests is None  # one shard does not pay for the start of the ranks
        assert alone[0].x_ND[:, 1].tolist() == [os.getpid()] * 2
        together = dict(compute(SHARDS))
        assert sorted(together) == list(range(5))
        for index, shard in together.items():
            assert shard.row_N.tolist() == SHARDS[index].tolist()
            assert shard.x_ND[:, 0].tolist() == SHARDS[index].tolist()
        pid_of = [int(together[index].x_ND[0, 1]) for index in range(5)]
        other = pid_of[1]
        assert pid_of == [os.getpid(), other, os.getpid(), other, os.getpid()]
        assert other != os.getpid()
        again = dict(extractor.compute_many("test", advanced.append)(SHARDS[:2]))
        assert again[1].x_ND[0, 1] == other
        assert (extractor.counters.decoded, extractor.counters.forwarded) == (16, 160)
        assert sum(advanced) == 16
        assert extractor.peak_memory_mib == 1e9
        assert extractor.counters.spent.wall > 0
        extractor.end()
    assert has_ended(other)


@pytest.mark.fault(33, 40)
@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("user", UserError, "a.jpg: not an image; repair it"),
        slow("disk", OSError, "/full"),
        slow("ours", RuntimeError, "KeyError: 'whatever'"),
        slow("killed", UserError, "rank 1 of ranks 0 to 1 ended with exit code -9"),
    ],
)
def test_a_fault_of_a_rank_reaches_rank_0_after_finished_shards(work, fault, kind, message):
    results: dict[int, Features] = {}

    def job() -> None:
        with join_group(2, lazy=True) as group:
            assert group.watchdog is not None
            group.watchdog.is_training = False
            compute = extractor_of(group).compute_many(fault, lambda images: None)
            for index, shard in compute(SHARDS):
                results[index] = shard

    with pytest.raises(kind) as caught:
        job()
    assert message in str(caught.value)
    assert sorted(results) == [0, 1, 2]  # rank 1 failed in shard 3, rank 0 has finished shard 2
    if kind is RuntimeError:
        assert "in compute" in caught.value.__notes__[0]
    if fault == "killed":
        assert "finished shards are kept" in str(caught.value)
        assert "set a smaller runtime.nproc" in str(caught.value)
    assert has_ended(int(results[1].x_ND[0, 1]))


@pytest.mark.slow
def test_a_rank_that_is_lost_after_the_extraction_does_not_fail_the_run(work, wait_until):
    with join_group(2, lazy=True) as group:
        extractor = extractor_of(group)
        shards = dict(extractor.compute_many("train", lambda images: None)(SHARDS[:2]))
        os.kill(int(shards[1].x_ND[0, 1]), signal.SIGKILL)
        wait_until(lambda: group.monitor is not None and group.monitor.lost)
        extractor.end()


def test_ranks_divide_what_the_config_does_not_set(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(loader.os, "sched_getaffinity", lambda pid: range(6), raising=False)
    runtime = rank_config(conf_with(), 2).runtime
    assert (runtime.threads, runtime.num_workers) == (4, 3)
    runtime = rank_config(conf_with(), 16).runtime
    assert (runtime.threads, runtime.num_workers) == (1, 1)
    # torchrun gives each rank an OMP_NUM_THREADS, 1 unless the user sets it
    runtime = rank_config(conf_with(), 2, share_threads=False).runtime
    assert (runtime.threads, runtime.num_workers) == (8, 3)
    per_rank = conf_with("runtime.threads=5", "runtime.num_workers=0")
    runtime = rank_config(per_rank, 2).runtime
    assert (runtime.threads, runtime.num_workers) == (5, 0)


@pytest.mark.slow
def test_rank_0_computes_with_its_share_of_the_threads_and_then_with_all(work, monkeypatch):
    threads: list[int] = []
    compute = work.compute

    def record(extractor, role, row_N, advance):
        threads.append(torch.get_num_threads())
        return compute(extractor, role, row_N, advance)

    monkeypatch.setattr(features.FeatureExtractor, "compute", record)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with join_group(2, lazy=True) as group:
            extractor = extractor_of(group)
            dict(extractor.compute_many("train", lambda images: None)(SHARDS[:2]))
            assert threads == [1]
            assert torch.get_num_threads() == 3
            extractor.end()
    finally:
        torch.set_num_threads(before)


def test_a_rank_starts_without_torchs_compiler():
    """Only a step of training needs it; importing it takes as long as the rest of torch."""
    modules = "fgvc.launch.ddp_worker, fgvc.pipeline.finetune, fgvc.pipeline.rank_extraction"
    code = f"import sys, {modules}; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


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
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
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
        launch = {1: "one process", 2: "runtime.nproc=2"}[nproc]
        assert (stamp["world_size"], stamp["launch"]) == (nproc, launch)
    assert results[1] == results[2]
    advanced, unreadable, files, _ = results[2]
    assert advanced[:2] == [35, 35]
    assert sum(unreadable.values()) == unreadable["train"] + unreadable["val"] == 1
    assert sum(name.endswith(".safetensors") for name in files) == 3 + 2


def test_no_rank_starts_if_all_features_are_cached(run, images, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "SHARD", 8)
    places = (f"runtime.cache_root={tmp_path / 'cache'}", "runtime.run_id=r")
    assert run(*PROBE, *images, *places, birds=False).code == 0
    monkeypatch.setattr("fgvc.parallel.process_group._start_rank", None)
    ran = run(*PROBE, *images, *places, "head.k=2", "runtime.nproc=2", birds=False)
    assert ran.code == 0, ran.err
    assert ran.json("metrics.json")["cost"]["forwarded"] == 0
    stamp = ran.json("env_stamp.json")
    assert (stamp["world_size"], stamp["launch"]) == (2, "runtime.nproc=2")


@pytest.mark.slow
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


@pytest.mark.fault(33)
@pytest.mark.slow
def test_an_unreadable_image_of_another_rank_is_reported_once(run, images, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "SHARD", 8)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    cache = f"runtime.cache_root={tmp_path / 'cache'}"
    ran = run(*PROBE, *images, "dataset.on_bad_image=error", cache, "runtime.nproc=2", birds=False)
    assert ran.code == 1
    (line,) = [text for text in ran.err.splitlines() if text.startswith("fgvc: ")]
    assert line.startswith("fgvc: train/gull/3.jpg")  # row 11, in the second shard
    assert "Traceback" not in ran.err
    assert sum(name.endswith(".safetensors") for name in cached_files(tmp_path / "cache")) == 1


EXTRACTING = """
import pathlib, signal
from fgvc.pipeline import features
features.SHARD, computed = 4, []
compute = features.FeatureExtractor.compute

def pause_in_third(*arguments):
    computed.append(None)
    if len(computed) == 3:
        pathlib.Path({reached!r}).touch()
        signal.pause()
    return compute(*arguments)

features.FeatureExtractor.compute = pause_in_third
"""
EXTRACTED = """
import pathlib, signal
from fgvc.pipeline import features
from fgvc.store import feature_cache, json_cache
features.SHARD, write = 4, json_cache.write

def pause_at_done(path, value):
    if path.name == feature_cache.DONE:
        pathlib.Path({reached!r}).touch()
        signal.pause()
    write(path, value)

json_cache.write = pause_at_done
"""
STARTING = """
import pathlib
from fgvc.parallel import process_group
from fgvc.pipeline import features
features.SHARD, start_rank = 4, process_group._start_rank

def start(*arguments):
    rank = start_rank(*arguments)
    pathlib.Path({reached!r}).touch()
    return rank

process_group._start_rank = start
"""


@pytest.mark.fault(2, 3, 40)
@pytest.mark.parametrize(
    ("setup", "number", "shards"),
    [
        slow(EXTRACTING, signal.SIGKILL, 4, id="killed"),
        slow(EXTRACTING, signal.SIGTERM, 4, id="stopped"),
        slow(EXTRACTING, signal.SIGINT, 4, id="interrupted"),
        # all of train; the other rank waits for a request
        slow(EXTRACTED, signal.SIGTERM, 6, id="stopped-at-end"),
        pytest.param(STARTING, signal.SIGKILL, 0, id="killed-at-start"),
        pytest.param(STARTING, signal.SIGTERM, 0, id="stopped-at-start"),
    ],
)
def test_a_stopped_extraction_ends_all_ranks_and_keeps_every_finished_shard(
    start_job, run, images, tmp_path, wait_until, monkeypatch, setup, number, shards
):
    """A signal to stop reaches every process, as in a cluster."""
    reached, cache = tmp_path / "reached", tmp_path / "cache"
    usual = (*PROBE, *images, f"runtime.cache_root={cache}", "runtime.run_id=r")
    job = start_job(*usual, "runtime.nproc=2", setup=setup.format(reached=str(reached)))
    job.until(reached.exists)
    children = Path(f"/proc/{job.process.pid}/task/{job.process.pid}/children").read_text()
    (follower,) = map(int, children.split())
    if number != signal.SIGKILL:
        os.kill(follower, number)
    job.send(number)
    assert job.wait() == (-number if number == signal.SIGKILL else 75), job.output
    wait_until(lambda: has_ended(follower))
    assert sum(name.endswith(".safetensors") for name in cached_files(cache)) == shards
    if number != signal.SIGKILL:
        assert "the same command with runtime.run_id=r resumes it" in job.line
        assert "Traceback" not in job.output
        (status,) = tmp_path.glob("outputs/r/*/in-progress/status.json")
        assert json.loads(status.read_text())["state"] == "preempted"
    monkeypatch.setattr(features, "SHARD", 4)
    resumed = run(*usual, birds=False)
    assert resumed.code == 0, resumed.err
    torn = int(shards > 2)  # its image is in the third shard
    assert resumed.json("metrics.json")["cost"]["forwarded"] == 35 - (4 * shards - torn)
