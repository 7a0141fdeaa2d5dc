"""The order of images in an index changes no byte of a result."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fgvc.record import checkpoint

SMALL = ("backbone=vit", "backbone.size=mini", "resolution.side=64", "resolution.name=r64")
RANDOM = ("part_attention=random", "part_attention.tokens=3")


@pytest.fixture(scope="module")
def copies(birds, tmp_path_factory) -> list[str]:
    """Overrides of two copies of the birds; each index file of the second is shuffled."""
    home = tmp_path_factory.mktemp("copies")
    plain = Path(shutil.copytree(birds, home / "plain"))
    shuffled = Path(shutil.copytree(birds, home / "shuffled"))
    files = ["images.txt", "image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt"]
    for file in (*files, "classes.txt", "parts/part_locs.txt"):
        lines = (shuffled / file).read_text().splitlines(keepends=True)
        random.Random(0).shuffle(lines)
        (shuffled / file).write_text("".join(lines))
    return [f'dataset.root="{root}"' for root in (plain, shuffled)]


@pytest.fixture
def both(copies, run):
    """Run the same command on both copies."""

    def start(*overrides: str, runner=run, **more: bool):
        runs = [
            runner("dataset=cub", "dataset.partial=true", root, *SMALL, *overrides, **more)
            for root in copies
        ]
        assert [result.code for result in runs] == [0, 0], runs[1].err
        return runs

    return start


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_probe_with_random_patches(both, head):
    first, second = both(f"head={head}", "task.c_count=3", *RANDOM, birds=False)
    assert checkpoint.read(first.folder)[2] == checkpoint.read(second.folder)[2]
    for name in ("predictions.parquet", "splits/val.txt", "splits/train.txt", "per_class.csv"):
        assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes(), name
    numbers, others = first.json("metrics.json"), second.json("metrics.json")
    for key in ("test", "val", "parts", "selection", "worst_pairs", "comparability_key"):
        assert numbers[key] == others[key]
    images = [
        sorted(path.name for path in each_run.folder.glob("overlays/*"))
        for each_run in (first, second)
    ]
    assert images[0] == images[1] != []


@pytest.mark.parametrize(
    "extra", [("task.sampling=class_balanced", *RANDOM), ("task.debug=overfit",)]
)
def test_a_finetune(both, finetune, read_outcome, extra):
    """The losses of every step, the weights and the predictions."""
    first, second = both("dataset.subset=null", "task.epochs=1", *extra, runner=finetune)
    assert read_outcome(first.folder) == read_outcome(second.folder)


def test_rows_of_the_record_follow_the_paths(both):
    for ran in both("head=knn", "head.k=1", birds=False):
        table = pq.read_table(ran.folder / "predictions.parquet").to_pandas()
        for _, rows in table.groupby("split"):
            assert rows.path.to_list() == sorted(rows.path)
