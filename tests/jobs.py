"""Fixtures: a small dataset of synthetic birds, and runs in this process or in a child process."""

from __future__ import annotations

import functools
import importlib
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fgvc.config.compose import composed, typed
from fgvc.data.datasets.synthetic import folder as synthetic
from fgvc.record import env_stamp
from fgvc.record.git_state import CODE, GitState, git_state
from fgvc.run import main
from fgvc.store.feature_cache import ComputeMany
from fgvc.types import Features
from tests.narrow import not_none

BIRDS = (
    "dataset.generator.classes=6",
    "dataset.generator.train_per_class=10",
    "dataset.generator.test_per_class=5",
    "dataset.generator.side=128",
)
# seconds after which a wait counts as a hang. A test asserts no bound by it: a loaded machine takes
# many times longer than an idle one
HANG = 240.0
ROOT = Path(__file__).resolve().parents[1]


def shard_by_shard(compute: Callable[[np.ndarray], Features]) -> ComputeMany:
    """Compute missing shards of a feature cache one after another."""
    return lambda shards: ((index, compute(row_n)) for index, row_n in enumerate(shards))


BASE = ("backbone=vit_tiny", "backbone.pretrained=false", "runtime.num_workers=0")
MINI = ("backbone=vit", "backbone.size=mini", "backbone.pretrained=false")
# the whole path of C, 45 values, takes half of a small probe; with one of these, a run has another
# path, or none
OTHER_PATHS = ("task=", "head=", "experiment=", "sweep=", "recipe=", "task.c_")


@dataclass(frozen=True)
class RunResult:
    """One finished run: exit code, folder (None if it failed) and output."""

    overrides: tuple[str, ...]
    code: int
    folder: Path | None
    out: str
    err: str

    def json(self, name: str) -> Any:
        assert self.folder is not None, self.err
        return json.loads((self.folder / name).read_text())


@pytest.fixture(scope="session")
def shared_tmp_path(tmp_path_factory) -> Path:
    """A folder shared by the workers of pytest-xdist; writers must hold an fgvc file lock."""
    here = tmp_path_factory.getbasetemp()
    return here.parent if "PYTEST_XDIST_WORKER" in os.environ else here


@pytest.fixture(scope="session")
def shared_places(tmp_path_factory, shared_tmp_path) -> dict[str, Path]:
    """Data and cache roots shared by all tests: their content is addressed by digest."""
    data = shared_tmp_path / "data-of-all"
    data.mkdir(exist_ok=True)
    return {"data": data, "cache": tmp_path_factory.mktemp("cache")}


@pytest.fixture(scope="session")
def birds(shared_places) -> Path:
    """The folder of synthetic birds that most runs use."""
    places = [f"runtime.{name}_root={place}" for name, place in shared_places.items()]
    conf = typed(composed([*BASE, *BIRDS, *places]))
    root, generator = conf.dataset.root, conf.dataset.generator
    return synthetic.write(Path(not_none(root)), not_none(generator))


@pytest.fixture(scope="session")
def real_cache(shared_tmp_path) -> Path:
    """One cache for the default probe of real photographs: their features are extracted once."""
    return shared_tmp_path / "real-cache"


def places_in(root: Path, shared: dict[str, Path]) -> list[str]:
    """The folders of runs and sweeps below `root`, with the shared data and cache."""
    return [
        *(f"runtime.{name}_root={place}" for name, place in shared.items()),
        f"runtime.output_root={root / 'outputs'}",
        f"runtime.multirun_root={root / 'multirun'}",
    ]


@pytest.fixture
def places(shared_places, tmp_path) -> list[str]:
    return [*places_in(tmp_path, shared_places), f"runtime.weights_root={tmp_path / 'weights'}"]


@functools.cache
def _state_of_code(environment: tuple[tuple[str, str], ...]) -> GitState:
    return git_state(CODE)


