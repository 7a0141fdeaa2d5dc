"""States survive kills, full disks and damage, and each agrees with its best weights."""

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


def weights(step):
    return {"head.weight": torch.full((64, 50), float(step)), "head.bias": torch.arange(50.0)}


def everything(step):
    """What an optimiser, a scaler and a history are made of."""
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
    return sorted(int(path.name[6 if kind == "state" else 5 :][:8]) for path in of(states, kind))


def of(states, kind="state"):
    return sorted(states.folder.glob(f"{kind}-*"))


def again(states):
    """As the next process sees it."""
    return States(states.folder, states.keep)


def test_a_state_comes_back_as_it_was(states, notes):
    given = everything(30)
    states.save(30, given)
    step, found = again(states).newest(notes.append)
    assert step == 30
    assert torch.equal(found["weights"]["head.weight"], given["weights"]["head.weight"])
    moments = found["optimiser"]["state"][0], given["optimiser"]["state"][0]
    assert torch.equal(moments[0]["exp_avg"], moments[1]["exp_avg"])
    for name in ("history", "epoch"):
        assert found[name] == given[name]
    assert found["optimiser"]["param_groups"] == given["optimiser"]["param_groups"]
    assert notes == []


def test_no_state_no_best(states, notes):
    assert states.newest(notes.append) is None
    assert states.best() is None
    assert notes == []
    assert not states.folder.exists()


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_are_kept_by_number_of_steps(tmp_path, keep):
    states = States(tmp_path, keep)
    for step in (90, 100, 99_999_999, 100_000_000):  # names pass eight digits
        states.save(step, {"at": step})
    assert len(of(states)) == keep
    assert again(states).newest(print) == (100_000_000, {"at": 100_000_000})


def test_best_weights_stay_as_long_as_a_state_that_refers_to_them(states):
    states.save_best(10, weights(10))
    states.save(10, {})
    states.save_best(20, weights(20))
    assert steps(states, "best") == [10, 20]  # the one state there is refers to 10
    states.save(20, {})
    states.save(30, {})
    assert (steps(states), steps(states, "best")) == ([20, 30], [20])
    other = again(states)
    assert other.newest(print)[0] == 30
    step, tensors = other.best()
    assert step == 20
    assert torch.equal(tensors["head.weight"], weights(20)["head.weight"])


def test_a_state_before_the_first_best_refers_to_none(states):
    states.save(5, {})
    states.save_best(10, weights(10))  # killed here: no state knows of it
    other = again(states)
    assert other.newest(print) == (5, {})
    assert other.best() is None
    other.save(8, {})
    assert steps(other, "best") == []


def test_a_best_that_no_state_knew_does_not_survive_another_course(states):
    states.save_best(10, weights(10))
    states.save(10, {})
    states.save_best(20, weights(20))
    other = again(states)
    other.newest(print)
    other.save(20, {})
    assert steps(other, "best") == [10]
    assert other.best()[0] == 10


def test_going_on_from_an_earlier_state_removes_the_later_ones(states):
    for step in (10, 20):
        states.save(step, {"course": 1})
    other = again(states)
    first = of(states)[0]
    assert other.load(first) == (10, {"course": 1})
    other.save(15, {"course": 2})
    assert steps(other) == [10, 15]
    assert again(states).newest(print) == (15, {"course": 2})


def test_the_same_step_again_replaces_its_state(states):
    for course in (1, 2):
        states.save(10, {"course": course})
    assert steps(states) == [10]
    assert again(states).newest(print) == (10, {"course": 2})


# --- damage ---


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "cut": (lambda path: os.truncate(path, path.stat().st_size - 100), "truncated or altered"),
    "flipped": (_flip, "truncated or altered"),
    "empty": (lambda path: path.write_bytes(b""), "an empty file"),
    "html": (lambda path: path.write_bytes(b"\n<!DOCTYPE html><html>404"), "an HTML page"),
    "lfs": (lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "lfs"),
}


@pytest.mark.fault(8, 9, 11)
@pytest.mark.parametrize("victim", ["state", "best"])
@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_told_in_one_line_and_the_state_before_is_taken(states, notes, kind, victim):
    for step in (10, 20):
        states.save_best(step, weights(step))
        states.save(step, everything(step))
    bad = of(states, victim)[-1]
    damage, reason = DAMAGE[kind]
    damage(bad)
    other = again(states)
    step, found = other.newest(notes.append)
    assert (step, found["epoch"], other.best()[0]) == (10, 1, 10)
    told, taken = notes
    for word in (str(bad), f"({bad.stat().st_size} bytes)", reason, "skipped"):
        assert word in told
    assert f"from step 10: {of(states)[0]}" in taken
    assert "\n" not in told + taken
    other.save(25, {})  # what is damaged does not count among those kept
    assert steps(other) == [10, 25]


@pytest.mark.fault(8)
@pytest.mark.parametrize("next_step", [20, 25])
def test_a_folder_in_place_of_a_state_is_passed_over_and_replaced(states, notes, next_step):
    for step in (10, 20):
        states.save(step, everything(step))
    bad = of(states)[-1]
    bad.unlink()
    (bad / "inside").mkdir(parents=True)
    other = again(states)
    assert other.newest(notes.append)[0] == 10
    other.save(next_step, everything(next_step))
    assert steps(other) == [10, next_step]
    assert all(path.is_file() for path in of(states))


def test_best_weights_that_are_missing_spoil_the_state_that_needs_them(states, notes):
    for step in (10, 20):
        states.save_best(step, weights(step))
        states.save(step, {})
    of(states, "best")[-1].unlink()
    assert again(states).newest(notes.append) == (10, {})
    assert "no such file" in notes[0]


