"""The launchers: a sweep gives the same table under each, and lost or stopped jobs have a row."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from fgvc.launch.launcher_job import STOP
from fgvc.run import main
from tests.jobs import BIRDS, HANG, MINI, places_in

SERIAL = "serial"
LOST = {"joblib": 2, "submitit_local": 1}  # joblib kills all its workers when it loses one
LAUNCHERS = {"joblib": "loky", "submitit_local": "submitit.core._submit"}  # a worker's command
K = "head.k=3,4,1000"  # the last one exceeds the training images
# keys of a row that differ between two runs of a sweep
VARYING = ("seconds", "started", "traceback", "choices")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sweep_folder(shared_places, tmp_path_factory) -> Iterator[Callable[[str], Path]]:
    """sweep_folder(launcher) -> the folder of a sweep under this launcher; each runs once."""
    roots: dict[str, Path] = {}
    patch = pytest.MonkeyPatch()
    patch.setenv("GIT_DIR", os.devnull)  # code edited meanwhile would make other runs

    def folder(launcher: str) -> Path:
        if launcher not in roots:
            roots[launcher] = tmp_path_factory.mktemp(launcher)
            assert main(command(roots[launcher], shared_places, launcher)) == 1
        return roots[launcher]

    yield folder
    patch.undo()


def command(root: Path, shared: dict[str, Path], launcher: str) -> list[str]:
    return [
        "-m",
        f"hydra/launcher={launcher}",
        *MINI,
        "runtime.stack_check=false",
        *BIRDS,
        "dataset.subset=tiny",
        "runtime.num_workers=0",
        "runtime.threads=1",
        *places_in(root, shared),
        "runtime.run_id=x",
        "head=knn",
        K,
    ]


def table(root: Path) -> dict[str, Any]:
    return json.loads((root / "multirun/x/sweep.json").read_text())


def rows(root: Path) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in row.items() if key not in VARYING}
        for row in table(root)["jobs"]
    ]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_each_launcher_gives_the_same_table(launcher, sweep_folder):
    serial, other = sweep_folder(SERIAL), sweep_folder(launcher)
    assert table(serial)["counts"] == {"done": 2, "failed": 1}
    assert rows(other) == rows(serial)
    for row in rows(serial):
        if row["state"] != "done":
            assert "head.k=1000 exceeds the 12 images" in row["line"]
            continue
        metrics = [
            json.loads((root / "outputs" / row["folder"] / "metrics.json").read_text())
            for root in (serial, other)
        ]
        for numbers in metrics:
            del numbers["cost"]
            for read in numbers["test_read_log"]:
                del read["time"]
        assert metrics[0] == metrics[1]
        for name in ("ckpt.bin", "predictions.parquet"):
            files = [root / "outputs" / row["folder"] / name for root in (serial, other)]
            assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.fault(18)
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_killed_worker_is_a_failed_row_and_ctrl_c_saves_the_rest(
    launcher, start_finetune, tmp_path
):
    three_jobs = ("seed=0,1,2", "task.epochs=200", "runtime.run_id=x")
    sweep = start_finetune("-m", f"hydra/launcher={launcher}", *three_jobs)

    def jobs_with_state() -> int:
        states = tmp_path.glob("outputs/x/*/in-progress/resume/state-*")
        return len({state.parent for state in states})

    sweep.until(lambda: jobs_with_state() >= 2)
    process, name = psutil.Process(sweep.process.pid), LAUNCHERS[launcher]
    children = process.children(recursive=True)
    workers = [child for child in children if name in " ".join(child.cmdline())]
    next(worker for worker in workers if worker.children()).kill()
    sweep.until(lambda: jobs_with_state() >= 3)  # the third job starts
    children = process.children(recursive=True)
    sweep.send(signal.SIGINT)
    assert sweep.wait() == 75, sweep.output
    assert psutil.wait_procs(children, timeout=HANG)[1] == []
    ends = sorted((row["state"], row["line"]) for row in table(tmp_path)["jobs"])
    lost, stopped = ends[: LOST[launcher]], ends[LOST[launcher] :]
    assert {state for state, _ in lost} == {"failed"}
    assert all("worker" in line for _, line in lost)
    assert {state for state, _ in stopped} == {"preempted"}
    assert not (tmp_path / "multirun/x" / STOP).exists()