@pytest.fixture
def run(places, tmp_path, capfd, monkeypatch) -> Callable[..., RunResult]:
    """Run fgvc in this process with the given overrides; later overrides win. The state of this
    checkout, which takes a tenth of a small run, is read once per environment.

    birds=False: without the small synthetic dataset. bare=True: without any default override.
    """

    def remembered(folder: Path = CODE) -> GitState:
        if folder != CODE:
            return git_state(folder)
        names = [name for name in os.environ if name.startswith("GIT_") or name in ("HOME", "PATH")]
        return _state_of_code(tuple((name, os.environ[name]) for name in sorted(names)))

    monkeypatch.setattr(env_stamp, "git_state", remembered)

    def start(*overrides: str, birds: bool = True, bare: bool = False) -> RunResult:
        defaults = () if bare else (*BASE, *(BIRDS if birds else ()))
        if defaults and not any(item.startswith(OTHER_PATHS) for item in overrides):
            defaults = (*defaults, "task.c_count=9")
        chosen = last_of_each(*defaults, *places, *overrides)
        root = Path(chosen["runtime.output_root"].partition("=")[2])
        before = set(complete_folders(root))
        capfd.readouterr()
        code = main(list(chosen.values()))
        captured = capfd.readouterr()
        new = sorted(set(complete_folders(root)) - before)
        return RunResult(
            tuple(chosen.values()), code, new[0] if new else None, captured.out, captured.err
        )

    return start


@dataclass
class FinishedRuns:
    """Finished runs that many tests read: the run per tuple of overrides, and all their files."""

    root: Path
    ran: dict[tuple[str, ...], RunResult]
    files: dict[Path, tuple[int, int]]

    def add(self, overrides: tuple[str, ...], ran: RunResult) -> None:
        self.ran[overrides] = ran
        if ran.folder is not None:
            self.files |= _seen(ran.folder)


def _seen(folder: Path) -> dict[Path, tuple[int, int]]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


@pytest.fixture(scope="session")
def shelf(tmp_path_factory) -> Iterator[FinishedRuns]:
    shelf = FinishedRuns(tmp_path_factory.mktemp("finished"), {}, {})
    yield shelf
    files: dict[Path, tuple[int, int]] = {}
    for ran in shelf.ran.values():
        files |= _seen(ran.folder) if ran.folder is not None else {}
    assert files == shelf.files, "a test changed a shared run; use the fixture `copied`"


@pytest.fixture
def finished(run, shelf) -> Callable[..., RunResult]:
    """Like `run`, but tests with equal overrides share one run; they may only read its folder."""

    def get(*overrides: str, birds: bool = True) -> RunResult:
        key = (*overrides, *(() if birds else ("no birds",)))
        if key not in shelf.ran:
            place = f"runtime.output_root={shelf.root / str(len(shelf.ran))}"
            ran = run(*overrides, place, birds=birds)
            assert ran.code == 0, ran.err
            shelf.add(key, ran)
        return shelf.ran[key]

    return get


@pytest.fixture
def copied(finished, tmp_path) -> Callable[..., RunResult]:
    """A copy of a finished run, which the test may damage or move."""

    def get(*overrides: str) -> RunResult:
        ran = finished(*overrides)
        source = not_none(ran.folder)
        folder = tmp_path.joinpath("outputs", *source.parts[-3:])
        shutil.copytree(source, folder)
        return replace(ran, folder=folder)

    return get


@pytest.fixture
def sweep(places, capfd) -> Callable[..., tuple[int, str]]:
    """Run a sweep -> its exit code and its standard output."""

    def start(*overrides: str) -> tuple[int, str]:
        capfd.readouterr()
        code = main(["-m", *last_of_each(*BASE, *places, *overrides).values()])
        return code, capfd.readouterr().out

    return start


def last_of_each(*overrides: str) -> dict[str, str]:
    """Keep the last override of each key: Hydra refuses a key that is given twice."""
    return {item.partition("=")[0]: item for item in overrides}


def import_path(*folders: Path) -> str:
    """PYTHONPATH of a new process: `folders`, then this checkout, which need not be installed."""
    before = os.environ.get("PYTHONPATH")
    return os.pathsep.join([*map(str, folders), str(ROOT), *([before] if before else [])])


def complete_folders(root: Path) -> list[Path]:
    return [
        status.parent for status in root.rglob("status.json") if status.parent.name != "in-progress"
    ]


# --- finetunes, in processes that may be killed ---

