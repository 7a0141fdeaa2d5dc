"""One holder at a time, named in the errors of others; a dead process holds no lock."""

import json
import os
import signal
import time

import pytest

from fgvc.store import file_lock as locks
from fgvc.store.file_lock import LockHeld, lock
from fgvc.types import UserError
from tests.jobs import HANG, until
from tests.narrow import not_none


@pytest.fixture
def holder(tmp_path, forked):
    """A child that holds tmp_path/lock until it is killed, with its own forked worker."""

    def hold():
        with lock(tmp_path / "lock"):
            if os.fork() == 0:
                (tmp_path / "worker").write_text(str(os.getpid()))
                time.sleep(HANG)
                os._exit(0)
            until((tmp_path / "worker").exists)
            (tmp_path / "held").touch()
            time.sleep(HANG)

    pid = forked(hold)
    until((tmp_path / "held").exists)
    yield pid
    os.kill(int((tmp_path / "worker").read_text()), signal.SIGKILL)


@pytest.mark.fault(15)
def test_a_second_holder_gets_the_name_of_the_holder(tmp_path, holder):
    with pytest.raises(LockHeld) as caught, lock(tmp_path / "lock"):
        pytest.fail("two holders")
    message = str(caught.value)
    lock_record = json.loads((tmp_path / "lock").read_text())
    assert lock_record["pid"] == holder
    for part in (str(holder), lock_record["host"], lock_record["since"], str(tmp_path / "lock")):
        assert part in message
    assert isinstance(caught.value, UserError)
    assert "\n" not in message


@pytest.mark.fault(15)
def test_a_killed_holder_leaves_no_lock_though_its_worker_lives(tmp_path, holder, ended):
    os.kill(holder, signal.SIGKILL)
    assert ended(holder) == -signal.SIGKILL
    os.kill(int((tmp_path / "worker").read_text()), 0)  # still there
    with lock(tmp_path / "lock"):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_the_signature_replaces_a_longer_one(tmp_path):
    (tmp_path / "lock").write_text(json.dumps({"pid": 1, "host": "h" * 300, "since": "then"}))
    with lock(tmp_path / "lock"):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("text", ["", "{", "3", '{"pid": 3}'])
def test_a_signature_that_cannot_be_read_still_gives_a_line(tmp_path, text):
    with lock(tmp_path / "lock"):
        (tmp_path / "lock").write_text(text)
        with pytest.raises(LockHeld, match="has just begun"), lock(tmp_path / "lock"):
            pytest.fail("two holders")


def test_waiting_ends_with_the_holder(tmp_path, holder):
    lines = []

    def write_line(line):
        lines.append(line)
        os.kill(holder, signal.SIGKILL)

    with lock(tmp_path / "lock", wait=True, on_wait=write_line):
        assert len(lines) == 1
        assert f"pid {holder} " in lines[0]


def test_a_lock_ends_with_its_block_even_by_an_exception(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), lock(tmp_path / "lock"):
            raise ZeroDivisionError
    with lock(tmp_path / "lock"), pytest.raises(LockHeld), lock(tmp_path / "lock"):
        pytest.fail("two holders in one process")


def test_a_forked_child_does_not_end_the_parents_lock(tmp_path, forked, ended):
    with lock(tmp_path / "lock"):
        assert ended(forked(lambda: None)) == 0
        with pytest.raises(LockHeld), lock(tmp_path / "lock"):
            pytest.fail("the child's exit released it")


def test_many_processes_alternate(tmp_path, forked, ended):
    counter = tmp_path / "count"
    counter.write_text("0")

    def add():
        for _ in range(20):
            with lock(tmp_path / "lock", wait=True):
                counter.write_text(str(int(counter.read_text()) + 1))

    assert [ended(pid) for pid in [forked(add) for _ in range(4)]] == [0] * 4
    assert counter.read_text() == "80"


def test_asking_who_holds_it_writes_nothing(tmp_path):
    assert locks.holder(tmp_path / "lock") is None
    assert list(tmp_path.iterdir()) == []
    with lock(tmp_path / "lock"):
        signed = (tmp_path / "lock").read_bytes()
        assert f"held by pid {os.getpid()} on " in not_none(locks.holder(tmp_path / "lock"))
    assert locks.holder(tmp_path / "lock") is None
    assert (tmp_path / "lock").read_bytes() == signed