@pytest.mark.fault(9)
def test_best_weights_damaged_later_are_refused(states):
    states.save_best(10, weights(10))
    _flip(of(states, "best")[0])
    with pytest.raises(UserError, match="sha256 mismatch"):
        states.best()


def test_nothing_whole_is_said_so(states, notes):
    states.save(10, {})
    _flip(of(states)[0])
    assert again(states).newest(notes.append, ", the training starts anew") is None
    assert notes[-1].endswith("no intact resume state is left, the training starts anew")


class Malicious:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.fault(10)
@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_malicious_pickle_runs_nothing_though_its_digest_is_right(states, notes, how):
    states.save(10, {})
    mark = states.folder / "ran"
    content = {"step": 20, "best": None, "state": {"it": Malicious(mark)}}
    wrong = states.folder / "wrong"
    if how == "torch":
        torch.save(content, wrong)
    else:
        wrong.write_bytes(pickle.dumps(content, protocol=2))
    bad = wrong.rename(states.folder / f"state-00000020.{hashing.sha256_file(wrong)}.pt")
    assert again(states).newest(notes.append) == (10, {})
    assert not mark.exists()
    assert str(bad) in notes[0]
    assert "refused" in notes[0]
    if how == "torch":  # the trap is a real one
        torch.load(bad, weights_only=False)
        assert mark.exists()


@pytest.mark.parametrize("content", [[], {"step": 20}, {"step": "x", "best": None, "state": {}}])
def test_a_file_of_something_else_is_no_state(states, notes, content):
    states.save(10, {})
    wrong = states.folder / "wrong"
    torch.save(content, wrong)
    wrong.rename(states.folder / f"state-00000020.{hashing.sha256_file(wrong)}.pt")
    assert again(states).newest(notes.append) == (10, {})
    assert "not a resume state" in notes[0]


def test_a_path_that_is_no_state_is_refused(states, tmp_path):
    with pytest.raises(UserError, match=r"state-STEP"):
        states.load(tmp_path / "ckpt.bin")


@pytest.mark.parametrize("odd", [np.float64(0.5), np.zeros(2), {1, 2}, object()], ids=type)
def test_what_could_not_be_loaded_again_is_refused_when_it_is_saved(states, odd):
    with pytest.raises(TypeError, match=r"\['history'\]\[1\]"):
        states.save(10, {"history": [1, odd]})
    assert of(states) == []


# --- the disk, and death ---


@pytest.mark.fault(13)
@pytest.mark.parametrize("what", ["state", "best"])
def test_a_disk_that_takes_no_more_keeps_the_state_before(states, notes, forked, ended, what):
    states.save_best(10, weights(10))
    states.save(10, {"at": 10})

    def overfill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        with pytest.raises(OSError) as caught:
            states.save(20, weights(20)) if what == "state" else states.save_best(20, weights(20))
        assert caught.value.errno == errno.EFBIG
        assert f"{what}-00000020" in str(caught.value.filename)
        assert "bytes needed" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert states.best()[0] == 10

    assert ended(forked(overfill)) == 0
    assert len(list(states.folder.iterdir())) == 2
    other = again(states)
    assert other.newest(notes.append) == (10, {"at": 10})
    assert other.best()[0] == 10
    assert notes == []


@pytest.mark.fault(1)
def test_sigkill_at_any_moment_costs_at_most_the_state_at_work(tmp_path, notes, forked, ended):
    """Every acknowledged state loads, with the best weights of its own moment."""
    states, told = States(tmp_path / "resume", keep=2), tmp_path / "told"
    told.write_text("0")

    def train():
        mine = again(states)
        step, _ = mine.newest(notes.append) or (0, None)
        while True:
            step += 1
            if step % 3 == 0:
                mine.save_best(step, {"w": torch.full((40_000,), float(step))})
            mine.save(step, {"w": torch.full((60_000,), float(step)), "best": step - step % 3})
            with told.open("r+") as file:
                file.write(str(step))

    delay, torn, reached = random.Random(0), 0, 0
    for _ in range(24):
        pid = forked(train)
        while int(told.read_text()) <= reached:  # on a busy machine the first state takes a while
            time.sleep(0.002)
        time.sleep(delay.uniform(0, 0.06))
        os.kill(pid, signal.SIGKILL)
        assert ended(pid) == -signal.SIGKILL
        torn += bool(list(states.folder.glob(".*.tmp")))
        other = again(states)
        found = other.newest(notes.append)
        step, state = found or (0, {"best": 0})
        reached = max(reached, int(told.read_text()))
        assert step in (reached, reached + 1)  # the last may be whole and not yet told
        reached = step
        assert not list(states.folder.glob(".*.tmp"))
        if step:
            assert torch.equal(state["w"], torch.full((60_000,), float(step)))
        best = other.best()
        assert (best[0] if best else 0) == state["best"]
        if best:
            assert torch.equal(best[1]["w"], torch.full((40_000,), float(best[0])))
    assert notes == []
    assert step >= 24
    assert torn > 0, "no kill came while a file was being written"


@pytest.mark.fault(1, 51)
def test_leftovers_of_any_host_are_gone_after_the_next_save(states):
    states.save(10, {})
    leftover = states.folder / ".state-00000020.x.pt.another-host.7.ab.tmp"
    leftover.write_bytes(b"half")
    states.newest(print)
    assert leftover.exists()  # a reader knows nothing of other hosts' processes
    states.save(20, {})
    assert not leftover.exists()
