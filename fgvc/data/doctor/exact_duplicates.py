"""Digests and fingerprints of an indexed dataset -> findings on duplicate images.

N images, K pairs.
"""

from __future__ import annotations

import numpy as np

from fgvc.data.doctor import near_duplicates
from fgvc.data.doctor.finding import ERROR, NOTE, Finding, about
from fgvc.data.doctor.images import ImageTable
from fgvc.data.index import Index, repeated
from fgvc.types import TEST

# what was found, and how to fix it
TRAIN_TEST = (
    "images occur in both train and test, byte for byte",
    "remove one image of each pair: a test image seen in training inflates the accuracy",
)
TWO_LABELS = ("images occur under two labels, byte for byte", "find out which label is right")
SAME_SPLIT = (
    "images occur more than once in the same split, byte for byte",
    "harmless unless there are many; remove one of each",
)


def check_duplicates(index: Index, images: ImageTable) -> list[Finding]:
    """Find equal files (across splits, under two labels, within a split) and near duplicates."""
    rows_of: dict[bytes, list[int]] = {sha256: [] for sha256 in repeated(images.sha256) if sha256}
    for row, sha256 in enumerate(images.sha256 if rows_of else ()):
        if sha256 in rows_of:
            rows_of[sha256].append(row)
    train_test, two_labels, same_split = [], [], []
    for rows in rows_of.values():
        train = [row for row in rows if index.split_N[row] != TEST]
        pairs = [[train[0], row] for row in rows if train and index.split_N[row] == TEST]
        train_test += pairs  # each test image with the first equal training image
        if len(np.unique(index.label_N[rows])) > 1:
            two_labels.append(rows)
        elif len(rows) > 1 and not pairs:
            same_split.append(rows)
    look = f"look the same (at most {near_duplicates.MAX_DISTANCE} of 128 bits differ)"
    fix = "inspect them: the same photograph in both splits inflates the accuracy"
    is_test_N = index.split_N[images.readable] == TEST
    train_N, test_N = images.readable[~is_test_N], images.readable[is_test_N]
    pair_K2 = near_duplicates.pairs(images.code_N2[train_N], images.code_N2[test_N])
    rows_K2 = np.stack([train_N[pair_K2[:, 0]], test_N[pair_K2[:, 1]]], axis=1)
    near = [rows for rows in rows_K2.tolist() if images.sha256[rows[0]] != images.sha256[rows[1]]]
    at_least = " or more" if len(pair_K2) == near_duplicates.MAX_PAIRS else ""
    return [
        *_finding(ERROR, index, train_test, *TRAIN_TEST),
        *_finding(NOTE, index, two_labels, *TWO_LABELS),
        *_finding(NOTE, index, same_split, *SAME_SPLIT),
        *_finding(NOTE, index, near, f"pairs{at_least} of train and test images {look}", fix),
    ]


def _finding(
    severity: str, index: Index, groups: list[list[int]], what: str, fix: str
) -> list[Finding]:
    names = [" = ".join(index.path[row] for row in rows) for rows in groups]
    first = " = ".join(index.path[row] for rows in groups[:1] for row in rows[:2])
    return about(names, severity, "duplicates", f"{{count}} {what} (first: {first})", fix)
