"""A sweep of trainings on a real SLURM cluster of one node: preempted, queued again, the same bits.

tests/slurm/cluster.sh install && python -m pytest tests/launch/test_slurm.py -s

Prints what squeue said of the jobs, a line for every change, and what the sweep said.
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
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, NEEDED)),
        reason="no SLURM to start here: as root, tests/slurm/cluster.sh install",
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


class Watched:
    """A sweep on the cluster, and how SLURM says it goes: one line for every change."""

    def __init__(self, log: Path, overrides: list[str]) -> None:
        self.log, self.story = log, []
        command = [sys.executable, "-m", "fgvc.run", "-m", "hydra/launcher=submitit_slurm"]
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [*command, *overrides], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT
            )

    def states(self) -> dict[str, str]:
        lines = slurm("squeue", "--noheader", "--array", "--states=all", "--format=%i|%T %r")
        found = dict(line.split("|") for line in lines.splitlines())
        if found and found != (self.story[-1] if self.story else None):
            self.story.append(found)
        return found

    def until(self, condition: Callable[[], object], seconds: float = 240.0) -> Any:
        end = time.monotonic() + seconds
        while not (found := condition()):
            self.states()
            assert time.monotonic() < end, (self.story, self.log.read_text())
            time.sleep(0.05)
        return found

    def number(self) -> str:
        (found,) = re.findall(r"SLURM job (\d+)", self.log.read_text())
        return found

    def wait(self) -> int:
        self.until(lambda: self.process.poll() is not None)
        return self.process.returncode


@pytest.fixture
def watched(cluster, tmp_path) -> Iterator[Callable[..., Watched]]:
    started: list[Watched] = []

    def start(*overrides: str) -> Watched:
        started.append(Watched(tmp_path / f"said-{len(started)}.txt", list(overrides)))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()
        print("\n".join(str(states) for states in one.story), one.log.read_text(), sep="\n")


@pytest.fixture
def sweep(watched, tmp_path) -> Callable[..., Watched]:
    """sweep(alone, seeds, cores) -> runs as the one that was done alone, on the cluster."""

    def start(alone: Any, seeds: str, cores: int) -> Watched:
        own = ("seed=", "runtime.output_root=")
        given = [one for one in alone.overrides if not one.startswith(own)]
        root = f"runtime.output_root={tmp_path / 'there'}"
        return watched(*given, f"seed={seeds}", root, "runtime.run_id=x", f"{CORES}={cores}")

    return start


def saved(alone: Any, root: Path) -> bool:
    """Whether the same run on the cluster has a state to go on from."""
    return any(root.glob(f"x/{alone.folder.parent.name}/in-progress/resume/state-*.pt"))


@pytest.mark.fault(3)
def test_preempted_and_queued_again_it_ends_as_if_nothing_had_been(finetune, told, sweep, tmp_path):
    alone = [finetune(*LONGER, f"seed={seed}") for seed in ("0", "1")]
    there = sweep(alone[0], "0,1", 1)
    there.until(lambda: saved(alone[0], tmp_path / "there"))
    number = there.number()
    slurm("scontrol", "requeue", f"{number}_0")
    there.until(lambda: "BeginTime" in there.states().get(f"{number}_0", ""))
    slurm("scontrol", "update", f"JobId={number}_0", "StartTime=now")  # not in two minutes
    assert there.wait() == 0
    rows = json.loads((tmp_path / "multirun/x/sweep.json").read_text())["jobs"]
    assert [row["state"] for row in rows] == ["done", "done"]
    folders = [tmp_path / "there" / row["folder"] for row in rows]
    assert [told(folder) for folder in folders] == [told(one.folder) for one in alone]
    resumed = [json.loads((folder / "metrics.json").read_text())["resumed"] for folder in folders]
    assert resumed[0]["step"] >= 1
    assert resumed[1] is None


def test_ctrl_c_cancels_what_waits_and_what_runs_saves_and_goes_on_anywhere(
    finetune, told, sweep, tmp_path
):
    alone = finetune(*LONGER)
    there = sweep(alone, "0,1", os.cpu_count())  # one at a time
    there.until(lambda: saved(alone, tmp_path / "there"))
    there.process.send_signal(signal.SIGINT)
    assert there.wait() == 75
    assert there.states()[f"{there.number()}_1"].startswith("CANCELLED")
    rows = json.loads((tmp_path / "multirun/x/sweep.json").read_text())["jobs"]
    assert [row["state"] for row in rows] == ["preempted", "not begun"]
    here = finetune(*LONGER, f"runtime.output_root={tmp_path / 'there'}", "runtime.run_id=x")
    assert here.code == 0, here.err
    assert here.json("metrics.json")["resumed"]["step"] >= 1
    assert told(here.folder) == told(alone.folder)
