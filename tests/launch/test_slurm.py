"""A sweep of finetunes on a real SLURM cluster of one node: preempted, requeued, same result.

tests/slurm/cluster.sh install && python -m pytest tests/launch/test_slurm.py -s

Prints the states that squeue reported, a line per change, and the output of the sweep.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "tests" / "slurm" / "cluster.sh"
NEEDED = ("sbatch", "slurmctld", "slurmd", "munged")
CORES = "hydra.launcher.cpus_per_task"
LONGER = ("task.epochs=12", "runtime.save_every=1")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, NEEDED)),
        reason="no SLURM here: as root, tests/slurm/cluster.sh install",
    ),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run([CLUSTER, "up", folder], check=True, timeout=60)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    yield folder
    del os.environ["SLURM_CONF"]
    subprocess.run([CLUSTER, "down", folder], check=True, timeout=60)


def slurm(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout


class ClusterSweep:
    """A sweep on the cluster, with every change of its jobs' states in SLURM."""

    def __init__(self, log: Path, overrides: list[str]) -> None:
        self.log, self.history = log, []
        command = [sys.executable, "-m", "fgvc.run", "-m", "hydra/launcher=submitit_slurm"]
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [*command, *overrides], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT
            )

    def states(self) -> dict[str, str]:
        lines = slurm("squeue", "--noheader", "--array", "--states=all", "--format=%i|%T %r")
        states = dict(line.split("|") for line in lines.splitlines())
        if states and states != (self.history[-1] if self.history else None):
            self.history.append(states)
        return states

    def until(self, condition: Callable[[], object], seconds: float = 240.0) -> Any:
        end = time.monotonic() + seconds
        while not (value := condition()):
            self.states()
            assert time.monotonic() < end, (self.history, self.log.read_text())
            time.sleep(0.05)
        return value

    def job_id(self) -> str:
        (job_id,) = re.findall(r"SLURM job (\d+)", self.log.read_text())
        return job_id

    def wait(self) -> int:
        self.until(lambda: self.process.poll() is not None)
        return self.process.returncode


@pytest.fixture
def start_sweep(cluster, tmp_path) -> Iterator[Callable[..., ClusterSweep]]:
    started: list[ClusterSweep] = []

    def start(*overrides: str) -> ClusterSweep:
        started.append(ClusterSweep(tmp_path / f"out-{len(started)}.txt", list(overrides)))
        return started[-1]

    yield start
    for sweep in started:
        sweep.process.kill()
        sweep.process.wait()
        print(*map(str, sweep.history), sweep.log.read_text(), sep="\n")


@pytest.fixture
def sweep(start_sweep, tmp_path) -> Callable[..., ClusterSweep]:
    """sweep(alone, seeds, cores) -> the command of the run `alone` as a sweep on the cluster."""

    def start(alone: Any, seeds: str, cores: int) -> ClusterSweep:
        own = ("seed=", "runtime.output_root=")
        shared = [item for item in alone.overrides if not item.startswith(own)]
        root = f"runtime.output_root={tmp_path / 'there'}"
        return start_sweep(*shared, f"seed={seeds}", root, "runtime.run_id=x", f"{CORES}={cores}")

    return start


def saved(alone: Any, root: Path) -> bool:
    """Whether the same run on the cluster has a state to resume from."""
    return any(root.glob(f"x/{alone.folder.parent.name}/in-progress/resume/state-*.pt"))


@pytest.mark.fault(3)
def test_a_preempted_and_requeued_job_gives_the_same_bits(finetune, read_outcome, sweep, tmp_path):
    alone = [finetune(*LONGER, f"seed={seed}") for seed in ("0", "1")]
    there = sweep(alone[0], "0,1", 1)
    there.until(lambda: saved(alone[0], tmp_path / "there"))
    job_id = there.job_id()
    slurm("scontrol", "requeue", f"{job_id}_0")
    there.until(lambda: "BeginTime" in there.states().get(f"{job_id}_0", ""))
    slurm("scontrol", "update", f"JobId={job_id}_0", "StartTime=now")  # not in two minutes
    assert there.wait() == 0
    rows = json.loads((tmp_path / "multirun/x/sweep.json").read_text())["jobs"]
    assert [row["state"] for row in rows] == ["done", "done"]
    folders = [tmp_path / "there" / row["folder"] for row in rows]
    assert [read_outcome(folder) for folder in folders] == [
        read_outcome(ran.folder) for ran in alone
    ]
    resumed = [json.loads((folder / "metrics.json").read_text())["resumed"] for folder in folders]
    assert resumed[0]["step"] >= 1
    assert resumed[1] is None


def test_ctrl_c_cancels_waiting_jobs_and_the_running_job_resumes_anywhere(
    finetune, read_outcome, sweep, tmp_path
):
    alone = finetune(*LONGER)
    there = sweep(alone, "0,1", os.cpu_count())  # one at a time
    there.until(lambda: saved(alone, tmp_path / "there"))
    there.process.send_signal(signal.SIGINT)
    assert there.wait() == 75
    assert there.states()[f"{there.job_id()}_1"].startswith("CANCELLED")
    rows = json.loads((tmp_path / "multirun/x/sweep.json").read_text())["jobs"]
    assert [row["state"] for row in rows] == ["preempted", "not begun"]
    here = finetune(*LONGER, f"runtime.output_root={tmp_path / 'there'}", "runtime.run_id=x")
    assert here.code == 0, here.err
    assert here.json("metrics.json")["resumed"]["step"] >= 1
    assert read_outcome(here.folder) == read_outcome(alone.folder)
