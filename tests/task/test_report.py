"""task=report as a user starts it: real runs in, one table out."""

from __future__ import annotations

import csv
import json

import pytest

FEW = ("resolution.side=64", "resolution.name=r64", "task.c_count=3")


@pytest.fixture(autouse=True)
def _one_code(monkeypatch, tmp_path):
    """The runs of a test share their code, even if the checkout is being edited meanwhile."""
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "no-git"))


def rows(folder):
    with (folder / "baselines.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_runs_of_several_commands_are_in_one_table(run, tmp_path):
    for number, choice in enumerate(("head=linear", "head=knn", "head=linear", "final_fit=train")):
        assert run(*FEW, choice, f"runtime.run_id=r{number}").code == 0
    ran = run("task=report", bare=True)
    assert ran.code == 0, ran.err
    table = rows(tmp_path / "outputs")
    assert [(row["head"], row["final_fit"]) for row in table if row["final_fit"] == "train"] == [
        ("linear", "train")
    ]
    assert {row["head"]: row["repeats"] for row in table if row["final_fit"] == "trainval"} == {
        "linear": "1",
        "knn": "0",
    }
    assert len({row["group"] for row in table}) == 2
    assert ran.out.count("comparable (") == 2
    assert "baselines.json" in ran.out


def test_a_partial_copy_is_marked_in_table_and_title(run, copies, tmp_path):
    root = copies.nabirds()
    partial = ("dataset=nabirds", "dataset.partial=true", "dataset.val_fraction=0.25")
    few = ("final_fit=train", f"dataset.root='{root}'", *FEW)
    assert run(*partial, *few, birds=False).code == 0
    ran = run("task=report", bare=True)
    assert "nabirds, PARTIAL COPY" in ran.out
    assert [row["partial"] for row in rows(tmp_path / "outputs")] == ["true"]


def test_task_output_sets_the_folder_of_the_table(run, tmp_path):
    run(*FEW)
    target = tmp_path / "a table = here"
    ran = run("task=report", f"task.output='{target}'", bare=True)
    assert ran.code == 0, ran.err
    assert len(json.loads((target / "baselines.json").read_text())["rows"]) == 1
    assert not (tmp_path / "outputs" / "baselines.csv").exists()


def test_without_a_run_the_error_is_one_line(run, tmp_path):
    ran = run("task=report", bare=True)
    assert ran.code == 1
    (line,) = ran.err.splitlines()
    assert "no complete run" in line
    assert not (tmp_path / "outputs").exists()
