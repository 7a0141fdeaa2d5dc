"""reader=nabirds: classes of a tree, joined by image ids without the dashes of file names."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from fgvc.data.datasets import cub, nabirds
from fgvc.types import TEST, TRAIN, UserError
from tests.narrow import not_none


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def assert_refused(root: Path, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        nabirds.read(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("below", [".", "nabirds", "nabirds/nabirds", "a copy of mine"])
def test_columns(copies, below):
    index = nabirds.read(copies.nabirds(below))
    assert index.labelmap.ids == ("314", "613", "817")
    assert index.labelmap.names == (
        "Wood Duck (Breeding male)",
        "Wood Duck (Female/Eclipse male)",
        "Black-capped Chickadee",
    )
    assert all((index.root / path).is_file() for path in index.path)
    assert "-" not in index.path[0]
    folders = ("0314", "0613", "0817")
    assert [folders[label] for label in index.label_N] == [p.split("/")[1] for p in index.path]
    assert index.split_N.tolist() == [TRAIN] * 12 + [TEST] * 6


def test_boxes_sizes_and_parts(copies):
    index = nabirds.read(copies.nabirds())
    assert not_none(index.box_N4).tolist() == [[5, 6, 20, 30]] * 18
    assert not_none(index.size_N2).tolist() == [[60, 45]] * 18
    parts = not_none(index.parts)
    assert parts.names == ("bill", "crown")
    assert parts.xy_NK2[3, 0].tolist() == [7, 8]
    assert np.isnan(parts.xy_NK2[:, 1]).all()


def test_boxes_sizes_and_parts_may_be_absent(copies):
    root = copies.nabirds(".")
    for name in ("bounding_boxes", "sizes", "parts/part_locs"):
        (root / f"{name}.txt").unlink()
    index = nabirds.read(root)
    assert index.box_N4 is index.size_N2 is index.parts is None


def test_the_hierarchy_uses_ids_because_names_repeat(copies):
    above = not_none(nabirds.read(copies.nabirds()).hierarchy)
    assert above.chain == (("81", "0"), ("81", "0"), ("900", "22", "0"))
    assert above.names == {
        "0": "Birds",
        "22": "Perching Birds",
        "81": "Wood Duck",
        "900": "Black-capped Chickadee",
    }


def test_order_of_lines_changes_no_label(copies):
    root = copies.nabirds(".")
    before = nabirds.read(root)
    for name in ("image_class_labels", "train_test_split", "classes", "hierarchy", "sizes"):
        file = root / f"{name}.txt"
        file.write_text("\n".join(reversed(file.read_text().split("\n"))))
    after = nabirds.read(root)
    assert after.labelmap == before.labelmap
    assert after.label_N.tolist() == before.label_N.tolist()
    assert after.hierarchy == before.hierarchy


def first_id(root: Path) -> str:
    return (root / "images.txt").read_text().split()[0]


def test_labels_of_images_that_slipped_are_seen_in_the_folders(copies):
    root = copies.nabirds(".")
    edit(root / "image_class_labels.txt", f"{first_id(root)} 314", f"{first_id(root)} 613")
    assert_refused(
        root, "1 images are in the folder of another class than their label: images/0314/"
    )


def test_images_listed_under_another_id(copies):
    root = copies.nabirds(".")
    lines = [line.split() for line in (root / "images.txt").read_text().splitlines()]
    ids = [image for image, _ in lines]
    slipped = zip(ids[3:] + ids[:3], [path for _, path in lines], strict=True)
    (root / "images.txt").write_text("\n".join(" ".join(pair) for pair in slipped))
    assert_refused(root, r"images\.txt: 18 images are named after another image id")


@pytest.mark.fault(25)
@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("images", "-", "x", r"images\.txt:1: expected an image id of 32 hex digits"),
        ("hierarchy", "817 900", "817 900\n817 22", r"hierarchy\.txt:7: node 817 has two parents"),
        ("hierarchy", "22 0", "22 817", r"hierarchy\.txt: node 817 is its own ancestor|900 is its"),
        ("hierarchy", "22 0", "22 7", r"nodes that classes\.txt does not list: 7"),
        ("classes", "613 Wood", "614 Wood", r"does not list: 613 .*314 to 817|not list: 613"),
        ("classes", "613 Wood Duck (Female/Eclipse male)", "613", r"expected 2 columns"),
        (
            "classes",
            "(Female/Eclipse male)",
            "(Breeding male)",
            r"class name listed twice: Wood Duck \(Breeding male\)",
        ),
    ],
)
def test_contradictions_are_refused(copies, name, old, new, message):
    root = copies.nabirds(".")
    edit(root / f"{name}.txt", old, new)
    assert_refused(root, message)


@pytest.mark.parametrize("name", nabirds.FILES)
def test_missing_index_file(copies, name):
    root = copies.nabirds(".")
    (root / name).unlink()
    assert_refused(root, rf": holds no {re.escape(name)}; take it from nabirds\.tar\.gz")


def test_two_copies_below_one_root_are_not_chosen_between(copies):
    copies.nabirds("one")
    assert_refused(copies.nabirds("two"), "one, .*two each hold .*set dataset.root= to one")


def test_the_cub_reader_names_the_dataset(copies):
    with pytest.raises(UserError, match="this is NABirds; read it with dataset=nabirds"):
        cub.read(copies.nabirds(), partial=False)
