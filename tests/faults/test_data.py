"""Damaged or inconsistent datasets: one line, or a note beside the numbers."""

from __future__ import annotations

import html
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.faults.steps import (
    SMALL,
    assert_one_line,
    folder_run,
    listed_images,
)


def test_missing_root(run, tmp_path):
    assert_one_line(folder_run(run, tmp_path / "nowhere"), "nowhere", "dataset.root")


@pytest.mark.fault(25)
def test_empty_class(run, pictures):
    (pictures / "train" / "empty one").mkdir()
    assert_one_line(folder_run(run, pictures), "empty one")


@pytest.mark.fault(24)
def test_index_naming_a_missing_file(run, birds, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(birds, root)
    victim = sorted(root.glob("images/*/*.jpg"))[3]
    victim.unlink()
    ran = run("dataset=cub", "dataset.partial=true", f"dataset.root={root}", birds=False)
    assert_one_line(ran, victim.name)


@pytest.mark.fault(25)
def test_label_out_of_range(run, birds, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(birds, root)
    labels = root / "image_class_labels.txt"
    labels.write_text(labels.read_text().replace(" 6\n", " 7\n", 1))
    ran = run("dataset=cub", "dataset.partial=true", f"dataset.root={root}", birds=False)
    assert_one_line(ran, "7")


def test_partial_copy_is_refused_with_counts_unless_declared(run, birds):
    cub = ("dataset=cub", f"dataset.root={birds}", *SMALL)
    assert_one_line(run(*cub, birds=False), "5994", "60", "dataset.partial=true")
    ran = run(*cub, "dataset.partial=true", birds=False)
    assert ran.code == 0
    assert ran.json("env_stamp.json")["partial"] is True
    assert "PARTIAL" in ran.out


def test_classes_without_a_validation_image_are_counted_and_named(run, tmp_path):
    """6, 1 and 0 validation images of three classes."""
    root, rng = tmp_path / "birds", np.random.default_rng(0)
    for level, (name, count) in enumerate((("gull", 60), ("tern", 10), ("wren", 3))):
        for split, images in (("train", count), ("test", 2)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(images):
                noise = rng.integers(0, 40, (40, 40, 3)) + 70 * level
                Image.fromarray(noise.astype(np.uint8)).save(folder / f"{i}.jpg")
    ran = folder_run(run, root, "task.c_count=45")
    assert ran.code == 0, ran.err
    assert [line.count("/wren/") for line in listed_images(ran, "val")] == [0] * 7
    (note,) = ran.json("metrics.json")["notes"]
    assert note.startswith(
        "dataset.val_fraction=0.1: 1 of 3 classes have no validation image (wren)"
    )
    assert note.endswith("raise dataset.val_fraction")
    assert ran.out.count(f"note: {note}\n") == 2  # before any work, and beside the numbers
    assert ran.out.index(note) < ran.out.index("features train")
    assert note in html.unescape((ran.folder / "report.html").read_text(encoding="utf-8"))


def test_index_lines_in_another_order_share_no_wrong_feature(run, birds, tmp_path):
    """Features are kept by row: a permuted index must not read another image's."""
    accuracy = []
    for name in ("as written", "reversed"):
        root = tmp_path / name
        shutil.copytree(birds, root)
        if name == "reversed":
            index = root / "images.txt"
            index.write_text("\n".join(reversed(index.read_text().splitlines())) + "\n")
        ran = run(
            "dataset=cub",
            "dataset.partial=true",
            "head=knn",
            "head.k=3",
            *SMALL,
            f'dataset.root="{root}"',
            birds=False,
        )
        table = pq.read_table(ran.folder / "predictions.parquet").to_pandas()
        test = table[table.split == "test"].sort_values("path")
        accuracy.append(test.pred.to_list())
    assert accuracy[0] == accuracy[1]


@pytest.mark.fault(24)
def test_an_image_of_an_official_dataset_altered_since_the_manifest(run, birds, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(birds, root)
    cub = ("dataset=cub", f"dataset.root={root}", "dataset.partial=true", *SMALL)
    assert run(*cub, birds=False).code == 0
    victim = sorted(root.rglob("*.jpg"))[7]
    Image.new("RGB", (50, 50), "red").save(victim)
    assert_one_line(run(*cub, birds=False), victim.name, "dataset.accept_altered=true")


@pytest.mark.fault(26)
def test_what_a_reader_must_know_is_printed_beside_the_numbers(run, pictures):
    """An image in both train and test, byte for byte."""
    shutil.copy(pictures / "train/a=b, c/é 1=.jpg", pictures / "test/a=b, c/é 0=.jpg")
    ran = folder_run(run, pictures)
    (note,) = [note for note in ran.json("metrics.json")["notes"] if "both train and test" in note]
    assert ran.out.partition("top-1 [95 %]")[2].count(f"note: {note}\n") == 1
    page = html.unescape((ran.folder / "report.html").read_text(encoding="utf-8"))
    assert note in page.partition("<h2>Settings")[0]
