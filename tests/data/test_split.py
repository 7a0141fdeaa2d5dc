"""fgvc.data.split: stratified and seeded: a split is the same on every machine."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fgvc.data.index import Index
from fgvc.data.split import carve, resolve_splits, validation_notes
from fgvc.types import TEST, TRAIN, VAL, LabelMap, UserError

GOLDEN = "9d6bac0d854867ed5347c813f6fbc27f2f4548abb584e17b29e98056c745618a"


def index_of(counts: list[int], test: int = 2) -> Index:
    """`counts` training images per class, and `test` test images in each class."""
    rows = [
        (f"images/{label:03}/{number:03}.jpg", label, int(number >= count))
        for label, count in enumerate(counts)
        for number in range(count + test)
    ]
    names = tuple(str(label) for label in range(len(counts)))
    path, label_N, split_N = zip(*rows, strict=True)
    return Index(
        Path("root"), path, np.array(label_N), np.array(split_N, np.uint8), LabelMap(names, names)
    )


def shuffled(index: Index, seed: int) -> Index:
    order = np.random.default_rng(seed).permutation(len(index))
    path = tuple(index.path[row] for row in order)
    return Index(index.root, path, index.label_N[order], index.split_N[order], index.labelmap)


def val_counts(index: Index, fraction: float) -> list[int]:
    val_N = carve(index, fraction, 0).val_N
    return np.bincount(index.label_N[val_N], minlength=len(index.labelmap)).tolist()


def test_golden():
    index = index_of([30, 29, 11, 2, 1])
    assert carve(index, 0.1, 0).digest(index.path) == GOLDEN


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.33, 0.5, 0.9])
def test_parts_are_disjoint_and_whole(fraction):
    index = index_of([30, 29, 11, 2, 1])
    split = carve(index, fraction, 0)
    every = np.concatenate([split.train_N, split.val_N, split.test_N])
    assert sorted(every.tolist()) == list(range(len(index)))
    assert (split.test_N == np.flatnonzero(index.split_N == TEST)).all()
    for rows in (split.train_N, split.val_N, split.test_N):
        assert (np.diff(rows) > 0).all()
    assert np.bincount(index.label_N[split.train_N], minlength=5).min() >= 1


def test_no_validation_at_fraction_zero():
    assert len(carve(index_of([5, 5]), 0.0, 0).val_N) == 0


@pytest.mark.parametrize("fraction", [0.1, 0.15, 0.2, 0.5])
@pytest.mark.parametrize("counts", [[30] * 7, [29, 30, 31, 7, 3], [3] * 40, [1, 2, 3, 50]])
def test_size_is_the_rounded_share_and_each_class_has_its_own(counts, fraction):
    per_class = val_counts(index_of(counts), fraction)
    assert sum(per_class) == round(fraction * sum(counts))
    for count, val in zip(counts, per_class, strict=True):
        assert fraction * count - 1 < val < fraction * count + 1 or val == count - 1


def test_small_classes_keep_a_training_image():
    assert val_counts(index_of([1, 1, 2, 2, 2]), 0.9) == [0, 0, 1, 1, 1]


def test_composed_and_decomposed_paths_are_drawn_equally():
    index = index_of([30, 29])
    composed, decomposed = (
        replace(index, path=tuple(unicodedata.normalize(form, f"ö{path}") for path in index.path))
        for form in ("NFC", "NFD")
    )
    assert composed.path != decomposed.path
    first, second = (carve(index, 0.3, 0).val_N.tolist() for index in (composed, decomposed))
    assert first == second


def test_order_of_the_index_does_not_matter():
    index = index_of([30, 29, 11, 2, 1])
    digest = carve(index, 0.2, 3).digest(index.path)
    for seed in range(3):
        other = shuffled(index, seed)
        assert carve(other, 0.2, 3).digest(other.path) == digest


def test_seeds_differ():
    index = index_of([30] * 5)
    digests = {carve(index, 0.2, seed).digest(index.path) for seed in range(5)}
    assert len(digests) == 5


def notes(counts: list[int], fraction: float) -> tuple[str, ...]:
    index = index_of(counts)
    split = carve(index, fraction, 0)
    return validation_notes(index.label_N, split, index.labelmap, fraction)


def test_classes_without_a_validation_image_are_noted():
    assert notes([10, 10, 10], 0.1) == ()
    assert notes([60, 10, 3], 0.0) == ()
    (note,) = notes([60, 10, 3], 0.1)
    assert "val_fraction=0.1: 1 of 3 classes have no validation image (2)" in note
    assert note.endswith("raise dataset.val_fraction")
    (note,) = notes([60, 1, 1], 0.5)
    assert "2 of 3 classes have no validation image (1, 2)" in note
    assert note.endswith("add training images of these classes")
    (note,) = notes([1000] + [2] * 20, 0.01)
    assert "20 of 21 classes" in note
    assert "and 15 more" in note
    (note,) = notes([2, 2], 0.1)
    assert "2 of 2 classes" in note


def resolved(splits: list[int] | None, fraction: float = 0.5):
    classes = LabelMap(("x",), ("x",))
    path = ("0", "1", "2", "3")
    given_N = None if splits is None else np.array(splits, np.uint8)
    return resolve_splits("HERE", given_N, path, np.zeros(4, np.int64), classes, fraction, 0)


def test_a_test_split_of_its_own_is_used_unchanged():
    for splits in ([TRAIN, TRAIN, TEST, VAL], [TRAIN, TEST, TEST, TEST]):
        split_N, test_source = resolved(splits)
        assert (split_N.tolist(), test_source) == (splits, "test")


def test_validation_is_the_test_where_there_is_no_test():
    split_N, test_source = resolved([TRAIN, VAL, TRAIN, VAL])
    assert (split_N.tolist(), test_source) == ([TRAIN, TEST, TRAIN, TEST], "val")


@pytest.mark.parametrize("splits", [None, [TRAIN] * 4], ids=["no split", "only train"])
def test_a_test_is_carved_where_there_is_only_train(splits):
    split_N, test_source = resolved(splits)
    assert (sorted(split_N.tolist()), test_source) == ([TRAIN, TRAIN, TEST, TEST], "carved")
    with pytest.raises(UserError, match=r"dataset\.test_fraction=0: HERE: "):
        resolved(splits, fraction=0)


@pytest.mark.parametrize("splits", [[TEST] * 4, [VAL, VAL, TEST, TEST], [VAL] * 4])
def test_splits_without_train_are_refused(splits):
    with pytest.raises(UserError, match=r"HERE: only .* images, none to train on"):
        resolved(splits)


def test_a_validation_split_of_the_dataset_names_its_own_lacks():
    index = index_of([4, 4, 4], test=2)
    index.split_N[[4, 10]] = VAL  # a test image of class 0, one of class 1
    split = carve(index, 0.1, 0)
    assert split.val_N.tolist() == [4, 10]
    (note,) = validation_notes(index.label_N, split, index.labelmap, 0.1, has_val_split=True)
    assert note.startswith("validation split: 1 of 3 classes have no validation image (2)")
    assert note.endswith("add validation images of these classes")
