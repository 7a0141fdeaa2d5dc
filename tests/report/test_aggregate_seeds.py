"""Runs -> lines: only runs that differ in their seed share a line."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pytest

from fgvc.report.aggregate_seeds import aggregate_seeds, unique_names
from fgvc.report.run_rows import scan_runs
from fgvc.store import hashing
from tests.narrow import not_none


def lines(root):
    return aggregate_seeds(scan_runs(root.glob("*/*/*"))[0])


def test_only_seeds_share_a_line(real):
    report_lines = lines(real)
    assert {(line.first.head, line.first.final_fit) for line in report_lines} == {
        (head, fit) for head in ("linear", "knn") for fit in ("train", "trainval")
    }
    for line in report_lines:
        assert [run.seed for run in line.runs] == [0, 1]
        assert line.repeats == 0
        values = [run.top1 for run in line.runs]
        assert line.top1 == line.mean("top1") == pytest.approx(sum(values) / 2)
        assert line.sd("top1") == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
        assert line.sd("loss") == statistics.stdev([not_none(run.loss) for run in line.runs])


def test_only_the_newest_of_repeated_runs_is_shown(forge, output_root):
    times = {"monday": "2026-11-02", "wednesday": "2026-11-04", "tuesday": "2026-11-03"}
    for name, day in times.items():
        forge(name, stamp={"started": f"{day}T08:00:00+00:00"})
    (line,) = lines(output_root)
    assert [run.run_id for run in line.runs] == ["wednesday"]
    assert line.repeats == 2
    assert line.sd("top1") is None


def test_a_repeat_that_predicts_other_classes_is_noted(forge, output_root):
    """The same code, data and weights: another device, or another version of a library."""
    right_N = np.arange(300) % 3 > 0
    answers, folder = {"newest": right_N, "same": right_N, "other": ~right_N}, Path()
    for day, (name, answer_N) in enumerate(answers.items()):
        stamp = {"started": f"2026-11-0{9 - day}T08:00:00+00:00"}
        folder = forge(name, right=answer_N, stamp=stamp)
    stamp = {"started": "2026-10-01T08:00:00+00:00"}
    forge("old", right=right_N, numbers={"predictions_digest": None}, stamp=stamp)
    (line,) = lines(output_root)
    assert line.superseded == (folder.relative_to(output_root).as_posix(),)
    (note,) = [note for note in line.notes if "predict other classes" in note]
    assert "1 older run of the same question" in note
    assert line.superseded[0] in note


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"precision": "bf16"}},
        {"config": {"dataset": {"split_seed": 1}}},
        {"stamp": {"git_commit": "f" * 40}},
        {"stamp": {"code_patch_sha256": "f" * 64}},
        {"stamp": {"manifest_digest": "f" * 64}},
        {"stamp": {"weights_digest": "f" * 64}},
        {"stamp": {"task": "eval"}},
        {"numbers": {"comparability_key": "f" * 64}},
    ],
)
def test_any_setting_that_may_change_a_number_separates_lines(forge, output_root, change):
    forge("one")
    forge("two", **{**change, "config": {"seed": 1, **change.get("config", {})}})
    assert len(lines(output_root)) == 2


def test_a_number_that_one_seed_lacks_has_no_mean(forge, output_root):
    forge("one")
    forge("two", config={"seed": 1}, numbers={"val": None})
    (line,) = lines(output_root)
    assert line.mean("val_top1") is line.sd("val_top1") is None
    assert line.mean("top1") is not None


def test_columns_are_means_lists_or_shared_values(forge, output_root):
    forge("one", numbers={"cost": {"images_per_s": 10.0}})
    forge("two", config={"seed": 1}, numbers={"cost": {"images_per_s": 30.0}})
    row = lines(output_root)[0].columns()
    assert row["images_per_s"] == 20.0
    assert row["run_id"] == ["one", "two"]
    assert row["seed"] == [0, 1]
    assert row["head"] == "linear"
    assert row["seeds"] == 2
    assert row["top1_sd"] == 0.0


def test_a_fit_on_other_data_is_a_line_of_its_own(forge, output_root):
    change = {"facts": {"answer": {"manifest_digest": "f" * 64}}}
    forge("one")
    forge("seed", config={"seed": 1}, **change)
    forge("repeat", stamp={"started": "2099-01-01T00:00:00+00:00"}, **change)
    assert sorted(line.first.run_id for line in lines(output_root)) == ["one", "repeat"]
    assert {line.repeats for line in lines(output_root)} == {0}


@pytest.mark.parametrize("change", [{"fitted_on": 7}, {"overlap": {"images": 1}}])
def test_seeds_share_a_line_if_only_their_fit_counts_differ(forge, output_root, change):
    """The config, the data and the comparability key identify the fit of a plain run."""
    forge("one")
    forge("seed", config={"seed": 1}, numbers=change)
    (line,) = lines(output_root)
    assert [run.seed for run in line.runs] == [0, 1]
    assert (line.why_unranked is not None) == ("overlap" in change)


@pytest.mark.parametrize("mark", [{"resumed": {"forced": True}}, {"fitted_on": 7}])
def test_debugging_and_forced_runs_of_other_fits_stay_apart(forge, output_root, mark):
    debug = {"task": {"debug": "overfit"}}
    forge("one", config=debug)
    forge("two", config={**debug, "seed": 1}, numbers=mark)
    assert len(lines(output_root)) == 2


def test_two_forced_resumes_are_no_repeats_of_each_other_and_have_names_of_their_own(
    forge, output_root
):
    for name in ("one", "two"):
        forge(name, numbers={"resumed": {"forced": True}})
    report_lines = lines(output_root)
    assert [line.repeats for line in report_lines] == [0, 0]
    names = unique_names(report_lines)
    assert len(set(names)) == 2
    assert all("forced resume" in name for name in names)


# --- task=eval ---

EVAL = {"task": "eval"}
OTHER_DATA = {**EVAL, "manifest_digest": "b" * 64}


def summaries(root):
    """run_ids and repeats of each line, and the run that the line contradicts."""
    return [
        ([run.run_id for run in line.runs], line.repeats, line.contradicts) for line in lines(root)
    ]


def test_an_evaluation_with_equal_predictions_is_a_repeat_of_its_run(forge, output_root):
    forge("run", stamp={"started": "2026-01-01T00:00:00+00:00"})
    forge("one", stamp={**EVAL, "git_commit": "f" * 40, "device": "cuda"})
    forge("two", stamp={**EVAL, "eval_batch_size": 7})
    assert summaries(output_root) == [(["run"], 2, None)]


def test_the_evaluation_of_an_exported_checkpoint_is_a_repeat_of_its_run(forge, output_root):
    run = forge("run", stamp={"started": "2026-01-01T00:00:00+00:00"})
    exported = hashing.sha256_file(run / "ckpt.bin")
    forge("eval", stamp=EVAL, facts={"exported_from": exported, "whole": True})
    assert summaries(output_root) == [(["run"], 1, None)]


@pytest.mark.parametrize("key", ["git_commit", "code_patch_sha256", "weights_digest"])
def test_evaluations_of_heads_that_other_code_or_weights_fitted_are_lines_of_their_own(
    forge, output_root, key
):
    """The evaluation itself runs with the same code and weights."""
    forge("one", stamp=EVAL)
    forge("two", stamp=EVAL, facts={"answer": {key: "f" * 40}})
    forge("other seed", config={"seed": 1}, stamp=EVAL, facts={"answer": {key: "f" * 40}})
    assert sorted(len(line.runs) for line in lines(output_root)) == [1, 2]


def test_an_evaluation_repeats_the_seed_that_made_its_checkpoint(forge, output_root):
    for seed in (0, 1):
        forge(f"run{seed}", config={"seed": seed})
    forge("eval", config={"seed": 1}, stamp=EVAL)
    assert summaries(output_root) == [(["run0", "run1"], 1, None)]


def test_evaluations_on_other_data_are_a_line_however_often_they_are_repeated(forge, output_root):
    forge("run")
    for seed in (0, 1):
        for turn in (0, 1, 2):
            stamp = {**OTHER_DATA, "started": f"2026-11-0{turn + 1}T00:00:00+00:00"}
            forge(f"eval{seed}{turn}", config={"seed": seed}, stamp=stamp)
    assert sorted(summaries(output_root)) == [(["eval02", "eval12"], 4, None), (["run"], 0, None)]


def test_an_evaluation_with_other_predictions_is_shown_outside_the_ranking(forge, output_root):
    right_N = np.arange(60) < 50
    run = forge("run", right=right_N)
    forge("a", stamp=EVAL, right=right_N)
    forge("b", stamp=EVAL, right=np.roll(right_N, 1))
    forge("c", stamp=EVAL, right=np.roll(right_N, 1))
    forge("d", stamp=EVAL, right=np.roll(right_N, 2))
    place = "/".join(run.parts[-3:])
    assert sorted(summaries(output_root)) == [
        (["c"], 1, place),
        (["d"], 0, place),
        (["run"], 1, None),
    ]
    outside = {line.first.run_id: line.why_unranked for line in lines(output_root)}
    assert outside["run"] is None
    assert place in not_none(outside["c"])


def test_without_the_run_the_newest_evaluation_represents_the_checkpoint(forge, output_root):
    right_N = np.arange(60) < 50
    for day, answers in ((1, right_N), (2, np.roll(right_N, 1)), (3, right_N)):
        stamp = {**EVAL, "started": f"2026-11-0{day}T00:00:00+00:00"}
        newest = forge(f"day{day}", stamp=stamp, right=answers)
    place = "/".join(newest.parts[-3:])
    assert sorted(summaries(output_root)) == [(["day2"], 0, place), (["day3"], 1, None)]


def test_evaluations_without_a_prediction_digest_are_kept(forge, output_root):
    forge("run", numbers={"predictions_digest": None})
    forge("eval", stamp=EVAL, numbers={"predictions_digest": None})
    assert len(summaries(output_root)) == 2
