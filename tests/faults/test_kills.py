"""SIGKILL at random moments and at random writes of every job: no truncated file, the same result.

    FGVC_KILLS=300 FGVC_KILLS_LOG=kills.jsonl python -m pytest tests/faults/test_kills.py -s

16 kills by default: of each job one at a moment and one at a write. FGVC_KILLS_LOG keeps one line
per kill; a second run does only the seeds that the log lacks. FGVC_KILL_SEED=17 repeats one kill.
Seeds go round the jobs; see `Kill.of`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgvc.store import hashing
from tests.faults.kills import Kill, Log, Outcome, Subject, Zygote, places, records
from tests.jobs import FORKED

JOBS = ("probe", "train", "sweep", "report", "prune", "export", "audit", "weights")
TRAIN = (
    "task=train",
    "task.epochs=2",
    "task.batch_size=3",
    "dataset.val_fraction=0.25",
    "runtime.stack_check=false",
    "runtime.device=cpu",
    "runtime.save_every=1",
)
LATER = """
import datetime
import fgvc.task.prune as prune
begun = prune.now
prune.now = lambda: begun() + datetime.timedelta(days=200)
"""
PUT = """
from pathlib import Path
import fgvc.task.prune as prune
from fgvc.store.content_store import ContentStore
def put(job):  # what a run with local weights does, within a command that does nothing else
    cache = Path(job.conf.runtime.cache_root)
    store = ContentStore(cache / "weights")
    for file in sorted((cache.parent / "given").iterdir()):
        store.path(store.put(file))
