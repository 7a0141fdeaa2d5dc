"""Digests and fingerprints of an indexed dataset -> pictures that it holds more than once.

N pictures, K pairs.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from fgvc.data.doctor import near_duplicates
from fgvc.data.doctor.finding import ERROR, NOTE, Finding
from fgvc.data.doctor.images import ImageTable
from fgvc.data.index import Index
from fgvc.types import TEST


def check_duplicates(index: Index, looks: ImageTable) -> list[Finding]:
    """Equal files across splits, under two labels and otherwise; near duplicates across splits."""
    groups = _equal_files(looks)
    across = [pair for rows in groups for pair in _train_test_pairs(index, rows)]
    labels = [rows for rows in groups if _count_labels(index, rows) > 1]
    within = [
        rows
        for rows in groups
        if not _train_test_pairs(index, rows) and _count_labels(index, rows) == 1
    ]
    return [
        *_finding(
            ERROR,
            index,
            across,
            "pictures occur in both train and test, byte for byte",
            "leave one of each pair out of the dataset: what was trained on flatters test",
        ),
        *_finding(
            NOTE,
            index,
            labels,
            "pictures occur under two labels, byte for byte",
            "find out which label is right",
        ),
        *_finding(
            NOTE,
            index,
            within,
            "pictures occur more than once in the same split, byte for byte",
            "harmless unless many; remove one of each",
        ),
        *_finding(
            NOTE,
            index,
            _near_duplicates(index, looks),
            "pairs of train and test pictures look the same "
            f"(at most {near_duplicates.MAX_DISTANCE} of 128 bits differ)",
            "look at them: the same photograph in both splits flatters test",
        ),
    ]


def _equal_files(looks: ImageTable) -> list[list[int]]:
    """Rows of files with the same bytes, in groups of two and more."""
    rows_of: dict[bytes, list[int]] = defaultdict(list)
    for row, sha256 in enumerate(looks.sha256):
        if sha256:
            rows_of[sha256].append(row)
    return [rows for rows in rows_of.values() if len(rows) > 1]


def _train_test_pairs(index: Index, rows: list[int]) -> list[list[int]]:
    """Each test picture of equal ones, with the first of train."""
    train = [row for row in rows if index.split_N[row] != TEST]
    return [[train[0], row] for row in rows if train and index.split_N[row] == TEST]


def _count_labels(index: Index, rows: list[int]) -> int:
    return len(np.unique(index.label_N[rows]))


def _near_duplicates(index: Index, looks: ImageTable) -> list[list[int]]:
    """Pairs of train and test that look the same and are not the same bytes."""
    readable_N = looks.readable
    test_N = index.split_N[readable_N] == TEST
    train, test = readable_N[~test_N], readable_N[test_N]
    pair_K2 = near_duplicates.pairs(looks.code_N2[train], looks.code_N2[test])
    rows_K2 = np.stack([train[pair_K2[:, 0]], test[pair_K2[:, 1]]], axis=1)
    return [rows for rows in rows_K2.tolist() if looks.sha256[rows[0]] != looks.sha256[rows[1]]]


def _finding(
    severity: str, index: Index, groups: list[list[int]], what: str, mend: str
) -> list[Finding]:
    if not groups:
        return []
    names = [" = ".join(index.path[row] for row in rows) for rows in groups]
    first = " = ".join(index.path[row] for row in groups[0][:2])
    says = f"{len(groups)} {what} (first: {first})"
    return [Finding(severity, "duplicates", says, mend, tuple(names))]
