"""dataset.subset=tiny of any index: it keeps the same classes and images in every run."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fgvc.data.index import Index
from fgvc.data.subset import tiny_subset
from fgvc.types import TEST, TRAIN, VAL, Hierarchy, LabelMap, Parts, UserError
from tests.narrow import not_none


def index_of(counts: list[tuple[int, int]], order: int = 0) -> Index:
    """An index with (train, test) images of each class, its lines shuffled by `order`."""
    rows = [
        (f"{label}/{split}{i}.jpg", label, split)
        for label, (train, test) in enumerate(counts)
        for split, count in ((TRAIN, train), (TEST, test))
        for i in range(count)
    ]
    rows = [rows[i] for i in np.random.default_rng(order).permutation(len(rows))]
    label_N = np.array([label for _, label, _ in rows])
    names = tuple(f"c{label}" for label in range(len(counts)))
    return Index(
        Path("root"),
        tuple(path for path, _, _ in rows),
        label_N,
        np.array([split for *_, split in rows], np.uint8),
        LabelMap(names, names),
        box_N4=np.repeat(label_N[:, None], 4, axis=1).astype(np.float32),
        parts=Parts(("beak",), np.repeat(label_N, 2).reshape(-1, 1, 2).astype(np.float32)),
        hierarchy=Hierarchy(tuple((f"family {label}",) for label in range(len(counts))), {}),
    )


COUNTS = [(5, 3), (1, 4), (2, 1), (3, 0), *[(4, 4)] * 9]


def test_classes_that_cannot_be_split_are_skipped_and_the_rest_renumbered():
    subset = tiny_subset(index_of(COUNTS), validation=True)
    assert subset.labelmap.names == ("c0", "c2", "c4", "c5", "c6", "c7", "c8", "c9")
    train_C, test_C = (np.bincount(subset.label_N[subset.split_N == s]) for s in (TRAIN, TEST))
    assert train_C.tolist() == [3, 2, 3, 3, 3, 3, 3, 3]
    assert test_C.tolist() == [2, 1, 2, 2, 2, 2, 2, 2]


def test_columns_stay_with_their_images():
    subset = tiny_subset(index_of(COUNTS), validation=True)
    box_N4, parts = not_none(subset.box_N4), not_none(subset.parts)
    hierarchy = not_none(subset.hierarchy)
    for row, path in enumerate(subset.path):
        old = int(path.split("/")[0])
        assert subset.labelmap.names[subset.label_N[row]] == f"c{old}"
        assert box_N4[row].tolist() == [old] * 4
        assert parts.xy_NK2[row].tolist() == [[old, old]]
        assert hierarchy.chain[subset.label_N[row]] == (f"family {old}",)


def test_line_order_changes_no_choice():
    first, second = (tiny_subset(index_of(COUNTS, order), validation=True) for order in (0, 1))
    assert sorted(first.path) == sorted(second.path)


def test_without_validation_two_train_images_are_enough():
    subset = tiny_subset(index_of(COUNTS), validation=False)
    assert np.bincount(subset.label_N[subset.split_N == TRAIN]).max() == 2


def test_nothing_to_take():
    with pytest.raises(UserError, match="no class with 2 train images"):
        tiny_subset(index_of([(1, 5), (5, 0)]), validation=True)


def test_the_form_of_accents_changes_no_choice():
    """Composed, é sorts after z; decomposed, before f."""
    index = index_of([(4, 4)] * 3)
    accented = tuple(
        path.replace("0.jpg", "é.jpg").replace("1.jpg", "z.jpg") for path in index.path
    )
    chosen = []
    for form in ("NFC", "NFD"):
        path = tuple(unicodedata.normalize(form, name) for name in accented)
        subset = tiny_subset(replace(index, path=path), validation=True)
        chosen.append({unicodedata.normalize("NFC", name) for name in subset.path})
    assert chosen[0] == chosen[1]


def test_one_image_per_class_of_a_validation_split_is_kept():
    index = index_of([(4, 4)] * 4)
    val_N = np.array([path.startswith(("0/1", "1/1", "3/1")) for path in index.path])  # test images
    extra = np.array([path.split("/")[1] in ("11.jpg", "12.jpg") for path in index.path])
    index = replace(index, split_N=np.where(val_N & extra, VAL, index.split_N).astype(np.uint8))
    subset = tiny_subset(index, validation=True)
    assert subset.labelmap.names == ("c0", "c1", "c3")
    for split, count in ((TRAIN, 2), (VAL, 1), (TEST, 2)):
        assert np.bincount(subset.label_N[subset.split_N == split]).tolist() == [count] * 3
