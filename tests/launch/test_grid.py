"""sweep=grid from dry run to table: the announced jobs run, and a second dry run finds them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from fgvc.launch import dry_run
from fgvc.record import measured_rate
from fgvc.run import main
from tests.jobs import BIRDS, MINI, last_of_each

GRID = (
    "sweep=grid",
    *MINI,
    *BIRDS,
    "dataset.subset=tiny",  # of 6 classes: 12 train, 6 val, 12 test
    "resolution=r224",
    "part_attention=off,centre",
    "experiment=baseline_zero_shot,baseline_knn,finetune",
    "head.k=3",
    "task.epochs=1",
    "task.batch_size=4",
    "runtime.num_workers=0",
    "runtime.device=cpu",
)


def files_below(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_grid_runs_as_planned_and_a_second_plan_finds_it(places, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(measured_rate, "LOADED", math.inf)  # whatever else this machine does
    empty = f"runtime.cache_root={tmp_path / 'cache'}"
    options = last_of_each(*GRID, *places, empty).values()

    def output(*more: str) -> str:
        dry_run._counts.clear()  # as in a new process
        capfd.readouterr()
        assert main([*options, *more]) == 0
        return capfd.readouterr().out

    def plan(run_id: str) -> list[str]:
        before = files_below(tmp_path)
        lines = output(f"runtime.run_id={run_id}", "runtime.dry_run=true").splitlines()
        assert files_below(tmp_path) == before
        return lines

    first = plan("one")
    assert first[0] == "run_id one: 4 jobs, nothing started"
    rows = [line.split() for line in first if "baseline_knn" in line or "finetune" in line]
    assert [row[1] for row in rows] == ["30", "30", "30", "30"]  # 12 + 6 + 12, or 12 and 6 + 12
    assert sum("no text tower" in line for line in first) <= 2

    table = output("runtime.run_id=one")
    assert "2 combinations: head=text reads class names" in table
    folders = sorted((tmp_path / "outputs" / "one").glob("*/*/metrics.json"))
    assert {folder.parts[-3] for folder in folders} == {row[0] for row in rows}

    assert any(line.startswith("done: 4 of 4") for line in plan("one"))
    again = plan("two")
    knn = [line.split() for line in again if "baseline_knn" in line and "config" not in line]
    assert [row[1] for row in knn] == ["cached", "cached"]
    assert any("36 cached" in line or "60 cached" in line for line in again)
    text = "measured here: vit_small_patch16_224 at 224 px"
    assert text in " ".join(" ".join(again).split())
    monkeypatch.setattr(measured_rate, "LOADED", -1.0)
    busy = " ".join(" ".join(plan("two")).split())
    assert text not in busy
    assert "not used: rates of a busy machine, or with other than" in busy
    monkeypatch.setattr(measured_rate, "LOADED", math.inf)
    other = output("runtime.run_id=two", "runtime.dry_run=true", "runtime.threads=7")
    assert "or with other than 7 threads" in " ".join(other.split())
