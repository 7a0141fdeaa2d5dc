"""Run folders: files kept after an interruption, content when sealed, status at the end."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sys

import pytest

from fgvc.record.run_dir import IN_PROGRESS, open_run
from fgvc.store import atomic
from fgvc.types import Preempted, UserError

HASH = "a" * 64
CHECKPOINT = "b" * 64


class DeviceMemoryError(UserError):
    """Like the error of the training loop: the class attribute gives the state of the run."""

    status = "oom"


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """A function that opens the run of these tests, repeatedly if needed."""
    monkeypatch.setenv("PATH", str(tmp_path))  # without git, which is slow in a dirty tree

    def again(keep=()):
        return open_run(tmp_path, "r", HASH, {"config.yaml": "seed: 0\n"}, keep)

    return again


@pytest.fixture
def home(tmp_path):
    return tmp_path / "r" / HASH[:16]


def state_of(folder):
    return json.loads((folder / "status.json").read_text())["state"]


def interrupt(opened, error: BaseException):
    """Create a run with a resume state and interrupt it by an error."""
    with pytest.raises(type(error)), opened() as run:  # noqa: PT012
        (run.path / "resume").mkdir()
        (run.path / "resume" / "state").write_text("120 steps")
        (run.path / "metrics.json").write_text("{}")
        (run.path / "tb").mkdir()
        (run.path / "tb" / "events").write_text("torn")
        raise error


def masked(interrupt):
    """The error of a library's cleanup that an interrupt has cut short."""
    error = KeyError("a half made container")
    error.__context__ = interrupt
    return error


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (Preempted("SIGTERM"), "preempted"),
        (KeyboardInterrupt(), "preempted"),
        (masked(KeyboardInterrupt()), "preempted"),
        (DeviceMemoryError("lower runtime.micro_batch"), "oom"),
        (MemoryError(), "oom"),
        (RuntimeError("loss is NaN"), "failed"),
        (UserError("no such file"), "failed"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_status_records_the_outcome_and_resume_states_stay(opened, home, error, state):
    interrupt(opened, error)
    assert state_of(home / IN_PROGRESS) == state
    assert (home / IN_PROGRESS / "resume" / "state").read_text() == "120 steps"


def test_a_status_attribute_of_another_library_is_ignored(opened, home):
    class HttpError(RuntimeError):
        status = 404

    interrupt(opened, HttpError())
    assert state_of(home / IN_PROGRESS) == "failed"


def test_a_signal_while_the_first_status_is_written_is_recorded(opened, home, monkeypatch):
    write = atomic.write_json

    def write_then_signal(path, plain):
        write(path, plain)
        monkeypatch.setattr(atomic, "write_json", write)
        raise Preempted

    monkeypatch.setattr(atomic, "write_json", write_then_signal)
    with pytest.raises(Preempted), opened():
        pass
    assert state_of(home / IN_PROGRESS) == "preempted"


def test_only_files_in_keep_are_kept(opened, home):
    interrupt(opened, Preempted())
    log_text = (home / IN_PROGRESS / "run.log").read_text()
    assert "Preempted" in log_text
    with opened(keep=("resume", "run.log")) as run:
        names = {path.name for path in run.path.iterdir()}
        assert names == {"config.yaml", "status.json", "run.log", "resume"}
        assert (run.path / "resume" / "state").read_text() == "120 steps"
        assert (run.path / "run.log").read_text() == log_text
        assert state_of(run.path) == "running"
    with opened(keep=("resume",)) as run:
        assert "Preempted" not in (run.path / "run.log").read_text()


def test_states_of_a_training_are_never_deleted_by_another_task(opened, home):
    """Neither in resume/ nor in .resume, where a process killed while sealing leaves them."""
    interrupt(opened, Preempted())
    states = home / IN_PROGRESS / "resume"
    with pytest.raises(UserError, match="runtime.run_id=.*another runtime.run_id"), opened():
        pass
    assert (states / "state").read_text() == "120 steps"
    states.rename(home / ".resume")
    with pytest.raises(UserError, match="resume"), opened():
        pass
    assert (home / ".resume" / "state").read_text() == "120 steps"


def test_a_link_in_an_interrupted_run_is_removed_not_followed(opened, home, tmp_path):
    interrupt(opened, Preempted())
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "photo").touch()
    (home / IN_PROGRESS / "link").symlink_to(tmp_path / "folder")
    with opened(keep=("resume",)) as run:
        assert not (run.path / "link").is_symlink()
    assert (tmp_path / "folder" / "photo").exists()


def test_a_sealed_record_holds_no_resume_state(opened, home):
    interrupt(opened, Preempted())
    with opened(keep=("resume",)) as run:
        run.write_text("metrics.json", "{}")
        run.checkpoint_id = CHECKPOINT
        folder = run.seal()
    assert folder == home / CHECKPOINT[:16]
    assert state_of(folder) == "done"
    listed = json.loads((folder / "artifacts.json").read_text())
    assert "metrics.json" in listed
    assert not [name for name in listed if "resume" in name]
    assert not list(home.rglob("*resume*"))


def test_a_discarded_run_leaves_no_resume_state(opened, home):
    interrupt(opened, Preempted())
    with opened(keep=("resume",)) as run:
        run.discard()
    assert [path.name for path in home.iterdir()] == [".lock"]


def test_a_seal_that_fails_keeps_the_resume_state(opened, home):
    interrupt(opened, Preempted())
    with pytest.raises(IsADirectoryError), opened(keep=("resume",)) as run:  # noqa: PT012
        (run.path / "artifacts.json").mkdir()
        run.checkpoint_id = CHECKPOINT
        run.seal()
    assert state_of(home / IN_PROGRESS) == "failed"
    with opened(keep=("resume",)) as run:
        assert (run.path / "resume" / "state").read_text() == "120 steps"


def seal_until(opened, checkpoint, steps):
    """In a child process: seal a run with states, and die before the file operation `steps`."""
    with opened() as run:
        for name in "abc":
            (run.path / "resume" / name).mkdir(parents=True)
            (run.path / "resume" / name / "state").write_bytes(bytes(999))
        run.checkpoint_id = checkpoint
        left = itertools.count(steps, -1)

        def kill(event, arguments):
            if event.startswith(("open", "os.", "shutil.")) and next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(kill)
        run.seal()


@pytest.mark.fault(2)
@pytest.mark.slow
def test_sigkill_while_sealing_loses_neither_the_record_nor_the_state(opened, home):
    """A run killed before any file operation of sealing is either complete or can be resumed."""
    outcomes, code = [], -signal.SIGKILL
    while code != 0:
        checkpoint = f"{len(outcomes):016x}"
        pid = os.fork()
        if pid == 0:
            try:
                seal_until(opened, checkpoint, len(outcomes))
                os._exit(0)
            except BaseException as error:
                sys.excepthook(type(error), error, error.__traceback__)
            os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code in (0, -signal.SIGKILL)
        if (home / checkpoint).exists():
            outcomes.append("complete")
            assert state_of(home / checkpoint) == "done"
            assert not (home / checkpoint / "resume").exists()
        else:
            outcomes.append("resumable")
            with opened(keep=("resume",)) as run:
                assert len(list((run.path / "resume").glob("*/state"))) == 3
                shutil.rmtree(run.path / "resume")
            assert not (home / ".resume").exists()
    assert not (home / ".resume").exists()
    assert outcomes == sorted(outcomes, reverse=True)
    assert min(outcomes.count("resumable"), outcomes.count("complete")) > 5, outcomes
