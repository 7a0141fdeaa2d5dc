"""Rows with labels -> a seeded, stratified part of them, the same on every machine and version.

Within a class, images are ordered by SHA256(seed, path), and the first images are drawn. Thus the
draws do not depend on a library's generator or on the order of the index or file system.
N images, C classes.
"""

from __future__ import annotations

import hashlib

import numpy as np

from fgvc.data.index import Index, list_first
from fgvc.types import TEST, TRAIN, VAL, LabelMap, Split, UserError, nfc

SPLIT_NAMES = {TRAIN: "train", TEST: "test", VAL: "validation"}


def carve(index: Index, fraction: float, seed: int) -> Split:
    """Split with the dataset's own validation split; otherwise carve validation from train.

    The carved part has round(fraction * train images). Every class keeps a training image, so a
    class of one image is never carved.

    Args:
        index: of all images; TRAIN rows are only divided if no row is VAL.
        fraction: 0 gives an empty validation split.
        seed: `dataset.split_seed`.
    """
    rows = np.flatnonzero(index.split_N == TRAIN)
    val_N = np.flatnonzero(index.split_N == VAL)
    if not len(val_N):
        val_N = stratified(index.path, index.label_N, rows, fraction, f"val {seed}", at_least=0)
    return Split(
        train_N=np.setdiff1d(rows, val_N, assume_unique=True),
        val_N=val_N,
        test_N=np.flatnonzero(index.split_N == TEST),
    )


def validation_notes(
    label_N: np.ndarray,
    split: Split,
    labelmap: LabelMap,
    fraction: float,
    has_val_split: bool = False,
) -> tuple[str, ...]:
    """A note on classes without a validation image, which no selection on validation considers.

    Args:
        label_N: of all images.
        fraction: `dataset.val_fraction`; with 0 there is no validation and no note.
        has_val_split: whether the dataset has its own validation split; then none is carved.
    """
    if fraction <= 0 and not has_val_split:
        return ()
    train_C = np.bincount(label_N[split.train_N], minlength=len(labelmap))
    val_C = np.bincount(label_N[split.val_N], minlength=len(labelmap))
    if not (missing := np.flatnonzero(val_C == 0).tolist()):
        return ()
    key, advice = f"dataset.val_fraction={fraction:g}", "raise dataset.val_fraction"
    if has_val_split:
        key, advice = "validation split", "add validation images of these classes"
    elif single := int((train_C[missing] == 1).sum()):  # its only image is used for training
        some = "" if single == len(missing) else f"{advice}, and "
        which = "these classes" if not some else f"the {single} that have a single image"
        advice = f"{some}add training images of {which}"
    return (
        f"{key}: {len(missing)} of {len(labelmap)} classes have no validation image "
        f"({list_first(labelmap.names[label] for label in missing)}), so validation "
        f"says nothing about them; {advice}",
    )


def resolve_splits(
    where: str,
    split_N: np.ndarray | None,
    path: tuple[str, ...],
    label_N: np.ndarray,
    classes: LabelMap,
    fraction: float,
    seed: int,
) -> tuple[np.ndarray, str]:
    """Make a train and a test split from the splits of a user's own images.

    Without a test split, the validation split is the test; without both, a seeded part of each
    class, at least one image, is carved from train.

    Args:
        where: the source of the splits, for messages ("dataset.table=FILE").
        split_N: TRAIN, VAL or TEST of every image; None if there are no splits.
        fraction, seed: `dataset.test_fraction` and `dataset.split_seed`, to carve a test.

    Returns:
        The split of every image, uint8, and `test_source` as in Dataset.

    Raises:
        UserError: splits without training images, or a test that cannot be carved: the fraction is
            0, or classes have a single image.
    """
    present = {TRAIN} if split_N is None else set(np.unique(split_N).tolist())
    if TRAIN not in present:
        names = " and ".join(SPLIT_NAMES[split] for split in sorted(present))
        raise UserError(f"{where}: only {names} images, none to train on; add a split train")
    if split_N is not None and TEST in present:
        return split_N, "test"
    if split_N is not None and VAL in present:
        return np.where(split_N == VAL, TEST, split_N).astype(np.uint8), "val"
    where += ": no split" if split_N is None else ": only a training split and no test"
    if fraction <= 0:
        raise UserError(
            f"dataset.test_fraction={fraction}: {where}, so a test split has to be carved: "
            "set it above 0, for example 0.2"
        )
    if single := [classes.names[label] for label in np.flatnonzero(np.bincount(label_N) < 2)]:
        raise UserError(
            f"{where}, and {len(single)} classes hold a single image that cannot be split into "
            f"train and test ({list_first(single)}): add images or remove them"
        )
    split_N, rows = np.full(len(path), TRAIN, dtype=np.uint8), np.arange(len(path))
    split_N[stratified(path, label_N, rows, fraction, f"test {seed}", at_least=1)] = TEST
    return split_N, "carved"


def stratified(
    path: tuple[str, ...],
    label_N: np.ndarray,
    rows: np.ndarray,
    fraction: float,
    salt: str,
    at_least: int,
) -> np.ndarray:
    """Draw round(fraction * len(rows)) rows in proportion to the classes.

    Args:
        path, label_N: of all images.
        rows: to draw from.
        salt: makes draws independent; contains the seed.
        at_least: minimum rows drawn from every class; one row of a class is never drawn.

    Returns:
        Drawn rows, ascending int64.
    """
    labels, count_C = np.unique(label_N[rows], return_counts=True)
    quota_C = _quotas(count_C, labels, fraction, salt, at_least)
    digests = (_sort_key(salt, path[row]) for row in rows.tolist())
    digest_N = np.fromiter(digests, dtype="S32", count=len(rows))
    ordered_N = rows[np.lexsort(digest_N.view(">u8").reshape(-1, 4).T[::-1])]
    by_class_N = ordered_N[np.argsort(label_N[ordered_N], kind="stable")]
    position_N = np.arange(len(rows)) - np.repeat(np.cumsum(count_C) - count_C, count_C)
    return np.sort(by_class_N[position_N < np.repeat(quota_C, count_C)]).astype(np.int64)


def _quotas(
    count_C: np.ndarray, labels: np.ndarray, fraction: float, salt: str, at_least: int
) -> np.ndarray:
    """Images per class by largest remainder; a digest breaks ties."""
    target = round(fraction * int(count_C.sum()))
    # rounded, so that shares equal on paper are equal in floating point too
    share_C = np.round(fraction * count_C, 9)
    quota_C = np.maximum(np.floor(share_C).astype(np.int64), at_least)
    limit_C = np.minimum(np.ceil(share_C), count_C - 1)
    remainder_C = np.round(share_C - np.floor(share_C), 9)
    tie_break = [_sort_key(salt, f"class {label}") for label in labels.tolist()]
    for position in sorted(range(len(labels)), key=lambda c: (-remainder_C[c], tie_break[c])):
        if quota_C.sum() < target and quota_C[position] < limit_C[position]:
            quota_C[position] += 1
    return quota_C


def _sort_key(salt: str, text: str) -> bytes:
    return hashlib.sha256(f"{salt}\0{nfc(text)}".encode()).digest()
