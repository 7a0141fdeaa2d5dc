"""Resume states survive kills, full disks and damage, and match their best weights."""

from __future__ import annotations

import errno
import os
import pickle
import random
import resource
import signal
import time
from collections import OrderedDict

import numpy as np
import pytest
import torch

from fgvc.record.resume_state import States
from fgvc.store import hashing
from fgvc.types import UserError
from tests.narrow import not_none


def weights(step):
    return {"head.weight": torch.full((64, 50), float(step)), "head.bias": torch.arange(50.0)}


def training_state(step):
    """A state with the types of an optimiser, a scaler and a history."""
    moments = {0: {"step": torch.tensor(float(step)), "exp_avg": torch.randn(3, 4)}}
    groups = [{"lr": 1e-3, "betas": (0.9, 0.999), "maximize": False, "clip": None, "params": [0]}]
    return {
        "weights": OrderedDict(weights(step)),
        "optimiser": {"state": moments, "param_groups": groups},
        "history": [("train/loss", step, 0.25), ("val/top1", step, float("inf"))],
        "epoch": step // 10,
    }


@pytest.fixture
def states(tmp_path):
    return States(tmp_path / "resume", keep=2)


@pytest.fixture
def notes():
    return []


def steps(states, kind="state"):
    return sorted(
        int(path.name[6 if kind == "state" else 5 :][:8]) for path in paths_of(states, kind)
    )


def paths_of(states, kind="state"):
    return sorted(states.folder.glob(f"{kind}-*"))


def reopen(states):
    """The states as seen by the next process."""
    return States(states.folder, states.keep)


def test_a_state_is_restored_exactly(states, notes):
    saved = training_state(30)
    states.save(30, saved)
    step, loaded = not_none(reopen(states).newest(notes.append))
    assert step == 30
    assert torch.equal(loaded["weights"]["head.weight"], saved["weights"]["head.weight"])
    moments = loaded["optimiser"]["state"][0], saved["optimiser"]["state"][0]
    assert torch.equal(moments[0]["exp_avg"], moments[1]["exp_avg"])
    for name in ("history", "epoch"):
        assert loaded[name] == saved[name]
    assert loaded["optimiser"]["param_groups"] == saved["optimiser"]["param_groups"]
    assert notes == []


def test_no_state_no_best(states, notes):
    assert states.newest(notes.append) is None
    assert states.best() is None
    assert notes == []
    assert not states.folder.exists()


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_are_kept_by_number_of_steps(tmp_path, keep):
    states = States(tmp_path, keep)
    for step in (90, 100, 99_999_999, 100_000_000):  # names with more than eight digits
        states.save(step, {"at": step})
    assert len(paths_of(states)) == keep
    assert reopen(states).newest(print) == (100_000_000, {"at": 100_000_000})


def test_best_weights_stay_as_long_as_a_state_that_refers_to_them(states):
    states.save_best(10, weights(10))
    states.save(10, {})
    states.save_best(20, weights(20))
    assert steps(states, "best") == [10, 20]  # the one state there is refers to 10
    states.save(20, {})
    states.save(30, {})
    assert (steps(states), steps(states, "best")) == ([20, 30], [20])
    reopened = reopen(states)
    assert not_none(reopened.newest(print))[0] == 30
    step, tensors = not_none(reopened.best())
    assert step == 20
    assert torch.equal(tensors["head.weight"], weights(20)["head.weight"])


def test_a_state_before_the_first_best_refers_to_none(states):
    states.save(5, {})
    states.save_best(10, weights(10))  # killed here: no state refers to it
    reopened = reopen(states)
    assert reopened.newest(print) == (5, {})
    assert reopened.best() is None
    reopened.save(8, {})
    assert steps(reopened, "best") == []


def test_best_weights_without_a_state_are_removed_after_resuming(states):
    states.save_best(10, weights(10))
    states.save(10, {})
    states.save_best(20, weights(20))
    reopened = reopen(states)
    reopened.newest(print)
    reopened.save(20, {})
    assert steps(reopened, "best") == [10]
    assert not_none(reopened.best())[0] == 10


