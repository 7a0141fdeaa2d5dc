"""A resumed training equals an undisturbed one, or is refused with the keys that differ."""

from __future__ import annotations

import json

import pytest

from fgvc.report.audit import run_audit
from tests.faults.steps import (
    EVERYTHING,
)


@pytest.mark.fault(5)
@pytest.mark.slow
def test_a_resume_without_averages_equals_an_undisturbed_run(
    finetune, stop_finetune, run_files, read_outcome, tmp_path
):
    """In the second epoch, after one evaluation of the training model itself."""
    plain = ("task.ema=null", "task.drop_path=0.5", "task.epochs=2")
    alone = finetune(*EVERYTHING, *plain, f"runtime.output_root={tmp_path / 'undisturbed'}")
    still = finetune(
        *EVERYTHING,
        *plain,
        "task.drop_path=0.0",
        f"runtime.output_root={tmp_path / 'without'}",
    )
    stop_finetune(4, *plain)
    ran = finetune(*EVERYTHING, *plain)
    assert "resumed after step 4" in ran.out
    assert read_outcome(ran.folder) == read_outcome(alone.folder)
    losses = [read_outcome(each_run.folder).curves["val/loss"] for each_run in (alone, still)]
    assert losses[0] != losses[1]


@pytest.mark.fault(7)
def test_another_config_under_the_same_run_id_is_refused(finetune, stop_finetune, run_files):
    stop_finetune(4)
    before = {path: path.read_bytes() for path in run_files("in-progress/resume/*")}
    ran = finetune(*EVERYTHING, "task.learning_rate=1e-3", "head=cosine")
    assert ran.code == 1
    assert ran.err.count("\n") == 1
    assert "task.learning_rate: 0.0005 there, 0.001 here" in ran.err
    assert "head.name: linear there, cosine here" in ran.err
    assert {path: path.read_bytes() for path in run_files("in-progress/resume/*")} == before
    assert finetune(*EVERYTHING).code == 0


@pytest.mark.parametrize("place", ["", "/resume/STATE", "/resume"])
def test_a_state_can_be_named(
    finetune, stop_finetune, run_files, read_outcome, undisturbed_outcome, place
):
    stop_finetune(4)
    (folder,) = run_files("in-progress")
    (newest,) = run_files("in-progress/resume/state-00000004*")
    path = f"{folder}{place.replace('STATE', newest.name)}"
    ran = finetune(*EVERYTHING, "runtime.run_id=second", f'runtime.resume="{path}"')
    assert ran.code == 0, ran.err
    resumed = ran.json("metrics.json")["resumed"]
    assert (resumed["step"], resumed["forced"]) == (4, False)
    assert resumed["from"] == f"r/{folder.parent.name}"
    assert read_outcome(ran.folder) == undisturbed_outcome()
    assert newest.exists()  # the other run's


@pytest.mark.fault(7)
def test_a_state_of_another_config_needs_force_which_is_recorded(
    finetune, stop_finetune, run_files
):
    stop_finetune(4)
    (folder,) = run_files("in-progress")
    other = ("runtime.run_id=second", f"runtime.resume={folder}", "task.learning_rate=1e-3")
    ran = finetune(*EVERYTHING, *other)
    assert ran.code == 1
    assert "task.learning_rate: 0.0005 there, 0.001 here" in ran.err
    assert "runtime.resume_force=true" in ran.err
    assert ran.err.count("\n") == 1
    forced = finetune(*EVERYTHING, *other, "runtime.resume_force=true")
    assert forced.code == 0, forced.err
    assert forced.json("metrics.json")["resumed"]["forced"] is True
    assert forced.json("metrics.json")["resumed"]["step"] == 4
    assert forced.json("metrics.json")["selection"]["steps"] == 18


@pytest.mark.fault(7)
@pytest.mark.slow
def test_a_forced_resume_shows_what_it_was_fitted_on_and_stays_out_of_the_ranking(
    finetune, stop_finetune, run, run_files, tmp_path
):
    """From a state that has trained on validation, which this config still calls validation."""
    stop_finetune(4, "final_fit=trainval")
    (folder,) = run_files("in-progress")
    force = (f"runtime.resume={folder}", "runtime.resume_force=true", "final_fit=train")
    forced = finetune(*EVERYTHING, "runtime.run_id=forced", *force, "task.epochs=2")
    honest = finetune(*EVERYTHING, "runtime.run_id=honest", "final_fit=train", "task.epochs=2")
    assert (forced.code, honest.code) == (0, 0), forced.err + honest.err
    assert "not ranked beside plain runs: resumed by force under another config" in forced.out
    numbers, plain = (ran.json("metrics.json") for ran in (forced, honest))
    assert (numbers["fitted_on"], plain["fitted_on"]) == (18, 12)
    assert (numbers["comparability"]["forced"], plain["comparability"]["forced"]) == (True, False)
    assert ">forced resume</span>" in (forced.folder / "report.html").read_text()

    assert run("task=report", bare=True).code == 0
    rows = json.loads((tmp_path / "outputs/baselines.json").read_text())["rows"]
    assert sorted(row["run_id"][0] for row in rows) == ["forced", "honest"]
    assert len({row["group"] for row in rows}) == len(rows)
    assert {row["run_id"][0]: "forced resume" in row["name"] for row in rows} == {
        "forced": True,
        "honest": False,
    }
    failed = {
        result.id: result.evidence
        for result in run_audit(forced.folder)[1]
        if result.state == "FAIL"
    }
    assert failed.keys() == {"plain-fit", "fitted-on"}
    assert [result.id for result in run_audit(honest.folder)[1] if result.state == "FAIL"] == []

    again = run("task=eval", f"checkpoint={forced.folder}", "runtime.run_id=eval", bare=True)
    assert again.code == 0, again.err
    assert again.json("metrics.json")["comparability"]["forced"] is True


@pytest.mark.fault(7)
@pytest.mark.parametrize("other", ["head=cosine", "backbone=dinov2"])
def test_force_makes_no_weights_fit(finetune, stop_finetune, run_files, other):
    stop_finetune(2)
    (folder,) = run_files("in-progress")
    where = ("runtime.run_id=second", f"runtime.resume={folder}", "runtime.resume_force=true")
    ran = finetune(*EVERYTHING, *where, other)
    assert ran.code == 1
    assert ran.err.count("\n") == 1, ran.err
    assert "runtime.resume" in ran.err


def test_nothing_to_resume_is_reported(finetune, tmp_path):
    ran = finetune(f"runtime.resume={tmp_path / 'nowhere'}")
    assert ran.code == 1
    assert ran.err.count("\n") == 1
    assert "no resume state there" in ran.err
