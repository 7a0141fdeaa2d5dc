"""task=probe from each published layout and from a table: read, run, recorded."""

from __future__ import annotations

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fgvc.run import main

# 16 patches and the smallest backbone: brightness alone separates the classes
SMALL = ("backbone=vit", "backbone.size=mini", "resolution.side=64", "resolution.name=r64")
FEW = (
    *SMALL,
    "dataset.partial=true",
    "dataset.val_fraction=0.25",
    "task.c_count=5",
    "final_fit=train",
)
LAYOUTS = {
    "cars whole": lambda copies: copies.cars("whole"),
    "cars devkit": lambda copies: copies.cars("devkit", labels=".", nested="{}/"),
    "dogs": lambda copies: copies.dogs(),
    "nabirds": lambda copies: copies.nabirds("nabirds/nabirds"),
    "inat2017": lambda copies: copies.inat2017(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_probe(run, copies, layout):
    root, name = LAYOUTS[layout](copies), layout.split()[0]
    ran = run(f"dataset={name}", f'dataset.root="{root}"', *FEW, birds=False)
    assert ran.code == 0, ran.err
    check(ran, name)
    stamp = ran.json("env_stamp.json")
    assert stamp["partial"] is True
    assert stamp["dataset_notes"][0].startswith("partial copy: 3 of ")
    assert {"source", "license", "approval", "split", "label_noise", "contamination"} <= set(
        stamp["dataset_card"]
    )


@pytest.mark.parametrize(("kind", "split"), [("csv", True), ("parquet", False)])
def test_table(run, copies, kind, split):
    file = copies.table(kind, split)
    ran = run("dataset=table", f'dataset.table="{file}"', *FEW, birds=False)
    assert ran.code == 0, ran.err
    check(ran, "table")
    names = {row["name"] for row in ran.json("labelmap.json")["classes"]}
    assert names == {"Möwe = große, weiße", "Ram C/V $2", "鳥 (juvenile) $1"}


def test_hugging_face_shards(run, copies):
    """Images and class names inside Parquet; without a test split, validation is test."""
    whole_table = pq.read_table(copies.table("parquet"))
    names = sorted(set(whole_table["label"].to_pylist()))
    about = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    folder = copies.root / "shards"
    folder.mkdir()
    for split, shard in (("train", "train"), ("test", "validation")):
        rows = [row for row in whole_table.to_pylist() if row["split"] == split]
        images = [{"bytes": (copies.root / row["path"]).read_bytes()} for row in rows]
        columns = {"image": images, "label": [names.index(row["label"]) for row in rows]}
        table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(about)})
        pq.write_table(table, folder / f"{shard}-00000-of-00001.parquet")
    ran = run("dataset=table", f'dataset.table="{folder}"', *FEW, birds=False)
    assert ran.code == 0, ran.err
    check(ran, "table")
    assert [row_of_class["name"] for row_of_class in ran.json("labelmap.json")["classes"]] == names
    assert "its validation split is the test" in ran.out


def test_a_complete_copy_that_is_declared_partial_is_recorded_as_complete(run, copies, capfd):
    """One script for two machines: the declaration changes neither hash nor result."""
    counts = ("classes=3", "train=12", "test=6")
    official = [f"dataset.official.{count}" for count in counts]
    places = ("dataset=nabirds", f'dataset.root="{copies.nabirds()}"')
    fitted = [
        run(*places, *FEW, *official, f"dataset.partial={partial}", birds=False)
        for partial in ("true", "false")
    ]
    assert [ran.code for ran in fitted] == [0, 0], fitted[0].err
    assert "this copy is complete" in fitted[0].out
    assert "PARTIAL" not in fitted[0].out
    stamps = [ran.json("env_stamp.json") for ran in fitted]
    assert [stamp["partial"] for stamp in stamps] == [False, False]
    assert stamps[0]["config_hash"] == stamps[1]["config_hash"]
    for ran in fitted:
        assert main(["task=audit", f"run='{ran.folder}'"]) == 0, capfd.readouterr().out


def check(ran, name):
    """Three classes of one brightness each, which any features separate."""
    assert ran.json("metrics.json")["test"]["top1"] == 1.0
    assert ran.json("env_stamp.json")["dataset"] == name
    rows = pq.read_table(ran.folder / "predictions.parquet").to_pandas()
    assert (rows.split == "test").sum() in (4, 6)
    assert (rows.pred == rows.label)[rows.split == "test"].all()


def test_eval_finds_the_table_again_and_can_be_given_another_place(run, copies, tmp_path):
    file = copies.table()
    fitted = run("dataset=table", f'dataset.table="{file}"', *FEW, birds=False)
    again = run("task=eval", f"checkpoint={fitted.folder}", bare=True)
    assert again.code == 0, again.err
    assert again.json("metrics.json")["test"] == fitted.json("metrics.json")["test"]
    shutil.copytree(copies.root, tmp_path / "moved")
    (fitted.folder / "config.yaml").unlink()
    moved = tmp_path / "moved" / file.name
    there = run("task=eval", f"checkpoint={fitted.folder}", f"dataset.table={moved}", bare=True)
    assert there.code == 0, there.err
    assert there.json("metrics.json")["test"] == fitted.json("metrics.json")["test"]


def test_box_crop_changes_the_hash_and_has_its_own_features(run, copies):
    root = copies.nabirds()
    choices = ("dataset=nabirds", f'dataset.root="{root}"', *FEW)
    uncropped = run(*choices, birds=False)
    crop = run(*choices, "dataset.box_crop=true", birds=False)
    assert crop.code == 0, crop.err
    assert uncropped.folder.parts[-2] != crop.folder.parts[-2]
    assert crop.json("metrics.json")["cost"]["forwarded"] == 18
    keys = [ran.json("metrics.json")["comparability_key"] for ran in (uncropped, crop)]
    assert keys[0] != keys[1]
    notes = crop.json("env_stamp.json")["dataset_notes"]
    assert "every image, in test too, is cropped to its bounding box" in notes
    again = run("task=eval", f"checkpoint={crop.folder}", bare=True)
    assert again.json("metrics.json")["test"] == crop.json("metrics.json")["test"]


def test_a_missing_table_is_reported_before_anything_is_written(run, tmp_path):
    ran = run("dataset=table", birds=False)
    assert ran.code == 2
    assert "dataset=table needs dataset.table=FILE" in ran.err
    assert not (tmp_path / "outputs").exists()
