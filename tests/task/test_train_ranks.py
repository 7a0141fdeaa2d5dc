"""One finetune on two processes: the numbers of one process, and no process left after any end.

Fault table of the project: rows 3, 40.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fgvc.pipeline import features
from fgvc.run import main
from tests.jobs import BIRDS, HANG, MINI, import_path

RANKS = ("task.drop_path=0.3", "task.epochs=4", "runtime.run_id=r", "runtime.save_every=1")
LONG = (*RANKS, "task.epochs=200")


@pytest.fixture
def running_processes(tmp_path):
    """Processes that any job of this test started and that still run, by their output folder."""

    def find(word="fgvc"):
        pids = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                environment = (folder / "environ").read_bytes()
                command = (folder / "cmdline").read_bytes()
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            of_this_test = (
                f"FGVC_TEST={tmp_path}".encode() in environment and word.encode() in command
            )
            if of_this_test and state != "Z":
                pids.append(int(folder.name))
        return pids

    return find


@pytest.fixture
def wait_for_processes(running_processes, wait_until):
    """gone(): wait until all have ended, including the fork server after its last job."""
    return lambda: wait_until(lambda: not running_processes())


@pytest.fixture
def pair(start_finetune, tmp_path):
    """Start a finetune on two processes, each marked by this test's folder."""
    return lambda *more: start_finetune(*more, "runtime.nproc=2", FGVC_TEST=str(tmp_path))


def curve(folder, tag="train/loss"):
    events = EventAccumulator(str(folder / "tb"), size_guidance={"scalars": 0}).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def logits(folder):
    table = pq.read_table(folder / "predictions.parquet")
    test = table.filter(table["split"].to_numpy() == "test")
    unreadable = [np.nan] * 6
    return test["path"].to_pylist(), np.array(
        [row or unreadable for row in test["logits"].to_pylist()]
    )


def stepping(job, run_files):
    job.until(lambda: run_files("in-progress/resume/state-*.pt"))


def assert_agree(first, second):
    assert curve(second, "val/loss") == [
        (step, pytest.approx(value, abs=1e-4)) for step, value in curve(first, "val/loss")
    ]
    assert curve(second) == [(step, pytest.approx(value, abs=1e-5)) for step, value in curve(first)]
    assert len(curve(first)) > 1
    paths, expected_NC = logits(first)
    found_paths, logits_NC = logits(second)
    assert found_paths == paths
    assert len(set(paths)) == len(paths)
    np.testing.assert_allclose(logits_NC, expected_NC, atol=1e-3)


def odd(root, tmp_path, torn=lambda rows: rows[:3]):
    """A table of 34 images to train and validate on, and 11 to test on; three are unreadable.

    torn: the rows (name, split) of the table -> those of the unreadable images.
    """
    images = shutil.copytree(root / "images", tmp_path / "odd")
    names = [line.split()[1] for line in (root / "images.txt").open()][::2]
    rows = [(name, "test" if place % 4 == 1 else "train") for place, name in enumerate(names)]
    lines = [f"{name},{name.split('/')[0]},{split}" for name, split in rows]
    for name, _ in torn(rows):
        (images / name).write_bytes(name.encode())
    file = tmp_path / "odd.csv"
    file.write_text("\n".join(["path,label,split", *lines]) + "\n")
    return (
        "dataset=table",
        f'dataset.table="{file}"',
        f"dataset.root={images}",
        "dataset.on_bad_image=skip",
        "dataset.val_fraction=0.2",
        "dataset.subset=null",
    )


@pytest.mark.fault(40)
@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(pair, finetune, tmp_path, birds, wait_for_processes):
    """Of a batch of 6 the first takes 2 images and the second 4; of 11 in the test, 6 and 5.

    No process of the first job remains when the second job of the sweep starts.
    """
    usual = (*RANKS, *odd(birds, tmp_path), "task.batch_size=6", "task.mixup=0.8")
    single = finetune(*usual, "runtime.run_id=one")
    assert single.code == 0, single.err
    job = pair("-m", *usual, "seed=0,1")
    assert job.wait() == 0, job.output
    of_seed = {}
    for path in tmp_path.glob("outputs/r/*/*/env_stamp.json"):
        stamp = json.loads(path.read_text())
        assert (stamp["world_size"], stamp["launch"]) == (2, "runtime.nproc=2")
        of_seed[stamp["seed"]] = path.parent
    assert sorted(of_seed) == [0, 1]
    two = of_seed[0]
    assert_agree(single.folder, two)
    assert len(logits(two)[0]) == 11
    numbers, expected = json.loads((two / "metrics.json").read_text()), single.json("metrics.json")
    assert numbers["test_reads"] == 1
    for key in ("unreadable", "fitted_on", "notes"):
        assert numbers[key] == expected[key]
    assert sum(numbers["unreadable"].values()) == 3
    assert (two / "unreadable.json").read_bytes() == (
        single.folder / "unreadable.json"
    ).read_bytes()
    wait_for_processes()


