"""dataset.subset=tiny: any dataset -> a tiny subset for smoke tests.

At most 2 batches of 8 images per split: the first 8 classes with enough images, and of each class
the first 2 train, 1 validation and 2 test images by path. The validation image comes from the
dataset's validation split if it has one, otherwise from train; then a class with only 2 train
images keeps 1 for training. The label map holds the selected classes only, so that every class
occurs in every split and no metric averages over classes that cannot occur.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fgvc.data.index import Index, count_classes, take
from fgvc.types import TEST, TRAIN, VAL, Hierarchy, LabelMap, Manifest, Split, UserError, nfc

MAX_CLASSES, TRAIN_PER_CLASS, TEST_PER_CLASS = 8, 2, 2
EXPECTED_SECONDS = 30  # a probe on two CPU cores, including drawing the synthetic birds


def tiny_subset(index: Index, validation: bool) -> Index:
    """The first rows, by path, of the first classes with 2 train images and 1 test image.

    Args:
        validation: whether one image per class will be carved from train if no row is VAL.

    Raises:
        UserError: no class has enough images.
    """
    train_C, val_C, test_C = (count_classes(index, split) for split in (TRAIN, VAL, TEST))
    has_val = bool(val_C.any())
    usable_C = (train_C >= 2) & (test_C >= 1)
    label_K = np.flatnonzero(usable_C & (val_C >= 1) if has_val else usable_C)[:MAX_CLASSES]
    if not len(label_K):
        raise UserError(
            f"dataset.subset=tiny: {index.root} has no class with 2 train images and 1 test image"
            + (" and 1 validation image" if has_val else "")
        )
    by_path = np.array(sorted(range(len(index)), key=lambda row: nfc(index.path[row])))
    selected = []
    for label in label_K.tolist():
        train = TRAIN_PER_CLASS + (validation and not has_val)
        for split, limit in ((TRAIN, train), (VAL, 1), (TEST, TEST_PER_CLASS)):
            rows = by_path[(index.label_N[by_path] == label) & (index.split_N[by_path] == split)]
            selected += rows[:limit].tolist()
    rows, labels, hierarchy = np.array(sorted(selected)), label_K.tolist(), index.hierarchy
    ids, names = index.labelmap.ids, index.labelmap.names
    if hierarchy is not None:
        chain = tuple(hierarchy.chain[label] for label in labels)
        hierarchy = Hierarchy(chain, hierarchy.names)
    return replace(
        take(index, rows),
        label_N=np.searchsorted(label_K, index.label_N[rows]),
        labelmap=LabelMap(tuple(ids[i] for i in labels), tuple(names[i] for i in labels)),
        hierarchy=hierarchy,
    )


def val_fraction(index: Index, fraction: float) -> float:
    """The fraction that carves one validation image per class; 0 if `fraction` is 0.

    `carve` ignores the fraction if the dataset has a validation split.
    """
    train = int((index.split_N == TRAIN).sum())
    return len(index.labelmap) / train if fraction else 0.0


def describe(manifest: Manifest, split: Split, labelmap: LabelMap) -> dict[str, object]:
    """Counts, a checksum, and the number of classes that each split covers."""
    rows = {"train": split.train_N, "val": split.val_N, "test": split.test_N}
    return {
        "name": "tiny",
        "classes": len(labelmap),
        **{name: len(row_N) for name, row_N in rows.items()},
        "checksum": manifest.digest,
        "expected_seconds": EXPECTED_SECONDS,
        "coverage": {name: len(np.unique(manifest.label_N[row_N])) for name, row_N in rows.items()},
    }
