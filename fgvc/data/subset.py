"""dataset.subset=tiny: a corner of the synthetic dataset that a smoke test trains and evaluates on.

At most 2 batches of 8 pictures a split: the first 8 classes, of each 2 train, 1 validation and 2
test pictures (1 train and 1 validation where the generator made only two). The label map holds just
the kept classes: each of them then occurs in every split, and no number is an average over classes
that cannot occur.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fgvc.data.index import Index
from fgvc.types import TEST, TRAIN, Hierarchy, LabelMap, Manifest, Parts, Split, UserError

CLASSES, TRAIN_AND_VAL, TEST_EACH = 8, 3, 2
EXPECTED_SECONDS = 60  # a whole probe on two CPU cores, the generator included


def tiny(index: Index) -> Index:
    """The first rows, by path, of the first classes.

    Raises:
        UserError: a class with fewer than 2 train images or no test image.
    """
    by_path = np.array(sorted(range(len(index)), key=index.path.__getitem__))
    keep = []
    for label in range(min(CLASSES, len(index.labelmap))):
        for split, most, least in ((TRAIN, TRAIN_AND_VAL, 2), (TEST, TEST_EACH, 1)):
            rows = by_path[(index.label_N[by_path] == label) & (index.split_N[by_path] == split)]
            if len(rows) < least:
                raise UserError(
                    f"dataset.subset=tiny: class {index.labelmap.names[label]} has {len(rows)} "
                    f"{'train' if split == TRAIN else 'test'} images, needs {least}"
                )
            keep += rows[:most].tolist()
    return _taken(index, np.array(sorted(keep)))


def val_fraction(index: Index, wanted: float) -> float:
    """The fraction that carves one validation image a class; 0 where none is wanted."""
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


def _taken(index: Index, rows: np.ndarray) -> Index:
    kept = int(index.label_N[rows].max()) + 1
    parts, above = index.parts, index.hierarchy
    return replace(
        index,
        path=tuple(index.path[row] for row in rows.tolist()),
        label_N=index.label_N[rows],
        split_N=index.split_N[rows],
        labelmap=LabelMap(index.labelmap.ids[:kept], index.labelmap.names[:kept]),
        box_N4=None if index.box_N4 is None else index.box_N4[rows],
        parts=None if parts is None else Parts(parts.names, parts.xy_NK2[rows]),
        size_N2=None if index.size_N2 is None else index.size_N2[rows],
        hierarchy=None if above is None else Hierarchy(above.chain[:kept], above.names),
    )
