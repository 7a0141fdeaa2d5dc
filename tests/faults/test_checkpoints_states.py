"""Resume states that are damaged, and best weights that are lost: rows 8 and 9."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from fgvc.pipeline.resume_checks import check_content
from fgvc.record.resume_state import BestLostError, States
from fgvc.report.audit import run_audit
from fgvc.store import hashing
from fgvc.types import UserError
from tests.faults.steps import flip_byte, set_key
from tests.jobs import FINETUNE


@pytest.mark.fault(8, 9)
def test_bytes_that_torch_fails_on_in_any_way_are_one_line(tmp_path):
    """Legacy pickles, truncated or with a flipped bit, under a name that matches their digest."""
    buffer = io.BytesIO()
    torch.save(
        {"step": 1, "best": None, "state": {"a": torch.zeros(2)}},
        buffer,
        _use_new_zipfile_serialization=False,
    )
    state_bytes, errors = buffer.getvalue(), {}
    cut = [state_bytes[:end] for end in range(1, len(state_bytes), 7)]
    changed = [
        state_bytes[:place] + bytes([state_bytes[place] ^ bit]) + state_bytes[place + 1 :]
        for place in range(0, len(state_bytes), 3)
        for bit in (1, 0x80)
    ]
    for data in (*cut, *changed):
        path = tmp_path / f"state-00000001.{hashing.sha256_bytes(data)}.pt"
        path.write_bytes(data)
        try:
            States(tmp_path, 1).load(path)
        except UserError as error:
            errors[path] = error
        path.unlink()
    assert all(str(error).startswith(str(path)) for path, error in errors.items())
    assert all("\n" not in str(error) for error in errors.values())
    assert len({type(error.__cause__) for error in errors.values()}) > 3


CONTENT: dict[str, tuple[str, object]] = {
    "no trainer": ("trainer", None),
    "a list of weights": ("trainer.model", [1]),
    "a number as weight": ("trainer.model", {"a": 1}),
    "steps in words": ("trainer.step", "3"),
    "steps below zero": ("trainer.step", -1),
    "no such best": ("trainer.best", {"evil": 1}),
    "a best of another type": ("trainer.best", {"epoch": "x"}),
    "an average of no tensors": ("trainer.ema", {"n_averaged": 3}),
    "an optimiser by name": ("trainer.optimiser", {"a": {}}),
    "an optimiser without a moment": ("trainer.optimiser", {0: {"step": 1}, 1: {}}),
    "no steps": ("steps_per_epoch", 0),
    "a curve": ("history", [("train/loss", 1)]),
    "unreadable": ("unreadable", [1]),
    "config": ("config", 3),
    "identity": ("identity", []),
    "origin": ("origin", {"from": None}),
}


@pytest.mark.fault(8)
@pytest.mark.parametrize("fault", CONTENT)
def test_a_state_of_wrong_content_is_refused_by_its_key(fault):
    good = {
        "trainer": {
            "model": {"a": torch.zeros(2)},
            "optimiser": {},
            "scaler": {},
            "ema": None,
            "step": 1,
            "best": {"select": "top1", "patience": None, "epoch": 1, "top1": 0.5, "loss": 1.0},
        },
        "epochs_judged": 1,
        "steps_per_epoch": 3,
        "unreadable": [],
        "history": [["train/loss", 1, 0.5]],
        "config": {},
        "identity": {},
        "origin": {"from": None, "changed": [], "other_code": False},
    }
    check_content(good, "PATH")
    key, value = CONTENT[fault]
    set_key(good, key, value)
    with pytest.raises(UserError, match=f"PATH: .* {key.split('.')[0]}.* is (an invalid|missing)"):
        check_content(good, "PATH")


# --- item 11: the best weights of a training are lost, its last state is whole ---

LONG = (*FINETUNE, "runtime.threads=1", "runtime.keep_states=2", "runtime.run_id=lost")
AVERAGED = (*LONG, "task.ema=0.9", "task.epochs=2")


@pytest.fixture
def stop_finetune(run, stop_after, tmp_path):
    """stop_finetune(steps, ...) -> the resume folder of a finetune stopped after these steps."""

    def start(steps: int, *more: str) -> Path:
        with stop_after(steps):
            ran = run(*LONG, *more)
        assert ran.code == 75, ran.err
        (folder,) = (tmp_path / "outputs").glob("lost/*/in-progress/resume")
        return folder

    return start


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.fault(8, 9)
@pytest.mark.slow
def test_a_lost_best_stops_the_training_and_the_ways_out_work(run, stop_finetune, monkeypatch):
    """In the second epoch, whose state also holds averages; the first epoch was validated."""
    monkeypatch.setenv("GIT_DIR", os.devnull)
    folder = stop_finetune(5, "task.ema=0.9", "task.epochs=2")
    (best,), newest = folder.glob("best-*"), max(folder.glob("state-*"))
    flip_byte(best)
    before = contents(folder)
    next_run = "runtime.run_id=next"
    resumes = [(f"runtime.resume='{place}'", next_run) for place in (newest, folder)]
    for more in ((), *resumes):
        ran = run(*AVERAGED, *more)
        assert (ran.code, ran.folder) == (1, None)
        assert ran.err.startswith(f"fgvc: {best} (")
        for words in ("sha256 mismatch", "runtime.resume_force=true", str(newest)):
            assert words in ran.err
        assert ran.err.count("\n") == 1
        assert contents(folder) == before
    force = "runtime.resume_force=true"
    for more in ((force, next_run, f"runtime.resume='{newest}'"), (force,)):
        forced = run(*AVERAGED, *more)
        assert forced.code == 0, forced.err
        assert "resumed after step 5" in forced.out
        assert "ranked beside plain runs: resumed by force without its best weights" in forced.out
        record = forced.json("metrics.json")
        resumed, lost = record["resumed"], {"epoch": 1, "step": 3}
        assert (resumed["best_lost"], resumed["forced"], resumed["changed"]) == (lost, True, [])
        assert record["selection"]["best_lost"] == lost
        assert record["selection"]["best_epoch"] == 2
        assert record["comparability"]["forced"] is True
        (note,) = [note for note in record["notes"] if note.startswith("selection: ")]
        assert "the best weights of epoch 1 (step 3) were lost" in note
    fit = next(row for row in run_audit(forced.folder) if "forced resume" in str(row))
    assert "without the best weights so far" in str(fit)


@pytest.fixture
def states(tmp_path):
    return States(tmp_path / "resume", keep=3)


def saved(states: States, *steps: int, best: int | None = None) -> None:
    for step in steps:
        if step == best:
            states.save_best(step, {"a": torch.full((2,), float(step))})
        states.save(step, {"trainer": step})


@pytest.mark.fault(8)
def test_symmetric_losses_of_last_and_best(states):
    """Lost last: the state before it. Lost best: a state with its own best, or a stop."""
    notes: list[str] = []
    saved(states, 1, 2, best=1)
    saved(states, 3, best=3)
    newest = {step: next(states.folder.glob(f"state-{step:08d}*")) for step in (1, 2, 3)}
    first, third = sorted(states.folder.glob("best-*"))
    before = contents(states.folder)

    def again(**force: Any) -> Any:
        notes.clear()
        return States(states.folder, 3).newest(notes.append, **force)

    flip_byte(third)
    assert again() == (2, {"trainer": 2})  # an earlier state with its own best: nothing is lost
    assert again(without_best=True) == (2, {"trainer": 2})
    assert str(third) in notes[0]
    flip_byte(first)
    with pytest.raises(BestLostError) as caught:
        again()
    assert str(caught.value).startswith(f"{third} (")
    assert notes == []
    assert again(without_best=True) == (3, {"trainer": 3})
    flip_byte(newest[3])
    assert again(without_best=True) == (2, {"trainer": 2})
    for step in (1, 2):
        flip_byte(newest[step])
    assert again() is None  # nothing whole is left: it is said, and the files stay
    assert "no intact resume state is left" in notes[-1]
    assert contents(states.folder).keys() == before.keys()


@pytest.mark.fault(8)
def test_a_best_of_another_model_is_refused_before_it_is_loaded(run, stop_finetune):
    still = ("task.learning_rate=0", "task.epochs=2")  # the first epoch stays the best
    folder = stop_finetune(5, *still)
    (best,), state = folder.glob("best-*"), max(folder.glob("state-*"))

    def rewritten(path: Path, stem: str, key: str, value: object) -> str:
        record = torch.load(path, weights_only=True)
        record[key] = value
        buffer = io.BytesIO()
        torch.save(record, buffer)
        name = f"{stem}.{hashing.sha256_bytes(buffer.getvalue())}.pt"
        (folder / name).write_bytes(buffer.getvalue())
        return name

    other = rewritten(best, "best-00000003", "state", {"a": torch.zeros(2)})
    rewritten(state, "state-00000006.best-00000003", "best", other)
    ran = run(*LONG, *still)
    assert (ran.code, ran.folder) == (1, None)
    assert "the best weights of step 3 are of another model: " in ran.err
    assert ran.err.count("\n") == 1
