"""Digests and fingerprints of an indexed dataset -> findings on duplicate images.

N images, K pairs.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from fgvc.data.doctor import near_duplicates
from fgvc.data.doctor.finding import ERROR, NOTE, Finding
from fgvc.data.doctor.images import ImageTable
from fgvc.data.index import Index
from fgvc.types import TEST


def check_duplicates(index: Index, images: ImageTable) -> list[Finding]:
    """Find equal files (across splits, under two labels, within a split) and near duplicates."""
    groups = _equal_files(images)
    train_test = [pair for rows in groups for pair in _train_test_pairs(index, rows)]
    two_labels = [rows for rows in groups if _count_labels(index, rows) > 1]
    same_split = [
        rows
        for rows in groups
        if not _train_test_pairs(index, rows) and _count_labels(index, rows) == 1
    ]
    return [
        *_finding(
            ERROR,
            index,
            train_test,
            "images occur in both train and test, byte for byte",
            "remove one image of each pair: a test image seen in training inflates the accuracy",
        ),
        *_finding(
            NOTE,
            index,
            two_labels,
            "images occur under two labels, byte for byte",
            "find out which label is right",
        ),
        *_finding(
            NOTE,
            index,
            same_split,
            "images occur more than once in the same split, byte for byte",
            "harmless unless there are many; remove one of each",
        ),
        *_finding(
            NOTE,
            index,
            _near_duplicates(index, images),
            "pairs of train and test images look the same "
            f"(at most {near_duplicates.MAX_DISTANCE} of 128 bits differ)",
            "inspect them: the same photograph in both splits inflates the accuracy",
        ),
    ]


def _equal_files(images: ImageTable) -> list[list[int]]:
    """Rows of files with the same bytes, in groups of two or more."""
    rows_of: dict[bytes, list[int]] = defaultdict(list)
    for row, sha256 in enumerate(images.sha256):
        if sha256:
            rows_of[sha256].append(row)
    return [rows for rows in rows_of.values() if len(rows) > 1]


def _train_test_pairs(index: Index, rows: list[int]) -> list[list[int]]:
    """Each test image of a group of equal files, paired with the first training image."""
    train = [row for row in rows if index.split_N[row] != TEST]
    return [[train[0], row] for row in rows if train and index.split_N[row] == TEST]


def _count_labels(index: Index, rows: list[int]) -> int:
    return len(np.unique(index.label_N[rows]))


def _near_duplicates(index: Index, images: ImageTable) -> list[list[int]]:
    """Train/test pairs that look the same and differ in bytes."""
    readable_N = images.readable
    test_N = index.split_N[readable_N] == TEST
    train, test = readable_N[~test_N], readable_N[test_N]
    pair_K2 = near_duplicates.pairs(images.code_N2[train], images.code_N2[test])
    rows_K2 = np.stack([train[pair_K2[:, 0]], test[pair_K2[:, 1]]], axis=1)
    return [rows for rows in rows_K2.tolist() if images.sha256[rows[0]] != images.sha256[rows[1]]]


def _finding(
    severity: str, index: Index, groups: list[list[int]], what: str, mend: str
) -> list[Finding]:
    if not groups:
        return []
    names = [" = ".join(index.path[row] for row in rows) for rows in groups]
    first = " = ".join(index.path[row] for row in groups[0][:2])
    says = f"{len(groups)} {what} (first: {first})"
    return [Finding(severity, "duplicates", says, mend, tuple(names))]