def test_resuming_from_an_earlier_state_removes_later_states(states):
    for step in (10, 20):
        states.save(step, {"course": 1})
    reopened = reopen(states)
    first = paths_of(states)[0]
    assert reopened.load(first) == (10, {"course": 1})
    reopened.save(15, {"course": 2})
    assert steps(reopened) == [10, 15]
    assert reopen(states).newest(print) == (15, {"course": 2})


def test_the_same_step_again_replaces_its_state(states):
    for course in (1, 2):
        states.save(10, {"course": course})
    assert steps(states) == [10]
    assert reopen(states).newest(print) == (10, {"course": 2})


# --- damage ---


def flip_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "cut": (lambda path: os.truncate(path, path.stat().st_size - 100), "truncated or altered"),
    "flipped": (flip_bit, "truncated or altered"),
    "empty": (lambda path: path.write_bytes(b""), "an empty file"),
    "html": (lambda path: path.write_bytes(b"\n<!DOCTYPE html><html>404"), "an HTML page"),
    "lfs": (lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "lfs"),
}


@pytest.mark.fault(8, 9, 11)
@pytest.mark.parametrize("victim", ["state", "best"])
@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_reported_in_one_line_and_the_previous_state_is_loaded(
    states, notes, kind, victim
):
    for step in (10, 20):
        states.save_best(step, weights(step))
        states.save(step, training_state(step))
    damaged = paths_of(states, victim)[-1]
    damage, reason = DAMAGE[kind]
    damage(damaged)
    reopened = reopen(states)
    step, loaded = not_none(reopened.newest(notes.append))
    assert (step, loaded["epoch"], not_none(reopened.best())[0]) == (10, 1, 10)
    message, resumed_note = notes
    for word in (str(damaged), f"({damaged.stat().st_size} bytes)", reason, "skipped"):
        assert word in message
    assert f"from step 10: {paths_of(states)[0]}" in resumed_note
    assert "\n" not in message + resumed_note
    reopened.save(25, {})  # damaged states do not count as kept
    assert steps(reopened) == [10, 25]


@pytest.mark.fault(8)
@pytest.mark.parametrize("next_step", [20, 25])
def test_a_folder_in_place_of_a_state_is_skipped_and_replaced(states, notes, next_step):
    for step in (10, 20):
        states.save(step, training_state(step))
    folder = paths_of(states)[-1]
    folder.unlink()
    (folder / "inside").mkdir(parents=True)
    reopened = reopen(states)
    assert not_none(reopened.newest(notes.append))[0] == 10
    reopened.save(next_step, training_state(next_step))
    assert steps(reopened) == [10, next_step]
    assert all(path.is_file() for path in paths_of(states))


def test_a_state_with_missing_best_weights_is_skipped(states, notes):
    for step in (10, 20):
        states.save_best(step, weights(step))
        states.save(step, {})
    paths_of(states, "best")[-1].unlink()
    assert reopen(states).newest(notes.append) == (10, {})
    assert "no such file" in notes[0]


@pytest.mark.fault(9)
def test_best_weights_damaged_later_are_refused(states):
    states.save_best(10, weights(10))
    flip_bit(paths_of(states, "best")[0])
    with pytest.raises(UserError, match="sha256 mismatch"):
        states.best()


def test_a_note_reports_that_no_state_is_intact(states, notes):
    states.save(10, {})
    flip_bit(paths_of(states)[0])
    assert reopen(states).newest(notes.append, ", the training starts from step 0") is None
    assert notes[-1].endswith("no intact resume state is left, the training starts from step 0")


class Malicious:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.fault(10)
@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_malicious_pickle_with_the_right_digest_runs_nothing(states, notes, how):
    states.save(10, {})
    mark = states.folder / "ran"
    content = {"step": 20, "best": None, "state": {"it": Malicious(mark)}}
    wrong = states.folder / "wrong"
    if how == "torch":
        torch.save(content, wrong)
    else:
        wrong.write_bytes(pickle.dumps(content, protocol=2))
    bad = wrong.rename(states.folder / f"state-00000020.{hashing.sha256_file(wrong)}.pt")
    assert reopen(states).newest(notes.append) == (10, {})
    assert not mark.exists()
    assert str(bad) in notes[0]
    assert "refused" in notes[0]
    if how == "torch":  # unpickling would run it
        torch.load(bad, weights_only=False)
        assert mark.exists()


