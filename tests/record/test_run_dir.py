"""The life of a run folder: what an interrupted run keeps, what a sealed one holds, how it ends."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time

import pytest

from fgvc.record.run_dir import IN_PROGRESS, open_run
from fgvc.store import atomic
from fgvc.types import Preempted, UserError

HASH = "a" * 64
CHECKPOINT = "b" * 64


class DeviceMemoryError(UserError):
    """As the training loop's own: the class says what became of the run."""

    status = "oom"


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Open the one run of these tests; again and again, if need be."""
    monkeypatch.setenv("PATH", str(tmp_path))  # without git, which takes its time in a dirty tree

    def again(keep=()):
        return open_run(tmp_path, "r", HASH, {"config.yaml": "seed: 0\n"}, keep)

    return again


@pytest.fixture
def home(tmp_path):
    return tmp_path / "r" / HASH[:16]


def state_of(folder):
    return json.loads((folder / "status.json").read_text())["state"]


def leave(opened, error=None):
    """A run with a resume state, interrupted by an error."""
    with pytest.raises(type(error)), opened() as run:  # noqa: PT012
        (run.path / "resume").mkdir()
        (run.path / "resume" / "state").write_text("120 steps")
        (run.path / "metrics.json").write_text("{}")
        (run.path / "tb").mkdir()
        (run.path / "tb" / "events").write_text("torn")
        raise error


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (Preempted("SIGTERM"), "preempted"),
        (KeyboardInterrupt(), "preempted"),
        (DeviceMemoryError("lower runtime.micro_batch"), "oom"),
        (MemoryError(), "oom"),
        (RuntimeError("loss is NaN"), "failed"),
        (UserError("no such file"), "failed"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_status_says_how_it_ended_and_resume_stays(opened, home, error, state):
    leave(opened, error)
    assert state_of(home / IN_PROGRESS) == state
    assert (home / IN_PROGRESS / "resume" / "state").read_text() == "120 steps"


def test_another_library_s_status_is_not_ours(opened, home):
    class HttpError(RuntimeError):
        status = 404

    leave(opened, HttpError())
    assert state_of(home / IN_PROGRESS) == "failed"


def test_a_notice_while_the_first_status_is_written_is_told(opened, home, monkeypatch):
    write = atomic.write_json

    def noticed(path, plain):
        write(path, plain)
        monkeypatch.setattr(atomic, "write_json", write)
        raise Preempted

    monkeypatch.setattr(atomic, "write_json", noticed)
    with pytest.raises(Preempted), opened():
        pass
    assert state_of(home / IN_PROGRESS) == "preempted"


def test_only_what_is_named_is_kept(opened, home):
    leave(opened, Preempted())
    said = (home / IN_PROGRESS / "run.log").read_text()
    assert "Preempted" in said
    with opened(keep=("resume", "run.log")) as run:
        names = {path.name for path in run.path.iterdir()}
        assert names == {"config.yaml", "status.json", "run.log", "resume"}
        assert (run.path / "resume" / "state").read_text() == "120 steps"
        assert (run.path / "run.log").read_text() == said
        assert state_of(run.path) == "running"
    with opened(keep=("resume",)) as run:
        assert "Preempted" not in (run.path / "run.log").read_text()


def test_states_of_a_training_are_never_deleted_by_another_task(opened, home):
    """Neither in their place nor aside, where a killed process was sealing its record."""
    leave(opened, Preempted())
    states = home / IN_PROGRESS / "resume"
    with pytest.raises(UserError, match="runtime.run_id=.*another runtime.run_id"), opened():
        pass
    assert (states / "state").read_text() == "120 steps"
    states.rename(home / ".resume")
    with pytest.raises(UserError, match="resume"), opened():
        pass
    assert (home / ".resume" / "state").read_text() == "120 steps"


def test_a_link_among_the_pieces_is_removed_not_followed(opened, home, tmp_path):
    leave(opened, Preempted())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo").touch()
    (home / IN_PROGRESS / "link").symlink_to(tmp_path / "mine")
    with opened(keep=("resume",)) as run:
        assert not (run.path / "link").is_symlink()
    assert (tmp_path / "mine" / "photo").exists()


def test_a_sealed_record_holds_no_resume_state(opened, home):
    leave(opened, Preempted())
    with opened(keep=("resume",)) as run:
        run.write_text("metrics.json", "{}")
        folder = run.seal(CHECKPOINT)
    assert folder == home / CHECKPOINT[:16]
    assert state_of(folder) == "done"
    listed = json.loads((folder / "artifacts.json").read_text())
    assert "metrics.json" in listed
    assert not [name for name in listed if "resume" in name]
    assert not list(home.rglob("*resume*"))


def test_a_discarded_run_leaves_no_resume_state(opened, home):
    leave(opened, Preempted())
    with opened(keep=("resume",)) as run:
        run.discard()
    assert [path.name for path in home.iterdir()] == [".lock"]


def test_a_seal_that_fails_keeps_the_resume_state(opened, home):
    leave(opened, Preempted())
    with pytest.raises(IsADirectoryError), opened(keep=("resume",)) as run:  # noqa: PT012
        (run.path / "artifacts.json").mkdir()
        run.seal(CHECKPOINT)
    assert state_of(home / IN_PROGRESS) == "failed"
    with opened(keep=("resume",)) as run:
        assert (run.path / "resume" / "state").read_text() == "120 steps"


def seal_with_states(opened, checkpoint, begun):
    """In a child: fill resume/, say so, seal, and wait to be killed."""
    with opened() as run:
        for number in range(20):
            (run.path / "resume" / str(number)).mkdir(parents=True)
            for name in "abcdefghij":
                (run.path / "resume" / str(number) / name).write_bytes(bytes(999))
        os.write(begun, b".")
        run.seal(checkpoint)
        os.write(begun, b".")
        time.sleep(5)


@pytest.mark.fault(2)
def test_sigkill_while_sealing_loses_neither_the_record_nor_the_state(opened, home):
    """Killed between the last step and the final name: the run is complete, or can be resumed."""
    delay, outcomes, longest = random.Random(0), [], 0.0
    for attempt in range(30):
        checkpoint = f"{attempt:016x}"
        read, begun = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                seal_with_states(opened, checkpoint, begun)
            except BaseException:
                sys.excepthook(*sys.exc_info())
            os._exit(1)
        os.read(read, 1)
        start = time.monotonic()
        if attempt < 3:  # to the end, to see how long it takes
            os.read(read, 1)
            longest = max(longest, time.monotonic() - start)
        else:
            time.sleep(delay.uniform(0, longest))
        os.kill(pid, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        os.close(read)
        os.close(begun)
        if (home / checkpoint).exists():
            outcomes.append("complete")
            assert state_of(home / checkpoint) == "done"
            assert not (home / checkpoint / "resume").exists()
        else:
            outcomes.append("resumable")
            with opened(keep=("resume",)) as run:
                assert len(list((run.path / "resume").glob("*/*"))) == 200
                shutil.rmtree(run.path / "resume")
            assert not (home / ".resume").exists()
    assert set(outcomes[3:]) == {"complete", "resumable"}, (outcomes, longest)