@pytest.mark.fault(45)
@pytest.mark.slow
def test_ranks_with_unequal_numbers_of_micro_batches_wait_for_each_other(
    pair, finetune, wait_for_processes
):
    """Of a batch of 10 the first rank has 4 images, one micro-batch, and the second 6, two."""
    usual = (*RANKS, "task.epochs=2", "task.batch_size=10", "part_attention=transfg")
    usual = (*usual, "part_attention.contrastive=1", "head=mlp", "head.hidden=16")
    single = finetune(*usual, "runtime.run_id=one")
    assert single.code == 0, single.err
    job = pair(*usual, "runtime.micro_batch=4")
    assert job.wait() == 0, job.output
    (metrics,) = job.log.parent.glob("outputs/r/*/*/metrics.json")
    np.testing.assert_allclose(logits(metrics.parent)[1], logits(single.folder)[1], atol=1e-3)
    wait_for_processes()


@pytest.mark.fault(40)
@pytest.mark.slow
def test_two_nodes_give_the_numbers_of_one_process(nodes, finetune, tmp_path, wait_for_processes):
    """A lost node ends the other node, and the same two commands resume from the last state."""
    first, second = nodes(*RANKS, "runtime.run_id=n")
    first.until(lambda: list(tmp_path.glob("outputs/n/*/in-progress/resume/state-*.pt")))
    for pid in (*second.ranks(), second.process.pid):
        os.kill(pid, signal.SIGKILL)
    assert first.wait() == 1, first.output
    assert "fgvc: one of the 2 ranks" in first.output
    wait_for_processes()
    first, second = nodes(*RANKS, "runtime.run_id=n")
    assert [node.wait() for node in (first, second)] == [0, 0], first.output + second.output
    assert "resumed after step" in first.output
    assert "validation" not in second.output
    (stamp,) = tmp_path.glob("outputs/n/*/*/env_stamp.json")
    assert json.loads(stamp.read_text())["launch"] == "torchrun, 2 processes on 2 nodes"
    single = finetune(*RANKS, "runtime.run_id=one")
    assert single.code == 0, single.err
    assert_agree(single.folder, stamp.parent)
    wait_for_processes()


@pytest.mark.fault(45)
@pytest.mark.slow
def test_a_stop_under_torchrun_ends_all_ranks_if_a_node_hangs(nodes, tmp_path):
    first, second = nodes(*LONG, "runtime.run_id=n", "runtime.stop_grace=0.5")
    first.until(lambda: list(tmp_path.glob("outputs/n/*/in-progress/resume/state-*.pt")))
    (stopped,), (leader,) = second.ranks(), first.ranks()
    os.kill(stopped, signal.SIGSTOP)
    os.kill(leader, signal.SIGTERM)
    assert first.wait() == 1, first.output  # torchrun's own, of a rank that ended with 75
    assert "SIGTERM: no answer from the other ranks" in first.output
    (path,) = tmp_path.glob("outputs/n/*/in-progress/status.json")
    assert json.loads(path.read_text())["state"] == "preempted"


@pytest.mark.fault(40)
@pytest.mark.parametrize("moment", ["importing", pytest.param("training", marks=pytest.mark.slow)])
def test_a_rank_that_dies_ends_all_and_the_same_command_resumes(
    pair, start_finetune, run_files, wait_until, running_processes, wait_for_processes, moment
):
    job = pair(*LONG)
    if moment == "training":
        stepping(job, run_files)
    wait_until(lambda: running_processes("fgvc.launch.ddp_worker"))
    (follower,) = running_processes("fgvc.launch.ddp_worker")
    os.kill(follower, signal.SIGKILL)
    assert job.wait() == 1, job.output
    assert "rank 1 of ranks 0 to 1 ended with exit code -9" in job.line
    assert ("resumes from the last state, if any" in job.line) is (moment == "importing")
    assert "Traceback" not in job.output
    wait_for_processes()
    if moment == "training":
        (path,) = run_files("in-progress/status.json")
        assert json.loads(path.read_text())["state"] == "failed"
        steps = max(int(file.name[6:14]) for file in run_files("in-progress/resume/state-*.pt"))
        last = pair(*LONG)
        wait_until(lambda: f"resumed after step {steps}" in last.output)


