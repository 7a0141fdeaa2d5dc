"""dataset.subset=tiny: a corner of any dataset that a smoke test trains and evaluates on.

At most 2 batches of 8 images a split: the first 8 classes that can be split, of each 2 train, 1
validation and 2 test images by path (1 and 1 where a class has only two to train on). Where the
dataset has a validation split, the 1 is of that split, and none is carved from train. The label
map holds just the kept classes: each of them then occurs in every split, and no number is an
average over classes that cannot occur.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fgvc.data.index import Index, take
from fgvc.types import TEST, TRAIN, VAL, Hierarchy, LabelMap, Manifest, Split, UserError, nfc

MAX_CLASSES, TRAIN_PER_CLASS, TEST_PER_CLASS = 8, 2, 2
EXPECTED_SECONDS = 30  # a whole probe on two CPU cores, drawing the synthetic birds included


def tiny_subset(index: Index, validation: bool) -> Index:
    """The first rows, by path, of the first classes with 2 train images and 1 test image.

    Args:
        validation: whether one of each class will be carved from train, if no row is VAL.

    Raises:
        UserError: there is no such class.
    """
    train_C, val_C, test_C = (
        np.bincount(index.label_N[index.split_N == split], minlength=len(index.labelmap))
        for split in (TRAIN, VAL, TEST)
    )
    has_val = bool(val_C.any())
    usable_C = (train_C >= 2) & (test_C >= 1)
    label_K = np.flatnonzero(usable_C & (val_C >= 1) if has_val else usable_C)[:MAX_CLASSES]
    if not len(label_K):
        raise UserError(
            f"dataset.subset=tiny: {index.root} has no class with 2 train images and 1 test image"
            + (" and 1 validation image" if has_val else "")
        )
    by_path = np.array(sorted(range(len(index)), key=lambda row: nfc(index.path[row])))
    keep = []
    for label in label_K.tolist():
        train = TRAIN_PER_CLASS + (validation and not has_val)
        for split, most in ((TRAIN, train), (VAL, 1), (TEST, TEST_PER_CLASS)):
            rows = by_path[(index.label_N[by_path] == label) & (index.split_N[by_path] == split)]
            keep += rows[:most].tolist()
    return _select(index, np.array(sorted(keep)), label_K)


def val_fraction(index: Index, wanted: float) -> float:
    """The fraction that carves one validation image a class; 0 where none is wanted.

    `carve` leaves it aside where the dataset has a validation split.
    """
    train = int((index.split_N == TRAIN).sum())
    return len(index.labelmap) / train if wanted else 0.0


def describe(manifest: Manifest, split: Split, labelmap: LabelMap) -> dict[str, object]:
    """What was kept: counts, a checksum, and the number of classes that each split covers."""
    rows = {"train": split.train_N, "val": split.val_N, "test": split.test_N}
    return {
        "name": "tiny",
        "classes": len(labelmap),
        **{name: len(row_N) for name, row_N in rows.items()},
        "checksum": manifest.digest,
        "expected_seconds": EXPECTED_SECONDS,
        "coverage": {name: len(np.unique(manifest.label_N[row_N])) for name, row_N in rows.items()},
    }


def _select(index: Index, rows: np.ndarray, label_K: np.ndarray) -> Index:
    """Some rows of an index, their classes numbered anew."""
    kept, hierarchy = label_K.tolist(), index.hierarchy
    ids, names = index.labelmap.ids, index.labelmap.names
    return replace(
        take(index, rows),
        label_N=np.searchsorted(label_K, index.label_N[rows]),
        labelmap=LabelMap(tuple(ids[i] for i in kept), tuple(names[i] for i in kept)),
        hierarchy=None
        if hierarchy is None
        else Hierarchy(tuple(hierarchy.chain[i] for i in kept), hierarchy.names),
    )
