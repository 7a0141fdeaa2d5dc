"""A run on `dataset.subset=tiny` is marked in every output with its numbers."""

from __future__ import annotations

import csv
import json

import pytest

from fgvc.report.baselines import build_table, write_baselines
from fgvc.report.run_rows import read_run
from fgvc.report.terminal_table import print_table
from fgvc.run import main
from tests.jobs import MINI

RUN = (
    *MINI,
    "head=knn",
    "head.k=3",
    "dataset=synthetic",
    "dataset.subset=tiny",
    "dataset.generator.classes=6",
    "dataset.generator.train_per_class=6",
    "dataset.generator.test_per_class=5",
    "dataset.generator.side=64",
    "resolution.side=64",
    "resolution.name=r64",
    "runtime.num_workers=0",
)
TINY = {"dataset": {"subset": "tiny"}}


def test_a_run_on_a_subset_is_marked_from_its_title_to_the_report(tmp_path, capsys):
    roots = [f"runtime.{name}_root={tmp_path / name}" for name in ("output", "cache", "data")]
    assert main([*RUN, *roots]) == 0
    assert "(6 classes, SUBSET tiny)" in " ".join(capsys.readouterr().out.split())
    (folder,) = (file.parent for file in tmp_path.glob("output/*/*/*/ckpt.bin"))
    assert read_run(folder).subset == "tiny"
    table = write_baselines(tmp_path / "output", tmp_path)
    print_table(table)
    assert "SUBSET tiny" in capsys.readouterr().out
    with (tmp_path / "baselines.csv").open(encoding="utf-8") as file:
        assert [row["subset"] for row in csv.DictReader(file)] == ["tiny"]
    (row,) = json.loads((tmp_path / "baselines.json").read_text())["rows"]
    assert row["subset"] == "tiny"
    assert ">subset tiny</span>" in (tmp_path / "baselines.html").read_text(encoding="utf-8")


def test_a_run_on_the_whole_dataset_has_no_mark(runs, real, tmp_path, capsys):
    assert read_run(runs()).subset is None
    print_table(write_baselines(real, tmp_path))
    assert "subset" not in capsys.readouterr().out.lower()
    assert ">subset " not in (tmp_path / "baselines.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("partial", [False, True])
def test_a_group_of_a_subset_states_it_beside_a_partial_copy(forge, output_root, capsys, partial):
    forge("a", config=TINY, stamp={"partial": partial})
    print_table(build_table(output_root.glob("*/*/*")))
    marks = "PARTIAL COPY, SUBSET tiny" if partial else "SUBSET tiny"
    assert f"synthetic, {marks} · " in capsys.readouterr().out


def test_one_run_on_a_subset_is_marked_in_its_own_row(forge, output_root, capsys):
    """A dataset as small as its tiny subset has the same manifest as the subset."""
    forge("a", config={**TINY, "head": {"name": "a"}})
    forge("b", config={"head": {"name": "b"}})
    print_table(build_table(output_root.glob("*/*/*")))
    out = capsys.readouterr().out
    assert "SUBSET" not in out
    assert out.count("· subset tiny") == 1
