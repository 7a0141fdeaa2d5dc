"""The launchers: one sweep is one table under each, and what is lost or stopped has its row."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from fgvc.launch.launched_job import STOP
from fgvc.run import main

HERE = "serial"
LOST = {"joblib": 2, "submitit_local": 1}  # joblib kills all its workers when it loses one
LAUNCHERS = {"joblib": "loky", "submitit_local": "submitit.core._submit"}  # a worker's command
ASKED = "head.k=3,4,5,6,1000"  # the last one exceeds the training images
# of a row: when it ran, and where its sweep was told to write
OTHER = ("seconds", "started", "traceback", "choices")

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def swept(shared_places, tmp_path_factory) -> Iterator[Callable[[str], Path]]:
    """swept(launcher) -> the folder of the sweep that it ran; each runs once."""
    found: dict[str, Path] = {}
    alone = pytest.MonkeyPatch()
    alone.setenv("GIT_DIR", os.devnull)  # code that is edited meanwhile is another answer

    def folder(launcher: str) -> Path:
        if launcher not in found:
            root = tmp_path_factory.mktemp(launcher)
            assert main(command(root, shared_places, launcher)) == 1
            found[launcher] = root
        return found[launcher]

    yield folder
    alone.undo()


def command(root: Path, shared: dict[str, Path], launcher: str) -> list[str]:
    birds = ("classes=6", "train_per_class=10", "test_per_class=5", "side=128")
    return [
        "-m",
        f"hydra/launcher={launcher}",
        "backbone=vit",
        "backbone.size=mini",
        "backbone.pretrained=false",
        "runtime.stack_check=false",
        *(f"dataset.generator.{one}" for one in birds),
        "dataset.subset=tiny",
        "runtime.num_workers=0",
        "runtime.threads=1",
        f"runtime.data_root={shared['data']}",
        f"runtime.cache_root={shared['cache']}",
        f"runtime.output_root={root / 'outputs'}",
        f"runtime.multirun_root={root / 'multirun'}",
        "runtime.run_id=x",
        "head=knn",
        ASKED,
    ]


def table(root: Path) -> dict[str, Any]:
    return json.loads((root / "multirun/x/sweep.json").read_text())


def rows(root: Path) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in row.items() if key not in OTHER}
        for row in table(root)["jobs"]
    ]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_same_sweep_gives_the_same_table_under_each(launcher, swept):
    here, there = swept(HERE), swept(launcher)
    assert table(here)["counts"] == {"done": 4, "failed": 1}
    assert rows(there) == rows(here)
    for row in rows(here):
        if row["state"] != "done":
            assert "exceeds the 12 training images" in row["line"]
            continue
        mine, theirs = (
            json.loads((root / "outputs" / row["folder"] / "metrics.json").read_text())
            for root in (here, there)
        )
        for numbers in (mine, theirs):
            del numbers["cost"]
            for read in numbers["test_read_log"]:
                del read["time"]
        assert mine == theirs
        for name in ("ckpt.bin", "predictions.parquet"):
            files = [root / "outputs" / row["folder"] / name for root in (here, there)]
            assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.fault(18)
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_killed_worker_is_a_failed_row_and_ctrl_c_saves_the_rest(launcher, begun, tmp_path):
    three = ("seed=0,1,2", "task.epochs=200", "runtime.run_id=x")
    job = begun("-m", f"hydra/launcher={launcher}", *three)

    def saved() -> int:
        return len({one.parent for one in tmp_path.glob("outputs/x/*/in-progress/resume/state-*")})

    job.until(lambda: saved() >= 2)
    sweep = psutil.Process(job.process.pid)
    name = LAUNCHERS[launcher]
    workers = [one for one in sweep.children(recursive=True) if name in " ".join(one.cmdline())]
    next(one for one in workers if one.children()).kill()
    job.until(lambda: saved() >= 3)  # the one that had not begun begins
    children = sweep.children(recursive=True)
    job.send(signal.SIGINT)
    assert job.wait() == 75, job.said
    assert psutil.wait_procs(children, timeout=60)[1] == []
    told = sorted((row["state"], row["line"]) for row in table(tmp_path)["jobs"])
    lost, stopped = told[: LOST[launcher]], told[LOST[launcher] :]
    assert {state for state, _ in lost} == {"failed"}
    assert all("worker" in line for _, line in lost)
    assert {state for state, _ in stopped} == {"preempted"}
    assert not (tmp_path / "multirun/x" / STOP).exists()
