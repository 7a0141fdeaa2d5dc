"""reader=dogs: lists and folders must agree."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from fgvc.data.datasets import dogs
from fgvc.types import TEST, TRAIN, UserError
from tests.narrow import not_none


def assert_refused(root: Path, message: str, partial: bool = False) -> None:
    with pytest.raises(UserError, match=message) as caught:
        dogs.read(root, partial)
    assert "\n" not in str(caught.value)


def relabel(root: Path, change) -> None:
    for name in ("train_list", "test_list"):
        file = root / "lists" / f"{name}.mat"
        variables = loadmat(file)
        variables["labels"] = change(variables["labels"])
        savemat(file, {key: variables[key] for key in variables if not key.startswith("__")})


@pytest.mark.parametrize("lists", ["lists", "."])
@pytest.mark.parametrize("nested", ["", "{}/"])
def test_columns(copies, lists, nested):
    index = dogs.read(copies.dogs(lists, nested=nested), partial=False)
    assert index.labelmap.ids == ("1", "2", "3")
    assert index.labelmap.names[0] == "n02085620-Chihuahua"
    assert index.path[0] == "Images/n02085620-Chihuahua/n02085620_0.jpg"
    assert all((index.root / path).is_file() for path in index.path)
    for path, label in zip(index.path, index.label_N.tolist(), strict=True):
        assert path.split("/")[1] == index.labelmap.names[label]
    assert index.split_N.tolist() == [TRAIN] * 12 + [TEST] * 6
    assert np.bincount(index.label_N).tolist() == [6, 6, 6]


def test_the_first_box_and_the_stated_size(copies):
    index = dogs.read(copies.dogs(), partial=False)
    assert not_none(index.box_N4).tolist() == [[5, 6, 20, 30]] * 18
    assert not_none(index.size_N2).tolist() == [[60, 45]] * 18


def test_annotations_may_be_absent_wholly_or_in_part(copies):
    root = copies.dogs()
    (root / "Annotation" / "n02085620-Chihuahua" / "n02085620_0").unlink()
    index = dogs.read(root, partial=False)
    box_N4 = not_none(index.box_N4)
    assert np.isnan(box_N4[0]).all()
    assert np.isfinite(box_N4[1:]).all()
    shutil.rmtree(root / "Annotation")
    assert dogs.read(root, partial=False).box_N4 is None


@pytest.mark.parametrize("text", ["<annotation><obj", "<annotation></annotation>"])
def test_a_damaged_annotation_is_named(copies, text):
    root = copies.dogs()
    file = root / "Annotation" / "n02085620-Chihuahua" / "n02085620_0"
    file.write_text(text)
    assert_refused(root, "n02085620_0: no annotation that can be read")


@pytest.mark.fault(25)
def test_labels_from_0_are_refused(copies):
    root = copies.dogs()
    relabel(root, lambda labels: labels - 1)
    assert_refused(root, "count classes from 0, not from 1")


def test_one_label_of_another_folder_is_refused(copies):
    root = copies.dogs()

    def swap(labels):
        labels[0, 0] = 2
        return labels

    relabel(root, swap)
    assert_refused(root, r"disagree: label 2 occurs as 2 = n02085620-Chihuahua, 2 = n02085936")


def test_labels_that_slipped_against_the_files_are_refused(copies):
    root = copies.dogs()
    relabel(root, lambda labels: np.sort(labels, axis=0))
    assert_refused(root, "labels and folders of the lists disagree")


@pytest.mark.fault(26)
def test_an_image_in_train_and_test_is_refused(copies):
    root = copies.dogs()
    shutil.copy(root / "lists" / "train_list.mat", root / "lists" / "test_list.mat")
    assert_refused(root, "listed twice, within a list or in train and test: n02085620-Chihuahua/")


@pytest.mark.fault(25)
def test_gaps_need_a_partial_copy(copies):
    root = copies.dogs()
    relabel(root, lambda labels: np.where(labels == 3, 7, labels))
    assert_refused(root, r"class ids 1 to 7 lack 3, 4, 5, 6.*dataset\.partial=true")
    assert dogs.read(root, partial=True).labelmap.ids == ("1", "2", "7")


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("Images", "holds no Images/; set dataset.root="),
        ("lists/test_list.mat", r"holds no test_list\.mat; put it there or in lists/"),
    ],
)
def test_what_is_missing_is_named(copies, missing, message):
    root = copies.dogs()
    victim = root / missing
    shutil.rmtree(victim) if victim.is_dir() else victim.unlink()
    assert_refused(root, message)
