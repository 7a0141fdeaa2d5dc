"""No validation image: tasks that need one are refused early, and the advice works."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fgvc.data import split
from fgvc.data.index import Index
from fgvc.pipeline.validation import suggested_fraction
from fgvc.types import TRAIN, LabelMap

SMALL = ("backbone=vit", "backbone.size=mini", "resolution.side=64", "resolution.name=r64")
TRAINED = ("task=train", "task.epochs=1", "task.batch_size=4")


@pytest.fixture
def folder(tmp_path, jpeg) -> Callable[[int], str]:
    """`folder(n)`: dataset.root=... of 4 classes with n training images and 1 test image each."""

    def make(images: int) -> str:
        for label in range(4):
            for place, number in [("train", n) for n in range(images)] + [("test", 9)]:
                file = tmp_path / "birds" / place / f"class {label}" / f"{number}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(jpeg(100 * label + number))
        return f"dataset.root={tmp_path / 'birds'}"

    return make


@pytest.mark.parametrize(
    ("images", "chosen", "advice"),
    [
        (1, ("head=linear",), "head=knn head.k=4"),
        (1, ("head=cosine", "dataset.val_fraction=0.9"), "head=knn head.k=4"),
        (1, TRAINED, "final_fit=trainval"),
        (2, ("dataset.val_fraction=0.01",), "dataset.val_fraction=0.5"),
        (2, ("dataset.val_fraction=0",), "dataset.val_fraction=0.5"),
        (2, ("dataset.val_fraction=0", *TRAINED, "final_fit=train"), "dataset.val_fraction=0.5"),
    ],
)
def test_without_validation_the_message_names_what_works(run, folder, images, chosen, advice):
    own = ("dataset=folder", folder(images), *SMALL)
    refused = run(*own, *chosen, birds=False)
    assert refused.code == 1
    assert refused.err.count("\n") == 1, refused.err
    assert "features" not in refused.out
    assert "epoch" not in refused.out
    match = re.search(r"dataset\.val_fraction=[\d.]+: .* Set (\S+(?: head\.k=\d+)?)", refused.err)
    assert match is not None, refused.err
    assert match.group(1).rstrip(",") == advice
    keys = {item.partition("=")[0] for item in advice.split(" ")}
    other_overrides = [item for item in chosen if item.partition("=")[0] not in keys]
    ran = run(*own, *other_overrides, *advice.split(" "), birds=False)
    assert ran.code == 0, ran.err


@pytest.mark.parametrize("chosen", [("head=linear",), (*TRAINED, "final_fit=train")])
def test_an_own_validation_split_needs_no_fraction(run, folder, tmp_path, jpeg, chosen):
    root = folder(2)
    for label in range(4):
        file = tmp_path / "birds" / "val" / f"class {label}" / "5.jpg"
        file.parent.mkdir(parents=True)
        file.write_bytes(jpeg(100 * label + 5))
    ran = run("dataset=folder", root, *SMALL, *chosen, "dataset.val_fraction=0", birds=False)
    assert ran.code == 0, ran.err
    usual = run("dataset=folder", root, *SMALL, *chosen, birds=False)
    numbers, expected = (json.loads((r.folder / "metrics.json").read_text()) for r in (ran, usual))
    assert numbers["val"]["n"] == 4
    assert numbers["fitted_on"] == expected["fitted_on"]
    assert numbers["test"] == expected["test"]


def counted(counts: list[int]) -> Index:
    label_N = np.repeat(np.arange(len(counts)), counts)
    path = tuple(f"{row}.jpg" for row in range(len(label_N)))
    names = tuple(map(str, range(len(counts))))
    return Index(Path("r"), path, label_N, np.full(len(path), TRAIN), LabelMap(names, names))


@pytest.mark.parametrize("seed", range(5))
def test_the_advised_share_always_gives_a_validation_image(seed):
    counts = np.random.default_rng(seed).integers(1, 4, 7).tolist()
    counts[0] += 1
    index = counted(counts)
    assert len(split.carve(index, suggested_fraction(len(index), len(counts)), seed).val_N)
