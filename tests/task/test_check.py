"""task=check from the command line: a line per step, a record that opens the gate, an exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fgvc.record import env_stamp, stack_check
from fgvc.record.stack_check import SHUTDOWN, SIDES
from tests.jobs import HANG, until

STEPS = [step for side in SIDES.values() for step in side] + [SHUTDOWN]
README = "<!-- stack -->\n<!-- /stack -->\n"


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def without_fiftyone(tmp_path, monkeypatch) -> None:
    (tmp_path / "absent").mkdir()
    source = "raise ModuleNotFoundError(\"No module named 'fiftyone'\", name='fiftyone')"
    (tmp_path / "absent" / "fiftyone.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "absent"))


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    root = tmp_path / "checkout"
    root.mkdir()
    (root / "README.md").write_text(README)
    monkeypatch.setattr(env_stamp, "CODE", root)
    return root


@pytest.fixture
def a_users_database(tmp_path) -> Iterator[psutil.Process]:
    """FiftyOne's database service with its mongod, as another program of this user runs it."""
    package = Path(sysconfig.get_path("purelib")) / "fiftyone"
    folder = tmp_path / "theirs"
    folder.mkdir()
    service = [sys.executable, str(package / "service/main.py"), "--51-service", "db", "--multi"]
    mongod = [str(package / "db/bin/mongod"), "--dbpath", str(folder), "--port", "0"]
    process = subprocess.Popen(
        [*service, *mongod, "--logpath", str(folder / "log"), "--nounixsocket"],
        stdin=subprocess.PIPE,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    parent = psutil.Process(process.pid)
    until(parent.children)
    yield parent.children()[0]
    process.communicate(timeout=HANG)


@pytest.mark.slow
def test_the_real_stack_passes_and_is_recorded(
    run, cache, checkout, a_users_database, tmp_path, monkeypatch
):
    monkeypatch.setenv("FGVC_TEST", str(tmp_path))  # of the processes that this check starts
    ran = run("task=check", "task.record=true", f"runtime.cache_root={cache}", bare=True)
    assert ran.code == 0, ran.out
    lines = ran.out.splitlines()
    step_rows = [line.split()[:2] for line in lines if line.startswith("  ") and line[2] != " "]
    assert step_rows == [[step, "passed"] for step in STEPS]
    assert max(len(line) for line in lines if not line.startswith("record: ")) <= 80
    record = stack_check.passed_check(cache)
    assert record is not None
    assert list(record["steps"]) == sorted(STEPS)
    assert json.loads((checkout / "specs" / "stack.json").read_text()) == [record]
    assert f"| {record['platform']} |" in (checkout / "README.md").read_text()
    assert a_users_database.is_running()  # FiftyOne alone would have joined it
    assert not [
        process
        for process in psutil.process_iter(["cmdline", "environ"])
        if _of_a_check(process.info["cmdline"])
        and (process.info["environ"] or {}).get("FGVC_TEST") == str(tmp_path)
    ]
    remaining = {path.name for path in (cache / "stack").iterdir()}
    assert remaining == {f"{record['env_hash']}.json", f"{record['env_hash']}.log"}


def _of_a_check(command: list[str] | None) -> bool:
    return any("fgvc-check-" in word or "fgvc.record.stack_check" in word for word in command or ())


def test_without_fiftyone_the_check_fails_and_the_other_steps_run(
    run, cache, checkout, without_fiftyone
):
    ran = run("task=check", "task.record=true", f"runtime.cache_root={cache}", bare=True)
    assert ran.code == 1
    output = " ".join(ran.out.split())
    assert "tensorboard passed" in output
    assert "FiftyOne is not installed: pip install 'fiftyone" in output
    assert "check: FAILED: database, dataset, evaluation, export, app" in output
    assert str(next((cache / "stack").glob("*.log"))) in ran.out
    assert stack_check.passed_check(cache) is None
    assert not (checkout / "specs").exists()
    assert (checkout / "README.md").read_text() == README


def test_recording_outside_a_checkout_is_refused_at_once(run, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(env_stamp, "CODE", tmp_path)
    ran = run("task=check", "task.record=true", f"runtime.cache_root={cache}", bare=True)
    assert ran.code == 1
    assert "task.record=true: needs a checkout of fgvc" in ran.err
    assert not cache.exists()


@pytest.mark.fault(34)
@pytest.mark.slow
def test_nothing_else_needs_fiftyone(places):
    """Every module of the package, and a probe, where FiftyOne cannot be imported."""
    birds = ("classes=2", "train_per_class=4", "test_per_class=2", "side=64")
    arguments = [
        "backbone=vit_tiny",
        "backbone.pretrained=false",
        "runtime.num_workers=0",
        *(f"dataset.generator.{item}" for item in birds),
        *places,
    ]
    program = (
        "import importlib, pkgutil, sys; sys.modules['fiftyone'] = None; import fgvc\n"
        "names = [m.name for m in pkgutil.walk_packages(fgvc.__path__, 'fgvc.')]\n"
        "assert len(names) > 60; [importlib.import_module(name) for name in names]\n"
        f"from fgvc.run import main; sys.exit(main({arguments!r}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