@pytest.mark.fault(40)
@pytest.mark.parametrize("moment", ["importing", pytest.param("training", marks=pytest.mark.slow)])
def test_no_rank_outlives_the_first(pair, run_files, wait_until, running_processes, moment):
    job = pair(*LONG)
    if moment == "training":
        stepping(job, run_files)
    wait_until(lambda: running_processes("fgvc.launch.ddp_worker"))
    job.send(signal.SIGKILL)
    job.wait()
    wait_until(lambda: not running_processes())


@pytest.mark.fault(3)
@pytest.mark.slow
def test_a_stop_signal_ends_all_ranks_and_they_resume_together(
    pair, run_files, running_processes, wait_for_processes, read_outcome, tmp_path
):
    usual = (*RANKS, "task.drop_path=0.2", "task.ema=0.9", "task.epochs=8")
    job = pair(*usual)
    stepping(job, run_files)
    for process in [
        *running_processes("fgvc.launch.ddp_worker"),
        job.process.pid,
    ]:  # like the signal of a cluster
        os.kill(process, signal.SIGTERM)
    assert job.wait() == 75, job.output
    assert "Traceback" not in job.output
    wait_for_processes()
    last = pair(*usual)
    assert last.wait() == 0, last.output
    (stopped,) = run_files("*/metrics.json")
    assert json.loads(stopped.read_text())["resumed"]["step"] > 0
    undisturbed_job = pair(*usual, f"runtime.output_root={tmp_path / 'undisturbed'}")
    assert undisturbed_job.wait() == 0, undisturbed_job.output
    (undisturbed,) = tmp_path.glob("undisturbed/r/*/*/metrics.json")
    assert read_outcome(stopped.parent) == read_outcome(undisturbed.parent)


@pytest.mark.fault(45)
@pytest.mark.slow
def test_a_stop_signal_ends_the_job_though_a_rank_does_not_answer(
    pair, run_files, running_processes, wait_for_processes, wait_until
):
    """The first rank waits in a collective call, where no Python handler can run."""
    job = pair(*LONG, "runtime.stop_grace=0.5")
    stepping(job, run_files)
    (follower,) = running_processes("fgvc.launch.ddp_worker")
    os.kill(follower, signal.SIGSTOP)
    job.send(signal.SIGTERM)
    assert job.wait() == 75, job.output
    assert "SIGTERM: no answer from the other ranks" in job.line
    assert "resumes from the last state" in job.line
    assert "Traceback" not in job.output
    wait_for_processes()
    (path,) = run_files("in-progress/status.json")
    status = json.loads(path.read_text())
    assert status["state"] == "preempted"
    assert "no answer" in status["error"]
    steps = max(int(file.name[6:14]) for file in run_files("in-progress/resume/state-*.pt"))
    last = pair(*LONG)
    wait_until(lambda: f"resumed after step {steps}" in last.output or last.ended)
    assert not last.ended, last.output


@pytest.mark.fault(4, 45)
@pytest.mark.slow
def test_a_second_signal_ends_the_job_at_once_though_a_rank_does_not_answer(
    pair, run_files, running_processes, wait_for_processes, wait_until
):
    """Sent repeatedly, because pending signals of one kind are merged."""
    job = pair(*LONG, "runtime.stop_grace=600")
    stepping(job, run_files)
    (follower,) = running_processes("fgvc.launch.ddp_worker")
    os.kill(follower, signal.SIGSTOP)
    wait_until(lambda: job.ended or job.send(signal.SIGTERM))
    # by the signal itself where it did not yet wait for the other rank
    assert job.wait() in (75, -signal.SIGTERM), job.output
    if running_processes("fgvc.launch.ddp_worker"):
        os.kill(follower, signal.SIGCONT)
    wait_for_processes()


