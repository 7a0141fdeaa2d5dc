"""A sweep: every job in its own process, with a row in the table after any end."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import psutil
import pytest

from fgvc.launch import job_process
from fgvc.report import sweep_table as rows
from fgvc.run import main
from fgvc.store.file_lock import lock
from tests.jobs import BIRDS, FORKED, HANG, MINI, ROOT, import_path, places_in

# the head's k, which identifies a job, and the fault injected where its head is fitted
FAULTS = {
    "11": "raise RuntimeError('an injected fault')",
    "12": "sys.exit(3)",
    "13": "raise MemoryError('no room')",
    "14": "os.kill(os.getpid(), signal.SIGKILL)",
    "15": "os._exit(0)",
}
EXPECTED = {
    "11": ("failed", "RuntimeError: an injected fault"),
    "12": ("failed", "the job called sys.exit(3)"),
    "13": ("oom", "MemoryError: no room"),
    "14": ("failed", "its process was killed by SIGKILL, as when memory runs out"),
    "15": ("failed", "its process ended with exit code 0 and without a result"),
}
GOOD = ("3", "4", "5")
# sitecustomize.py of the jobs: patches fgvc.pipeline.fit_head when it is imported
INJECTION = """
import importlib.abc, importlib.util, os, signal, sys

class Hook(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "fgvc.pipeline.fit_head":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            fit_head = module.fit_head
            def faulty(experiment, *features):
                exec(FAULTS.get(str(experiment.conf.head.k), ""))
                return fit_head(experiment, *features)
            module.fit_head = faulty
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Hook())
"""


class FinishedSweep:
    """Exit code, output and table of a sweep."""

    def __init__(self, code: int, out: str, err: str, root: Path) -> None:
        self.code, self.out, self.err, self.root = code, out, err, root
        self.table: dict[str, Any] = json.loads((root / "multirun/x/sweep.json").read_text())

    def row(self, k: str) -> dict[str, Any]:
        (row,) = [row for row in self.table["jobs"] if row["name"] == f"head.k={k}"]
        return row

    def folder(self, k: str) -> Path:
        return self.root / "outputs" / self.row(k)["folder"]


def command(root: Path, shared: dict[str, Path], *overrides: str) -> list[str]:
    return [
        "-m",
        *MINI,
        "runtime.num_workers=0",
        *BIRDS,
        "runtime.threads=1",
        *places_in(root, shared),
        "runtime.run_id=x",
        "head=knn",
        *overrides,
    ]


ALL_K = f"head.k={','.join((GOOD[0], *FAULTS, *GOOD[1:]))}"


@pytest.fixture(scope="module")
def faulty(shared_places, tmp_path_factory) -> FinishedSweep:
    """Eight jobs; five of them fail, each in a different way."""
    root = tmp_path_factory.mktemp("faulty")
    (root / "sitecustomize.py").write_text(f"FAULTS = {FAULTS!r}\n{INJECTION}")
    done = subprocess.run(
        [sys.executable, "-m", "fgvc.run", *command(root, shared_places, ALL_K)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": import_path(root), "COLUMNS": "80"},
    )
    return FinishedSweep(done.returncode, done.stdout, done.stderr, root)


@pytest.fixture(scope="module")
def again(faulty, shared_places, tmp_path_factory) -> FinishedSweep:
    """The same command without the faults."""
    before = {k: faulty.folder(k) for k in GOOD}
    assert main(command(faulty.root, shared_places, ALL_K)) == 0
    sweep = FinishedSweep(0, "", "", faulty.root)
    assert {k: sweep.folder(k) for k in GOOD} == before
    return sweep


@pytest.mark.slow
@pytest.mark.fault(17, 18)
def test_a_job_that_fails_in_any_way_has_a_row_and_a_status(faulty):
    assert faulty.code == 1
    assert faulty.table["counts"] == {"done": 3, "failed": 4, "oom": 1}
    for k, (state, line) in EXPECTED.items():
        row = faulty.row(k)
        assert (row["state"], row["line"]) == (state, line)
        status = json.loads((faulty.folder(k) / "status.json").read_text())
        assert status["state"] == state
        assert status["error"] in (line, "SystemExit: 3")
        assert (faulty.folder(k) / "run.log").stat().st_size > 0
    assert "fgvc/task/probe.py" in faulty.row("11")["traceback"]


@pytest.mark.slow
@pytest.mark.fault(17, 18)
def test_the_other_jobs_give_the_same_bytes_as_alone(faulty, run):
    alone = run(*MINI, "head=knn", f"head.k={GOOD[1]}", "runtime.threads=1")
    assert alone.code == 0, alone.err
    folder = faulty.folder(GOOD[1])
    assert folder.name == alone.folder.name
    for name in ("predictions.parquet", "per_class.csv", "ckpt.bin"):
        assert (folder / name).read_bytes() == (alone.folder / name).read_bytes()


@pytest.mark.slow
def test_the_table_names_every_job_once_within_80_columns(faulty):
    head, _, table = faulty.out.partition("jobs of x: 3 done, 4 failed, 1 oom")
    assert "comparable" in head
    assert max(map(len, table.splitlines()[:13])) <= 80
    lines = [line.split("│") for line in table.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line[1:-1]] for line in lines]
    assert [line[:2] for line in cells] == [
        [str(number), k] for number, k in enumerate((GOOD[0], *FAULTS, *GOOD[1:]), start=1)
    ]
    for k, cell in zip((GOOD[0], *FAULTS, *GOOD[1:]), (line[2] for line in cells), strict=True):
        assert bool(re.fullmatch(r"\d+\.\d \[\d+\.\d, \d+\.\d\]", cell)) == (k in GOOD)
    for k, (state, line) in EXPECTED.items():
        assert f"{state}: head.k={k}: {line}" in table
    assert "the same command with runtime.run_id=x" in table


@pytest.mark.slow
def test_a_line_per_job_and_the_provenance_once(faulty):
    """Its page is named first; each job says its place and how long all of them take."""
    lines = faulty.out.splitlines()
    assert lines[0].endswith("multirun/x/sweep.html")
    jobs = [line for line in lines if line.startswith("job ")]
    assert jobs[0] == "job 1 of 8: head.k=3; time left unknown until a job ends"
    assert re.fullmatch(r"job 1 of 8 done: top-1 [\d.]+ \[[\d.]+, [\d.]+\], [\d.]+ s", jobs[1])
    assert re.fullmatch(r"job 2 of 8: head.k=11; about \d+ (s|min) left", jobs[2])
    assert re.fullmatch(r"job 8 of 8 done: .*", jobs[15])
    assert max(map(len, jobs)) <= 80
    for text in ("dataset synthetic, licence", "dataset synthetic, contamination", "note: synth"):
        assert sum(line.startswith(text) for line in lines) == 1, text
    assert "┃ %" not in faulty.out  # the table of a single run
    log = (faulty.folder(GOOD[1]) / "run.log").read_text()
    assert "note: synthetic data" in log  # also of a job that does not print it


@pytest.mark.slow
def test_no_library_reports_leaks_when_the_server_ends(faulty):
    """triton does if its objects are frozen; the server ends after the sweep."""
    assert "fgvc: RuntimeError: an injected fault" in faulty.err
    assert "leaked" not in faulty.err


def test_a_sweep_and_its_workers_load_no_torch():
    """Only the server that forks the jobs does: each worker of a launcher would load it too."""
    code = "import sys, fgvc.launch.launchers, fgvc.launch.sweep; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.fault(17)
def test_the_page_links_finished_jobs_and_states_why_others_failed(faulty):
    page = (faulty.root / "multirun/x/sweep.html").read_text()
    report = faulty.folder(GOOD[0]) / "report.html"
    assert f'href="{os.path.relpath(report, faulty.root / "multirun/x")}"' in page
    assert "RuntimeError: an injected fault" in page
    assert page.count("<tr data-top1") == 8
    assert "Last written at" not in page  # it has ended
    assert f": {len(GOOD)} done, " in page


@pytest.mark.slow
@pytest.mark.fault(16, 19)
def test_the_same_command_again_skips_finished_jobs_and_runs_the_rest(again, faulty):
    states = {row["name"]: row["state"] for row in again.table["jobs"]}
    assert states == {f"head.k={k}": "skipped" for k in GOOD} | {
        f"head.k={k}": "done" for k in FAULTS
    }
    # of the run that the repetition found, not of finding it
    assert all(again.row(k)["seconds"] == faulty.row(k)["seconds"] for k in GOOD)
    assert not list((again.root / "outputs/x").glob("*/in-progress"))


@pytest.mark.fault(15)
def test_a_second_process_does_not_run_the_same_sweep(shared_places, tmp_path, capfd):
    with lock(tmp_path / "multirun/x/.lock"):
        assert main(command(tmp_path, shared_places, "head.k=3,4")) == 1
    assert "is held by pid" in capfd.readouterr().err
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_many_jobs_leave_memory_flat(shared_places, tmp_path, monkeypatch):
    """Memory of the sweep and of the server that forks its jobs, from the fifth job on.

    For the sweep, memory blocks of Python: its resident size also counts garbage of earlier tests
    in this process.
    """
    memory: list[tuple[int, int]] = []
    write = rows.write_row

    def recording(sweep: Path, row: rows.Row) -> None:
        write(sweep, row)
        if row.state != "running":
            gc.collect()
            server = forkserver._forkserver._forkserver_pid  # pyright: ignore[reportAttributeAccessIssue]
            memory.append((sys.getallocatedblocks(), psutil.Process(server).memory_info().rss))

    monkeypatch.setattr(rows, "write_row", recording)
    k = ",".join(map(str, [3, *range(1001, 1015)]))  # more neighbours than images: fails fast
    assert main(command(tmp_path, shared_places, f"head.k={k}")) == 1
    assert len(memory) == 15
    blocks, servers = (last - first for first, last in zip(memory[4], memory[-1], strict=True))
    print("MEASURED", blocks, servers, [m[1] - memory[4][1] for m in memory])
    assert servers < 2**19
    assert blocks < 10 * 2500  # Hydra keeps the config of each job until the end: 2,000 blocks
    sweep = FinishedSweep(1, "", "", tmp_path)
    assert sweep.table["counts"] == {"done": 1, "failed": 14}


@pytest.mark.slow
def test_a_spawned_process_does_the_same(shared_places, tmp_path, monkeypatch, run):
    """As on macOS, where a process with torch loaded cannot be forked."""
    contexts = []

    def spawned():
        contexts.append(multiprocessing.get_context("spawn"))
        return contexts[-1]

    monkeypatch.setattr(job_process, "_context", spawned)
    alone = run(*MINI, "head=knn", f"head.k={GOOD[2]}", "runtime.threads=1")
    assert alone.code == 0, alone.err
    assert main(command(tmp_path, shared_places, f"head.k={GOOD[2]}")) == 0
    assert len(contexts) == 1
    (checkpoint,) = (tmp_path / "outputs").glob("x/*/*/ckpt.bin")
    assert checkpoint.parent.name == alone.folder.name


# --- signals ---


@pytest.mark.fault(4, 19)
@pytest.mark.slow
def test_signals_save_and_stop_the_job_and_leave_no_process(start_finetune, wait_until, tmp_path):
    sweep = ("-m", "seed=0,1", "task.epochs=40", "runtime.run_id=x")
    job = start_finetune(*sweep)
    home = tmp_path / "outputs/x"
    page = tmp_path / "multirun/x/sweep.html"
    job.until(lambda: list(home.glob("*/in-progress/resume/*")) and ">running<" in page.read_text())
    assert "Last written at" in page.read_text()
    job.send(signal.SIGINT)
    assert job.wait() == 75, job.output
    assert "Last written at" not in page.read_text()
    table = json.loads((tmp_path / "multirun/x/sweep.json").read_text())
    assert [row["state"] for row in table["jobs"]] == ["preempted", "not begun"]
    assert "the same command with runtime.run_id=x" in job.output

    # resumes; then its sweep is killed, which the job notices
    job = start_finetune(*sweep, setup=FORKED)
    job.until(lambda: "resumed after step" in job.output)
    job.send(signal.SIGKILL)
    job.wait()
    assert "Last written at" in page.read_text()  # nothing could write it
    (status,) = home.glob("*/in-progress/status.json")
    wait_until(lambda: json.loads(status.read_text())["state"] == "preempted")

    job = start_finetune(*sweep, setup=FORKED)
    job.until(lambda: "resumed after step" in job.output)
    children = psutil.Process(job.process.pid).children(recursive=True)
    job.send(signal.SIGINT)
    job.until(lambda: "a second signal" in job.output)
    job.send(signal.SIGINT)
    assert job.wait() == 75, job.output
    assert psutil.wait_procs(children, timeout=HANG)[1] == []
