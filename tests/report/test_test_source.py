"""A run whose test is validation, or split from train, is marked in every output."""

from __future__ import annotations

import csv
import json

import pytest

from fgvc.launch import dry_run
from fgvc.report.baselines import build_table, write_baselines
from fgvc.report.run_rows import read_run
from fgvc.report.terminal_table import print_table
from fgvc.run import main

RUN = (
    "backbone=vit",
    "backbone.size=mini",
    "backbone.pretrained=false",
    "head=knn",
    "head.k=3",
    "dataset=folder",
    "dataset.name=moths",
    "resolution.side=64",
    "resolution.name=r64",
    "runtime.num_workers=0",
)
MARK = {"val": "test = val", "carved": "test carved"}
FOLDERS = {"val": ("train", "val"), "carved": (".",), "test": ("train", "val", "test")}


@pytest.fixture
def moths(tmp_path, jpeg):
    """`moths("train", "val")` -> the overrides that read four images of two classes in each."""

    def make(*splits: str) -> list[str]:
        for place, split in enumerate(splits):
            for label, name in enumerate(("gull", "wren")):
                folder = tmp_path / "moths" / split / name
                folder.mkdir(parents=True)
                for number in range(4):
                    seed = 100 * place + 10 * label + number
                    (folder / f"{number}.jpg").write_bytes(jpeg(seed))
        roots = [f"runtime.{name}_root={tmp_path / name}" for name in ("output", "cache", "data")]
        return [*RUN, *roots, f"dataset.root={tmp_path / 'moths'}"]

    return make


def squeezed(capsys) -> str:
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("source", ["val", "carved"])
def test_where_the_test_comes_from_is_marked_from_the_title_to_the_report(
    source, moths, tmp_path, capsys
):
    command = moths(*FOLDERS[source])
    assert main(command) == 0
    out = squeezed(capsys)
    assert f"(2 classes, {MARK[source].upper()})" in out
    assert f"note: {MARK[source]}: " in out
    (folder,) = (file.parent for file in tmp_path.glob("output/*/*/*/ckpt.bin"))
    stamp, numbers = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("env_stamp", "metrics")
    )
    assert stamp["test_source"] == source
    text = {"val": "test is its validation split", "carved": "test is a seeded part"}[source]
    assert stamp["dataset_card"]["split"].startswith("from the data: ")
    assert text in stamp["dataset_card"]["split"]
    assert any(note.startswith("test = val: ") for note in numbers["notes"]) == (source == "val")
    assert f">{MARK[source]}</span>" in (folder / "report.html").read_text(encoding="utf-8")
    assert read_run(folder).test_source == source
    print_table(write_baselines(tmp_path / "output", tmp_path))
    assert f"moths, {MARK[source].upper()}" in squeezed(capsys)
    with (tmp_path / "baselines.csv").open(encoding="utf-8") as file:
        assert [row["test_source"] for row in csv.DictReader(file)] == [source]
    assert f">{MARK[source]}</span>" in (tmp_path / "baselines.html").read_text(encoding="utf-8")
    again = ["task=eval", f"checkpoint={folder}", *command[-4:], "runtime.run_id=again"]
    assert main(again) == 0
    (evaluation,) = tmp_path.glob("output/again/*/*/env_stamp.json")
    assert json.loads(evaluation.read_text())["test_source"] == source


def test_a_dataset_with_its_own_test_split_has_no_mark(runs, real, tmp_path, capsys):
    assert read_run(runs()).test_source == "test"
    print_table(write_baselines(real, tmp_path))
    out = squeezed(capsys).lower()
    assert "test = val" not in out
    assert "test carved" not in out
    assert ">test " not in (tmp_path / "baselines.html").read_text(encoding="utf-8")


def test_runs_with_other_test_sources_never_rank_together(moths, tmp_path):
    """The same images and classes, with val as the test or as validation."""
    command = moths("train", "val")
    assert main(command) == 0
    (tmp_path / "moths" / "val").rename(tmp_path / "moths" / "test")
    assert main(command) == 0
    groups = build_table((tmp_path / "output").glob("*/*/*")).groups
    assert sorted(group.lines[0].first.test_source for group in groups) == ["test", "val"]


def test_one_run_of_a_group_is_marked_in_its_own_row(forge, output_root, capsys):
    forge("a", config={"head": {"name": "a"}}, stamp={"test_source": "val"})
    forge("b", config={"head": {"name": "b"}})
    print_table(build_table(output_root.glob("*/*/*")))
    out = squeezed(capsys)
    assert "TEST = VAL" not in out
    assert out.count("· test = val") == 1


def test_a_dry_run_counts_the_validation_split_of_the_dataset(moths, capsys):
    command = moths("train", "val", "test")
    assert main([*command, "runtime.dry_run=true"]) == 0
    assert "24 images to forward" in squeezed(capsys)
    dry_run._counts.clear()