prune.run = put
"""


@pytest.fixture
def zygote(tmp_path) -> Iterator[Zygote]:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    server = Zygote(scratch)
    yield server
    server.close()


@pytest.fixture
def subject(zygote, small_probe, tmp_path, read_outcome) -> Callable[[str], Subject]:
    """subject(name) -> a job, measured once."""
    root, subjects = tmp_path / "root", {}
    common = (*small_probe, "runtime.threads=1")
    small = (*common, "runtime.run_id=r")
    trained = (*(item for item in small if not item.startswith("head")), *TRAIN)
    forest = tmp_path / "forest"  # two finished runs, for the jobs that read records

    def planted() -> Path:
        if not forest.exists():
            for k in (1, 2):
                ran = zygote.run(
                    root, [*places(root), *common, f"seed={k}", f"runtime.run_id=r{k}"]
                )
                assert ran.code == 0, ran.output
            root.rename(forest)
        return forest

    def first(of: Path) -> Path:
        return sorted(records(of))[0]

    def built(name: str) -> Subject:
        match name:
            case "probe":
                return Subject(name, lambda _: small, numbers)
            case "train":
                return Subject(name, lambda _: trained, lambda of: read_outcome(first(of)))
            case "sweep":
                sweep = ("-m", *small, "seed=1,2")
                return Subject(name, lambda _: sweep, numbers, setup=FORKED)
            case "report":
                return Subject(name, lambda _: ("task=report",), table, planted())
            case "prune":
                command = ("task=prune", "task.delete=true")
                return Subject(name, lambda _: command, names, planted(), setup=LATER)
            case "export":
                return Subject(
                    name,
                    lambda of: ("task=export", f"checkpoint={first(of)}", f"task.output={of}/ex"),
                    lambda of: contents(of / "ex"),
                    planted(),
                    find_torn=exported,
                    refusal="exists already; name a new folder",
                )
            case "audit":
                return Subject(
                    name,
                    lambda of: ("task=audit", f"run={first(of)}"),
                    lambda of: contents(of / "output" / "audit"),
                    planted(),
                    find_torn=readable,
                )
            case "weights":
                command = ("task=prune",)
                return Subject(name, lambda _: command, stored, files(), PUT, misnamed)
        raise AssertionError(name)

    def files() -> Path:
        weights_folder = tmp_path / "files" / "given"
        weights_folder.mkdir(parents=True, exist_ok=True)
        for number in range(4):
            bytes_N = np.random.default_rng(number).bytes(300_000)
            (weights_folder / f"{number}.pth").write_bytes(bytes_N)
        return weights_folder.parent

    def get(name: str) -> Subject:
        if name not in subjects:
            subjects[name] = built(name)
            subjects[name].measure(zygote, root)
        return subjects[name]

    return get


# --- what a job must end with ---


def numbers(root: Path) -> dict[str, Any]:
    """Checkpoint, predictions and metrics of every run, by config."""
    test_metrics = {}
    for folder in records(root):
        metrics = json.loads((folder / "metrics.json").read_text())
        test_metrics[folder.parent.name] = (
            (folder / "ckpt.bin").read_bytes(),
            (folder / "predictions.parquet").read_bytes(),
            {name: metrics.get(name) for name in ("test", "val", "fitted_on", "unreadable")},
        )
    return test_metrics


def table(root: Path) -> dict[str, Any]:
    """The rows; and that the three files are of one table."""
    output = root / "output"
    plain = json.loads((output / "baselines.json").read_text())
    page = (output / "baselines.html").read_text()
    return {
        "rows": plain["rows"],
        "csv": (output / "baselines.csv").read_bytes(),
        "page": "</html>" in page,
    }


def names(root: Path) -> list[str]:
    output = root / "output"
    return sorted(
        str(path.relative_to(output)) for path in output.rglob("*") if path.name != ".lock"
    )


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def stored(root: Path) -> dict[str, str]:
    return {
        name: hashing.sha256_bytes(data)
        for name, data in contents(root / "cache" / "weights").items()
        if not name.endswith(".tmp")
    }


# --- what may never lie there ---


def misnamed(root: Path) -> Iterable[str]:
    """Files of the store whose bytes are not those of their name."""
    digests = stored(root) if (root / "cache" / "weights").exists() else {}
    return [f"misnamed: {name}" for name, sha256 in digests.items() if not name.endswith(sha256)]


def exported(root: Path) -> Iterable[str]:
    """An export that lacks a file: it is whole or absent."""
    if (root / "ex").exists() and len(list((root / "ex").iterdir())) < 3:
        yield f"half an export: {sorted(contents(root / 'ex'))}"


def readable(root: Path) -> Iterable[str]:
    for file in (root / "output" / "audit").glob("[!.]*.json"):
        try:
            json.loads(file.read_bytes())
        except ValueError as error:
            yield f"{file.name}: {error}"


# --- the kills ---


@pytest.mark.slow
@pytest.mark.fault(1, 2, 38, 51)
@pytest.mark.timeout(0)
def test_random_kills_leave_nothing_torn_and_the_same_end(subject, zygote, tmp_path, capfd):
    log = Log(Path(file) if (file := os.environ.get("FGVC_KILLS_LOG")) else None)
    only_seed = os.environ.get("FGVC_KILL_SEED")
    count = int(os.environ.get("FGVC_KILLS", "16"))
    seeds = log.missing(count) if only_seed is None else [int(only_seed)]
    wrong: list[Outcome] = []
    for seed in seeds:
        kill = Kill.of(seed, JOBS)
        outcome = subject(kill.job).survive(kill, zygote, tmp_path / "root")
        log.add(outcome)
        wrong += [outcome] if outcome.state == "wrong" else []
        with capfd.disabled():
            how = f"{kill.by} {kill.share:.3f}{' group' if kill.group else ''}"
            print(f"seed {seed:>4} {kill.job:<8} {how:<18} {outcome.state} {outcome.error}")
    with capfd.disabled():
        print("\n".join(log.summary()))
    again = ", ".join(f"FGVC_KILL_SEED={each.kill.seed}" for each in wrong)
    assert not wrong, f"{again}: {wrong[0].error}"
    assert {each.state for each in log.outcomes} <= {"killed", "ended"}


def test_a_log_is_continued_after_its_last_whole_line(tmp_path):
    file = tmp_path / "kills.jsonl"
    first = Log(file)
    first.add(Outcome(Kill.of(0, JOBS), "killed"))
    first.add(Outcome(Kill.of(2, JOBS), "ended", seconds=1.5))
    with file.open("a") as torn:
        torn.write('{"seed": 3, "jo')
    second = Log(file)
    assert second.outcomes == first.outcomes
    assert second.missing(5) == [1, 3, 4]
    second.add(Outcome(Kill.of(3, JOBS), "wrong", "left over: x"))
    assert Log(file).missing(5) == [1, 4]
    assert second.summary()[-1].split() == ["all", "3", "0", "1", "1", "1"]


def test_a_seed_means_the_same_kill_every_time():
    kills = [Kill.of(seed, JOBS) for seed in range(64)]
    assert kills == [Kill.of(seed, JOBS) for seed in range(64)]
    assert {(kill.job, kill.by) for kill in kills} == {
        (j, by) for j in JOBS for by in ("time", "write")
    }
    assert {kill.group for kill in kills} == {True, False}
    assert all(0 <= kill.share < 1 for kill in kills)
