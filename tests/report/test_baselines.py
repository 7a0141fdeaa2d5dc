"""Run folders -> baselines.csv and .json: every field, the same bytes at any location."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import fields

import numpy as np
import pytest

from fgvc import metrics
from fgvc.report.baselines import write_baselines
from fgvc.report.run_rows import NO_COLUMN, Run
from fgvc.types import UserError

SPREAD = ("top1", "top5", "mean_per_class", "macro_f1", "loss", "ece", "val_top1", "val_loss")
OF_GROUP = (
    "group",
    "place",
    "outside",
    "best",
    "tie_with_best",
    "identical_to_best",
    "same_images_right_as_best",
    "identical_to_place",
    "distinct_answers",
    "test_against_best",
    "top1_minus_best",
    "top1_minus_best_low",
    "top1_minus_best_high",
    "p",
    "p_holm",
    "top1_minus_best_low_holm",
    "top1_minus_best_high_holm",
    "p_holm_pairs",
    "top1_minus_probe",
    "top1_minus_probe_low",
    "top1_minus_probe_high",
    "p_probe",
    "p_probe_holm",
    "top1_minus_probe_low_holm",
    "top1_minus_probe_high_holm",
    "p_probe_holm_pairs",
    "identical_to_probe",
    *(
        column.format(control)
        for control in ("off", "random", "centre", "pretrained_block")
        for column in (
            "top1_minus_{}",
            "top1_minus_{}_low",
            "top1_minus_{}_high",
            "p_{}",
            "p_{}_holm",
            "top1_minus_{}_low_holm",
            "top1_minus_{}_high_holm",
            "p_{}_holm_pairs",
            "identical_to_{}",
        )
    ),
    "seeds",
    "repeats",
)


def read(target):
    with (target / "baselines.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file)), json.loads((target / "baselines.json").read_text())


def test_every_field_is_a_column_of_both(real, tmp_path):
    table = write_baselines(real, tmp_path)
    rows, plain = read(tmp_path)
    expected = {*OF_GROUP, *(f"{name}_sd" for name in SPREAD)}
    expected |= {field.name for field in fields(Run)} - {*NO_COLUMN}
    assert len(expected) == 29 + 36 + 8 + 87
    assert set(rows[0]) == set(plain["rows"][0]) == expected
    assert len(rows) == len(plain["rows"]) == 4
    assert plain["rows"] == json.loads(json.dumps(table.rows()))
    assert [*rows[0]][:4] == ["name", "top1", "top1_low", "top1_high"]
    assert plain["damaged"] == []
    assert plain["alpha"] == 0.05
    assert plain["tests"]["null"] == metrics.NULL_HYPOTHESIS
    assert {row["p_holm_pairs"] for row in plain["rows"]} == {None, 1}


def test_csv_and_json_have_the_same_values(real, tmp_path):
    write_baselines(real, tmp_path)
    rows, plain = read(tmp_path)
    for row, entry in zip(rows, plain["rows"], strict=True):
        assert float(row["top1"]) == entry["top1"]
        assert row["seed"] == "0; 1"
        assert entry["seed"] == [0, 1]
        assert row["checkpoint_sha256"].split("; ") == entry["checkpoint_sha256"]
        assert row["best"] == str(entry["best"]).lower()
        assert row["p"] == ("" if entry["p"] is None else str(entry["p"]))
        assert row["weights_digest"] == ""
        assert row["group"] == entry["group"] == entry["comparability_key"]


def test_the_same_folders_give_the_same_bytes_in_another_place(real, tmp_path):
    moved = shutil.copytree(real, tmp_path / "elsewhere" / "moved")
    for root, target in ((real, tmp_path / "a"), (real, tmp_path / "b"), (moved, tmp_path / "c")):
        write_baselines(root, target)
    for name in ("baselines.csv", "baselines.json"):
        assert len({(tmp_path / place / name).read_bytes() for place in "abc"}) == 1
        assert str(tmp_path) not in (tmp_path / "c" / name).read_text()


def test_the_table_may_be_among_the_runs_and_is_rewritten(outputs):
    write_baselines(outputs, outputs)
    first = (outputs / "baselines.csv").read_bytes()
    shutil.rmtree(next(outputs.glob("*/*/*/ckpt.bin")).parent)
    write_baselines(outputs, outputs)
    assert (outputs / "baselines.csv").read_bytes() != first
    (old,) = outputs.glob("baselines/baselines-*.csv")
    assert old.read_bytes() == first
    assert sorted(path.name for path in outputs.iterdir()) == [
        ".baselines.lock",
        "baselines",
        *(f"baselines.{kind}" for kind in ("csv", "html", "json", "retention.json")),
        "first",
    ]
    kinds = ("csv", "html", "json", "retention.json")
    assert {path.name for path in old.parent.iterdir()} == {f"{old.stem}.{kind}" for kind in kinds}
    # a moved page still links to the runs
    page = (old.parent / f"{old.stem}.html").read_text(encoding="utf-8")
    links = re.findall(r'<a [^>]*href="([^"#]+)"', page)
    assert len(links) > 4
    assert sum((old.parent / link).resolve().exists() for link in links) >= len(links) - 2


def test_damaged_folders_are_in_json_and_in_no_row(outputs):
    folder = next(outputs.glob("*/*/*/ckpt.bin")).parent
    (folder / "metrics.json").unlink()
    write_baselines(outputs, outputs)
    rows, plain = read(outputs)
    name = "/".join(folder.parts[-3:])
    why = {"why": "metrics.json: missing", "other_version": False}
    assert plain["damaged"] == [{"folder": name, **why}]
    assert all(name not in row["folder"] for row in rows)


def test_a_tie_is_marked_and_a_lone_line_is_not(forge, output_root, tmp_path):
    right_N = np.arange(300) < 200
    for head, answers in (("a", right_N), ("b", np.roll(right_N, 3)), ("c", ~right_N)):
        forge(head, config={"head": {"name": head}}, right=answers)
    forge("d", numbers={"comparability_key": "f" * 64})
    write_baselines(output_root, tmp_path)
    by_run = {row["run_id"]: row for row in read(tmp_path)[0]}
    assert [by_run[name]["tie_with_best"] for name in "abcd"] == ["", "true", "false", ""]
    assert [by_run[name]["best"] for name in "abcd"] == ["true", "false", "false", "true"]


def test_identical_answers_have_columns_of_their_own(forge, output_root, tmp_path):
    right_N = np.arange(300) < 200
    for head, answers in (("a", right_N), ("b", right_N), ("c", ~right_N), ("d", ~right_N)):
        forge(head, config={"head": {"name": head}}, right=answers)
    forge("e", config={"head": {"name": "e"}}, right=right_N, wrong=2)
    write_baselines(output_root, tmp_path)
    rows, plain = read(tmp_path)
    by_place = {row["place"]: row for row in plain["rows"]}
    others = [row for row in by_place.values() if row["identical_to_best"] is False]
    twin = next(row for row in by_place.values() if row["identical_to_best"])
    assert twin["tie_with_best"] is False
    assert twin["p"] == 1.0
    assert twin["identical_to_place"] == 1
    assert {row["same_images_right_as_best"] for row in others} == {True, False}
    tie = next(row for row in others if row["same_images_right_as_best"])
    assert (tie["tie_with_best"], tie["identical_to_place"]) == (True, None)
    assert (by_place[4]["identical_to_place"], by_place[5]["identical_to_place"]) == (None, 4)
    assert {row["identical_to_best"] for row in rows} == {"", "true", "false"}


@pytest.mark.parametrize("empty", ["absent", "bare"])
def test_no_run_is_one_line(tmp_path, empty):
    root = tmp_path / "none"
    if empty == "bare":
        (root / "a" / "0123456789abcdef" / "in-progress").mkdir(parents=True)
    with pytest.raises(UserError, match=r"runtime\.output_root=.*: no complete run") as caught:
        write_baselines(root, tmp_path / "target")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "target").exists()


def test_only_damaged_runs_are_one_line(outputs, tmp_path):
    for file in outputs.glob("*/*/*/metrics.json"):
        file.unlink()
    with pytest.raises(UserError, match=r"runtime\.output_root=.*all 8 runs are damaged") as caught:
        write_baselines(outputs, tmp_path / "target")
    assert "\n" not in str(caught.value)


def test_one_cell_has_the_distinct_notes_of_all_seeds(forge, output_root, tmp_path):
    forge("a", numbers={"notes": ["shared", "of seed 0"]})
    forge("b", config={"seed": 1}, numbers={"notes": ["shared", "of seed 1"]})
    write_baselines(output_root, tmp_path)
    ((row,), plain) = read(tmp_path)
    assert row["notes"] == "shared; of seed 0; of seed 1"
    assert plain["rows"][0]["notes"] == ["shared", "of seed 0", "of seed 1"]