FINETUNE = (
    "task=train",
    "backbone=vit",
    "backbone.size=mini",
    "dataset.subset=tiny",  # of 6 classes: 12 train, 6 val, 12 test
    "task.epochs=3",
    "task.batch_size=4",
    "runtime.stack_check=false",
    "runtime.device=cpu",  # for bit-equal resumes and two ranks on any machine
    # fixed here, so that a change of the recipe does not reach these tests
    "task.learning_rate=5e-4",
    "task.warmup_steps=2",
    "task.final_rate=0.01",
    "task.layer_decay=0.75",
    "task.clip_norm=1.0",
    "task.label_smoothing=0.1",
    "task.auto_augment=trivialaugment",
    "task.erasing=0.1",
    "task.crop_scale=0.3",
    "task.drop_path=0.1",
    "task.ema=null",
    "task.select=top1",
)
# setup of a sweep whose jobs are forked from itself: no server has to start
FORKED = """
import multiprocessing
from fgvc.launch import job_process
job_process._context = lambda: multiprocessing.get_context("fork")
"""
# environment of a job that does not depend on the git checkout or on other tests
ALONE = {"GIT_DIR": os.devnull, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
JOB = """
import multiprocessing, os, resource, signal, sys
for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, signal.SIG_DFL)  # the server ignores them
multiprocessing.set_start_method("fork", force=True)  # as in a process started by the user
os.environ.update(environment)
said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.dup2(said, 1), os.dup2(said, 2)
sys.argv = ["fgvc", *overrides]
if most is not None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
import torch
torch.set_num_threads(1)
exec(setup)
from fgvc.run import script
script()
"""


@pytest.fixture
def finetune(run, monkeypatch) -> Callable[..., RunResult]:
    """Run a small finetune in this process, outside any git checkout, on one thread."""
    for name, value in ALONE.items():
        monkeypatch.setenv(name, value)

    def start(*overrides: str) -> RunResult:
        birds = not any(item.startswith("dataset=") for item in overrides)
        return run(*FINETUNE, "runtime.threads=1", *overrides, birds=birds)

    return start


@pytest.fixture
def run_files(tmp_path) -> Callable[[str], list[Path]]:
    """run_files(pattern) -> sorted matching paths below the folder of the run r."""
    return lambda pattern: sorted(tmp_path.glob(f"outputs/r/*/{pattern}"))


@pytest.fixture
def stop_after(monkeypatch) -> Callable[[int], AbstractContextManager[None]]:
    """stop_after(steps): within the block, a finetune receives SIGTERM after that step."""

    @contextmanager
    def start(steps: int) -> Iterator[None]:
        from fgvc.learn.train.trainer import Trainer

        honest = Trainer.step

        def step(self: Trainer, micros: Any) -> Any:
            report = honest(self, micros)
            if self.done == steps:
                signal.raise_signal(signal.SIGTERM)
            return report

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "step", step)
            yield

    return start


@dataclass
class StartedJob:
    """A job in a child process."""

    process: Any
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    @property
    def line(self) -> str:
        """The single error line of a failed job."""
        (line,) = [text for text in self.output.splitlines() if text.startswith("fgvc: ")]
        return line

    @property
    def ended(self) -> bool:
        return not self.process.is_alive()

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds while the job runs."""
        until(lambda: condition() or self.ended)
        assert condition(), self.output

    def send(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def wait(self) -> int:
        """Wait for the exit code; a negative code is the signal that ended the job."""
        self.process.join(HANG)
        assert self.process.exitcode is not None, f"still running: {self.output}"
        return self.process.exitcode


@pytest.fixture
def start_job(places, tmp_path) -> Iterator[Callable[..., StartedJob]]:
    """Start a job in a process forked from a server that has already loaded torch.

    most: limit of a file in bytes, as on a full disk. setup: code to execute before the job.
    bare=True: without any default override.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fgvc.launch.fork_server"])  # as a sweep in this process does
    jobs: list[StartedJob] = []

    def start(
        *overrides: str,
        most: int | None = None,
        setup: str = "",
        bare: bool = False,
        **environment: str,
    ) -> StartedJob:
        birds = () if any(item.startswith("dataset=") for item in overrides) else BIRDS
        defaults = () if bare else (*BASE, *birds)
        chosen = last_of_each(*defaults, "runtime.threads=1", *places, *overrides)
        log = tmp_path / f"said-{len(jobs)}.txt"
        variables = {
            "environment": {**ALONE, **environment},
            "log": str(log),
            "most": most,
            "setup": setup,
            "overrides": list(chosen.values()),
        }
        process = context.Process(target=exec, args=(JOB, variables))
        process.start()
        jobs.append(StartedJob(process, log))
        return jobs[-1]

    yield start
    for job in jobs:
        job.process.kill()
        job.process.join()