@pytest.mark.fault(31)
@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_reported_once(pair, wait_for_processes):
    wild = ("task.learning_rate=1e30", "task.clip_norm=null")
    job = pair(*RANKS, *wild, "task.warmup_steps=0")
    assert job.wait() == 1, job.output
    assert "task.learning_rate" in job.line
    wait_for_processes()


@pytest.mark.fault(33)
@pytest.mark.slow
@pytest.mark.parametrize(("torn", "count"), [("test", 1), ("train", 34)])
def test_an_image_that_another_rank_cannot_read_is_reported_once_and_recorded(
    pair, birds, tmp_path, run_files, wait_for_processes, torn, count
):
    """The last test image belongs to rank 1; of the training images, both ranks read some."""
    table = odd(birds, tmp_path, lambda rows: [row for row in rows if row[1] == torn][-count:])
    job = pair(*RANKS, "task.epochs=1", *table, "dataset.on_bad_image=error")
    assert job.wait() == 1, job.output
    assert "not an image" in job.line
    assert "Traceback" not in job.output, job.output
    (status,) = run_files("in-progress/status.json")
    assert "not an image" in json.loads(status.read_text())["error"]
    wait_for_processes()


# --- torchrun ---


@pytest.fixture
def torchrun(places, tmp_path):
    """torchrun(*overrides) -> a job that torchrun starts twice, with at most 8 images per shard."""
    program = tmp_path / "program.py"
    program.write_text(
        "from fgvc.pipeline import features\nfeatures.SHARD = 8\n"
        "from fgvc.run import script\nscript()\n"
    )

    def start(*overrides):
        environment = {**os.environ, "GIT_DIR": os.devnull, "OMP_NUM_THREADS": "1",
                       "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": import_path(),
                       "FGVC_TEST": str(tmp_path)}  # fmt: skip
        launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
        return subprocess.run(
            [sys.executable, *launch, str(program), *places, *overrides],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=HANG,
        )

    return start


SMALL = (
    *MINI,
    "dataset.subset=tiny",
    *BIRDS,
    "runtime.num_workers=0",
)


@pytest.mark.slow
def test_torchrun_starts_a_finetune_and_is_stamped(torchrun, tmp_path, wait_for_processes):
    done = torchrun("task=train", "task.epochs=1", "task.batch_size=4", *SMALL)
    assert done.returncode == 0, done.stderr
    (stamp,) = tmp_path.glob("outputs/*/*/*/env_stamp.json")
    recorded = json.loads(stamp.read_text())
    assert (recorded["world_size"], recorded["launch"]) == (2, "torchrun, 2 processes")
    wait_for_processes()


@pytest.mark.slow
def test_ranks_of_torchrun_extract_features(torchrun, run, tmp_path, monkeypatch):
    """A second probe reads them from the cache and releases its ranks."""
    monkeypatch.setattr(features, "SHARD", 8)
    usual = ("head=knn", "head.k=3", *SMALL, "runtime.threads=1")
    results = {}
    for name, start in {"one": run, "two": torchrun, "cached": torchrun}.items():
        cache = tmp_path / ("cache-one" if name == "one" else "cache-two")
        places = (f"runtime.cache_root={cache}", f"runtime.output_root={tmp_path / name}")
        done = start(*usual, *places)
        assert getattr(done, "code", getattr(done, "returncode", None)) == 0, done
        (folder,) = (path.parent for path in (tmp_path / name).glob("*/*/*/metrics.json"))
        cost = json.loads((folder / "metrics.json").read_text())["cost"]
        stamp = json.loads((folder / "env_stamp.json").read_text())
        shards = {
            path.relative_to(cache).as_posix(): path.read_bytes()
            for path in cache.glob("features/*/*.safetensors")
        }
        results[name] = shards, (folder / "predictions.parquet").read_bytes(), cost["forwarded"]
        launch = "one process" if name == "one" else "torchrun, 2 processes"
        assert stamp["launch"] == launch
    assert results["one"] == results["two"]
    assert results["one"][2] == 18 + 12
    assert len(results["one"][0]) == 3 + 2
    assert results["cached"] == (*results["two"][:2], 0)


