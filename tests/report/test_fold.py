"""Runs -> lines: seeds are folded, and nothing else is."""

from __future__ import annotations

import statistics

import pytest

from fgvc.report.fold import fold
from fgvc.report.runs import scan


def lines(root):
    return fold(scan(root.glob("*/*/*"))[0])


def test_seeds_fold_and_heads_and_fits_do_not(real):
    found = lines(real)
    assert {(line.first.head, line.first.final_fit) for line in found} == {
        (head, fit) for head in ("linear", "knn") for fit in ("train", "trainval")
    }
    for line in found:
        assert [run.seed for run in line.runs] == [0, 1]
        assert line.repeats == 0
        values = [run.top1 for run in line.runs]
        assert line.top1 == line.mean("top1") == pytest.approx(sum(values) / 2)
        assert line.sd("top1") == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
        assert line.sd("loss") == statistics.stdev([run.loss for run in line.runs])


def test_the_same_answer_again_folds_to_the_newest(forge, made):
    times = {"monday": "2026-11-02", "wednesday": "2026-11-04", "tuesday": "2026-11-03"}
    for name, day in times.items():
        forge(name, stamp={"started": f"{day}T08:00:00+00:00"})
    (line,) = lines(made)
    assert [run.run_id for run in line.runs] == ["wednesday"]
    assert line.repeats == 2
    assert line.sd("top1") is None


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
def test_what_may_change_a_number_keeps_lines_apart(forge, made, change):
    forge("one")
    forge("two", **{**change, "config": {"seed": 1, **change.get("config", {})}})
    assert len(lines(made)) == 2


def test_a_number_that_one_seed_lacks_has_no_mean(forge, made):
    forge("one")
    forge("two", config={"seed": 1}, numbers={"val": None})
    (line,) = lines(made)
    assert line.mean("val_top1") is line.sd("val_top1") is None
    assert line.mean("top1") is not None


def test_columns_hold_a_mean_or_a_list_or_what_all_share(forge, made):
    forge("one", numbers={"cost": {"images_per_s": 10.0}})
    forge("two", config={"seed": 1}, numbers={"cost": {"images_per_s": 30.0}})
    row = lines(made)[0].columns()
    assert row["images_per_s"] == 20.0
    assert row["run_id"] == ["one", "two"]
    assert row["seed"] == [0, 1]
    assert row["head"] == "linear"
    assert row["seeds"] == 2
    assert row["top1_sd"] == 0.0