@pytest.mark.parametrize("content", [[], {"step": 20}, {"step": "x", "best": None, "state": {}}])
def test_a_file_of_something_else_is_no_state(states, notes, content):
    states.save(10, {})
    wrong = states.folder / "wrong"
    torch.save(content, wrong)
    wrong.rename(states.folder / f"state-00000020.{hashing.sha256_file(wrong)}.pt")
    assert reopen(states).newest(notes.append) == (10, {})
    assert "not a resume state" in notes[0]


def test_a_path_that_is_no_state_is_refused(states, tmp_path):
    with pytest.raises(UserError, match=r"state-STEP"):
        states.load(tmp_path / "ckpt.bin")


@pytest.mark.parametrize("odd", [np.float64(0.5), np.zeros(2), {1, 2}, object()], ids=type)
def test_values_that_torch_would_not_load_are_refused_when_saving(states, odd):
    with pytest.raises(TypeError, match=r"\['history'\]\[1\]"):
        states.save(10, {"history": [1, odd]})
    assert paths_of(states) == []


# --- full disks and kills ---


@pytest.mark.fault(13)
@pytest.mark.parametrize("kind", ["state", "best"])
def test_a_full_disk_keeps_the_previous_state(states, notes, forked, ended, kind):
    states.save_best(10, weights(10))
    states.save(10, {"at": 10})

    def overfill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        with pytest.raises(OSError) as caught:
            states.save(20, weights(20)) if kind == "state" else states.save_best(20, weights(20))
        assert caught.value.errno == errno.EFBIG
        assert f"{kind}-00000020" in str(caught.value.filename)
        assert "bytes needed" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not_none(states.best())[0] == 10

    assert ended(forked(overfill)) == 0
    assert len(list(states.folder.iterdir())) == 2
    reopened = reopen(states)
    assert reopened.newest(notes.append) == (10, {"at": 10})
    assert not_none(reopened.best())[0] == 10
    assert notes == []


@pytest.mark.fault(1)
@pytest.mark.slow
def test_sigkill_at_any_moment_loses_at_most_the_state_being_written(
    tmp_path, notes, forked, ended
):
    """Every acknowledged state loads with its own best weights."""
    states, message = States(tmp_path / "resume", keep=2), tmp_path / "acknowledged"
    message.write_text("0")

    def train():
        child_states = reopen(states)
        step, _ = child_states.newest(notes.append) or (0, None)
        while True:
            step += 1
            if step % 3 == 0:
                child_states.save_best(step, {"w": torch.full((40_000,), float(step))})
            child_states.save(
                step, {"w": torch.full((60_000,), float(step)), "best": step - step % 3}
            )
            with message.open("r+") as file:
                file.write(str(step))

    delay, torn_writes, reached = random.Random(0), 0, 0
    for _ in range(24):
        pid = forked(train)
        while int(message.read_text()) <= reached:  # the first state may take a while
            time.sleep(0.002)
        time.sleep(delay.uniform(0, 0.06))
        os.kill(pid, signal.SIGKILL)
        assert ended(pid) == -signal.SIGKILL
        torn_writes += bool(list(states.folder.glob(".*.tmp")))
        reopened = reopen(states)
        newest = reopened.newest(notes.append)
        step, state = newest or (0, {"best": 0})
        reached = max(reached, int(message.read_text()))
        assert step in (
            reached,
            reached + 1,
        )  # the last state may be written but not yet acknowledged
        reached = step
        assert not list(states.folder.glob(".*.tmp"))
        if step:
            assert torch.equal(state["w"], torch.full((60_000,), float(step)))
        best = reopened.best()
        assert (best[0] if best else 0) == state["best"]
        if best:
            assert torch.equal(best[1]["w"], torch.full((40_000,), float(best[0])))
    assert notes == []
    assert reached >= 24
    assert torn_writes > 0, "no kill came while a file was being written"


@pytest.mark.fault(1, 51)
def test_leftovers_of_any_host_are_gone_after_the_next_save(states):
    states.save(10, {})
    leftover = states.folder / ".state-00000020.x.pt.another-host.7.ab.tmp"
    leftover.write_bytes(b"half")
    states.newest(print)
    assert leftover.exists()  # a reader does not know the processes of other hosts
    states.save(20, {})
    assert not leftover.exists()