WAITING = """
import os, pathlib, threading, time
from fgvc.parallel.process_group import ProcessGroup
from fgvc.pipeline import features
from fgvc.run import script

features.SHARD, barrier = 4, ProcessGroup.barrier

def write_pid(name):
    pathlib.Path(name + "-partial").write_text(str(os.getpid()))
    os.replace(name + "-partial", name)

def wait(group):
    sleep = time.sleep

    def write_and_sleep(seconds):  # the barrier sleeps where it has begun to wait
        time.sleep = sleep
        write_pid({reached!r})
        sleep(seconds)

    time.sleep = write_and_sleep
    barrier(group)

def hang(*arguments):
    write_pid({reached!r} + "-rank-1")
    threading.Event().wait()

if os.environ["RANK"] == "0":
    ProcessGroup.barrier = wait
else:
    features.FeatureExtractor.compute = hang
script()
"""


@pytest.fixture
def no_process_remains(running_processes):
    """Kill the processes of a failed test, because its ranks would wait forever."""
    yield
    for pid in running_processes("program.py"):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.fault(45)
@pytest.mark.slow
@pytest.mark.usefixtures("no_process_remains")
@pytest.mark.parametrize("target", ["rank-0", "torchrun"])
def test_a_stop_under_torchrun_ends_an_extraction_though_a_rank_does_not_answer(
    places, tmp_path, wait_until, running_processes, target
):
    """Rank 0 waits for the shard of rank 1, which ignores signals, until the grace period ends.

    Then rank 1 is killed; torchrun would kill it after 30 seconds.
    """
    program, reached, log = (tmp_path / name for name in ("program.py", "reached", "log.txt"))
    program.write_text(WAITING.format(reached=str(reached)))
    environment = {**os.environ, "GIT_DIR": os.devnull, "OMP_NUM_THREADS": "1",
                   "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": import_path(),
                       "FGVC_TEST": str(tmp_path)}  # fmt: skip
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    options = ("head=knn", "head.k=3", "runtime.run_id=r", "runtime.stop_grace=0.5")
    cache = f"runtime.cache_root={tmp_path / 'cache'}"
    with log.open("w") as output:
        job = subprocess.Popen(
            [sys.executable, *launch, str(program), *places, *SMALL, *options, cache],
            env=environment,
            stdout=output,
            stderr=output,
        )
        arrived = (reached, tmp_path / "reached-rank-1")
        wait_until(lambda: all(path.exists() for path in arrived) or job.poll() is not None)
        assert job.poll() is None, log.read_text()
        rank_0, rank_1 = (int(path.read_text()) for path in arrived)
        os.kill(rank_0 if target == "rank-0" else job.pid, signal.SIGTERM)
        wait_until(lambda: "fgvc: " in log.read_text() or job.poll() is not None)
        os.kill(rank_1, signal.SIGKILL)
        assert job.wait(HANG) != 0
    said = log.read_text()
    (line,) = (line for line in said.splitlines() if line.startswith("fgvc: "))
    assert line.startswith("fgvc: SIGTERM: no answer from the other ranks")
    assert "finished shards are kept" in line
    if target == "rank-0":  # torchrun reports how it ended; after its own signal it does not
        assert re.search(r"exitcode +: 75 \(", said), said
    (path,) = tmp_path.glob("outputs/r/*/in-progress/status.json")
    assert json.loads(path.read_text())["state"] == "preempted"
    wait_until(lambda: not running_processes("program.py"))


@pytest.mark.slow
def test_torchrun_is_refused_in_one_line_and_at_once(torchrun, tmp_path, wait_for_processes):
    done = torchrun("task=report", *SMALL)
    assert "SIGKILL" not in done.stderr  # which torchrun sends after 30 s
    assert done.returncode != 0
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("fgvc: "))
    assert "task=report runs as one process: start it without torchrun" in line
    assert not (tmp_path / "outputs").exists()
    wait_for_processes()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("-m", "task=train", "seed=0,1"), "use runtime.nproc=2 and no torchrun"),
        (("task=train", "task.epoch=1"), "task.epochs"),
    ],
    ids=["sweep", "typo"],
)
def test_what_else_rank_0_refuses(places, tmp_path, monkeypatch, capfd, overrides, message):
    """Only rank 0 composes the config; the other ranks are ended as above."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main([*overrides, *SMALL, *places]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("fgvc: ")
    assert message in line
    assert not (tmp_path / "outputs").exists()