@pytest.fixture
def start_finetune(start_job) -> Callable[..., StartedJob]:
    """Start a small finetune, or another job with other `options`, in a child process."""

    def start(*overrides: str, options: Sequence[str] = FINETUNE, **environment: str) -> StartedJob:
        return start_job(*options, *overrides, **environment)

    return start


@dataclass
class Node:
    """A torchrun process in the role of one machine."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text()

    def ranks(self) -> list[int]:
        pid = self.process.pid
        return [
            int(pid_text)
            for pid_text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]

    def until(self, condition: Callable[[], object]) -> None:
        until(lambda: condition() or self.process.poll() is not None)
        assert condition(), self.output

    def wait(self) -> int:
        """Wait for the exit code of torchrun."""
        return self.process.wait(HANG)


@pytest.fixture
def nodes(places, tmp_path) -> Iterator[Callable[..., list[Node]]]:
    """Start a finetune on two nodes of one process each, both on this machine."""
    started: list[Node] = []

    def start(*overrides: str) -> list[Node]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1"]
        launch += ["--nnodes", "2", "--master-addr", "127.0.0.1", "--master-port", str(port)]
        chosen = last_of_each(*BASE, *BIRDS, *FINETUNE, "runtime.threads=1", *places, *overrides)
        pair = []
        for rank in (0, 1):
            log = tmp_path / f"node-{len(started)}.txt"
            with log.open("w") as log_file:
                process = subprocess.Popen(
                    [*launch, "--node-rank", str(rank), "-m", "fgvc.run", *chosen.values()],
                    env={
                        **os.environ,
                        **ALONE,
                        "PYTHONPATH": import_path(),
                        "FGVC_TEST": str(tmp_path),
                    },
                    stdout=log_file,
                    stderr=log_file,
                )
            pair.append(Node(process, log))
            started.append(pair[-1])
        return pair

    yield start
    for node in started:
        if node.process.poll() is None:
            for pid in (*node.ranks(), node.process.pid):
                os.kill(pid, signal.SIGKILL)
        node.process.wait()


def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds; fail if it does not hold within HANG seconds."""
    end = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < end, f"the condition did not hold within {HANG:.0f} s"
        time.sleep(0.005)


@pytest.fixture
def wait_until() -> Callable[..., None]:
    return until


@pytest.fixture
def rank_module(tmp_path, monkeypatch) -> Callable[[str, str], ModuleType]:
    """rank_module(name, code): a module that this process and the ranks it starts can import."""

    def make(name: str, code: str) -> ModuleType:
        (tmp_path / f"{name}.py").write_text(code)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
        sys.modules.pop(name, None)
        return importlib.import_module(name)

    return make


@dataclass(frozen=True)
class RunOutcome:
    """The part of a finetune's record that an identical finetune must reproduce exactly."""

    checkpoint: bytes
    predictions: bytes
    numbers: dict[str, Any]
    curves: dict[str, list[tuple[int, float]]]


@pytest.fixture
def read_outcome() -> Callable[[Path], RunOutcome]:
    """read_outcome(folder) -> the part of a record that no interruption may change."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(folder: Path) -> RunOutcome:
        metrics = json.loads((folder / "metrics.json").read_text())
        fields = ("test", "val", "last", "selection", "fitted_on", "unreadable")
        events = EventAccumulator(str(folder / "tb"), size_guidance={"scalars": 0}).Reload()
        curves = {
            tag: [(event.step, event.value) for event in events.Scalars(tag)]
            for tag in events.Tags()["scalars"]
            if tag not in ("train/images_per_s", "train/memory_mib")
        }
        return RunOutcome(
            (folder / "ckpt.bin").read_bytes(),
            (folder / "predictions.parquet").read_bytes(),
            {name: metrics.get(name) for name in fields},
            curves,
        )

    return read
