"""reader=folder: two layouts, file names of all kinds, and refused folders."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest

from fgvc.data.datasets import folder
from fgvc.types import TEST, TRAIN, UserError

OWLS = {"train/owl": 1, "test/owl": 1}


def read(root, fraction=0.25, seed=0):
    return folder.read(root, fraction, seed)


def assert_refused(root, message, **options):
    with pytest.raises(UserError, match=message) as caught:
        read(root, **options)
    assert "\n" not in str(caught.value)


def test_train_and_test_folders(classes):
    root = classes({"train/wren": 2, "train/gull": 3, "test/wren": 1, "test/gull": 2})
    index = read(root)
    assert index.labelmap.names == index.labelmap.ids == ("gull", "wren")
    assert index.path[:2] == ("test/gull/0.jpg", "test/gull/1.jpg")
    truth = {path: index.labelmap.names[label] for path, label in zip(index.path, index.label_N)}  # noqa: B905
    assert all(path.split("/")[1] == name for path, name in truth.items())
    assert [path.startswith("test/") for path in index.path] == (index.split_N == TEST).tolist()
    assert index.notes == ()


def test_one_folder_is_split_per_class_and_seed(classes):
    root = classes({"gull": 8, "wren": 4, "owl": 2})
    index = read(root)
    test_C = np.bincount(index.label_N[index.split_N == TEST])
    assert dict(zip(index.labelmap.names, test_C.tolist(), strict=True)) == {
        "gull": 2,
        "owl": 1,
        "wren": 1,
    }
    assert (read(root).split_N == index.split_N).all()
    assert any((read(root, seed=seed).split_N != index.split_N).any() for seed in (1, 2, 3))


def test_a_single_image_cannot_be_split(classes):
    root = classes({"gull": 8, "owl": 1})
    assert_refused(root, r"1 classes hold a single .*\(owl\)")


def test_a_split_needs_a_fraction(classes):
    assert_refused(
        classes({"gull": 8, "owl": 8}), r"dataset\.test_fraction=0\.0.*no split", fraction=0.0
    )


def test_nested_folders_belong_to_their_class(classes):
    index = read(classes({**OWLS, "train/gull/juvenile/2019": 2, "train/gull": 1, "test/gull": 1}))
    assert index.labelmap.names == ("gull", "owl")
    assert "train/gull/juvenile/2019/0.jpg" in index.path


def test_what_is_no_image_is_counted(classes):
    root = classes({**OWLS, "train/gull": 2, "test/gull": 1, "train/gull/.cache": 3})
    (root / "train" / "gull" / ".hidden.jpg").touch()
    (root / "train" / "gull" / "Thumbs.db").touch()
    (root / "train" / "README").touch()
    (root / "train" / "gull" / "UPPER.JPG").touch()
    index = read(root)
    assert len(index) == 6
    assert index.notes == (
        "skipped: 1 without suffix (train/README), 1 hidden file, folders that are not classes "
        "(train/gull/.cache)",
    )


@pytest.mark.fault(39)
def test_decomposed_names_are_the_same_class(classes):
    composed, decomposed = (unicodedata.normalize(form, "vögel a=b") for form in ("NFC", "NFD"))
    assert composed != decomposed
    index = read(classes({**OWLS, f"train/{decomposed}": 2, f"test/{composed}": 1}))
    assert index.labelmap.names == ("owl", composed)
    assert all((index.root / path).is_file() for path in index.path)
    assert (index.split_N == TRAIN).sum() == 3


@pytest.mark.fault(39)
@pytest.mark.parametrize("form", ["NFD", "case"])
def test_names_that_collide_are_refused_naming_both(classes, form):
    name = "Möwe"
    twin = name.lower() if form == "case" else unicodedata.normalize("NFD", name)
    assert_refused(classes({name: 2, twin: 2}), f"{twin}.*are one class|{name}.*are one class")


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (
            {"train/gull": 2, "test/gull": 1, "test/owl": 1},
            "test: holds classes that train/ lacks: owl",
        ),
        ({"train/gull": 2, "train/owl": 0, "test/gull": 1}, "owl: a class folder without images"),
        ({"test/gull": 2}, "holds test/ but no train/"),
    ],
)
def test_layouts_that_are_refused(classes, counts, message):
    assert_refused(classes(counts), message)


def test_missing_and_empty_root(tmp_path):
    assert_refused(tmp_path / "nowhere", "nowhere: no such folder; set dataset.root=")
    assert_refused(tmp_path, "holds no class folder")


def test_a_name_that_is_not_utf8_is_refused(classes):
    root = classes({"gull": 2, "owl": 2})
    (root / "gull" / "x\udcff.jpg").touch()
    assert_refused(root, "not UTF-8; rename it")
