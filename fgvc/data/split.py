"""Rows with labels -> a seeded, stratified part of them, the same on every machine and version.

Within a class the images are ordered by SHA256(seed, path) and the first ones are drawn: no
random stream that a library may change, no dependence on the order of index or file system.
N images, C classes.
"""

from __future__ import annotations

import hashlib
import unicodedata

import numpy as np

from fgvc.data.index import Index, list_first
from fgvc.types import TEST, TRAIN, VAL, LabelMap, Split, UserError

SPLIT_NAMES = {TRAIN: "train", TEST: "test", VAL: "validation"}


def carve(index: Index, fraction: float, seed: int) -> Split:
    """Split with the dataset's own validation part; without one, carve it from train.

    The carved part has round(fraction * train images). Every class keeps a training image, so a
    class of one is never in it.

    Args:
        index: of all images; only TRAIN rows are divided, and only if no row is VAL.
        fraction: 0 gives an empty validation part.
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
    label_N: np.ndarray, split: Split, labelmap: LabelMap, fraction: float, own: bool = False
) -> tuple[str, ...]:
    """A note on classes without a validation image: no choice on validation can consider them.

    Args:
        label_N: of all images.
        fraction: `dataset.val_fraction`; with 0 there is no validation and no note.
        own: whether the dataset brings its validation split; nothing is carved then.
    """
    if fraction <= 0 and not own:
        return ()
    train_C, val_C = (
        np.bincount(label_N[row_N], minlength=len(labelmap))
        for row_N in (split.train_N, split.val_N)
    )
    if not (missing := np.flatnonzero(val_C == 0).tolist()):
        return ()
    key, advice = f"dataset.val_fraction={fraction:g}", "raise dataset.val_fraction"
    if own:
        key, advice = "validation split", "add validation images of these classes"
    elif single := int((train_C[missing] == 1).sum()):  # its only image is used for training
        some = "" if single == len(missing) else f"{advice}, and "
        which = "these classes" if not some else f"the {single} that have a single image"
        advice = f"{some}add training images of {which}"
    return (
        f"{key}: {len(missing)} of {len(labelmap)} classes have no "
        f"validation image ({list_first(labelmap.names[label] for label in missing)}), so validation "
        f"says nothing about them; {advice}",
    )


def resolve_splits(
    where: str,
    given_N: np.ndarray | None,
    path: tuple[str, ...],
    label_N: np.ndarray,
    classes: LabelMap,
    fraction: float,
    seed: int,
) -> tuple[np.ndarray, str]:
    """Make a train and a test split of whatever splits a table has.

    Validation is the test where there is no test; where there is neither, a test is carved.

    Args:
        where: what brings the splits, for messages ("dataset.table=FILE").
        given_N: TRAIN, VAL or TEST of every image; None where nothing states it.
        fraction: `dataset.test_fraction`, for a test that has to be carved.
        seed: `dataset.split_seed`, likewise.

    Returns:
        The split of every image, uint8, and `test_source` as in Dataset.

    Raises:
        UserError: splits without training images, or a test that cannot be carved.
    """
    given = {TRAIN} if given_N is None else set(np.unique(given_N).tolist())
    if TRAIN not in given:
        names = " and ".join(SPLIT_NAMES[split] for split in sorted(given))
        raise UserError(f"{where}: only {names} images, none to train on; add a split train")
    if given_N is not None and TEST in given:
        return given_N, "test"
    if given_N is not None and VAL in given:
        return np.where(given_N == VAL, TEST, given_N).astype(np.uint8), "val"
    what = "no split" if given_N is None else "only a training split"
    return carve_test(f"{where}: {what}", path, label_N, classes, fraction, seed), "carved"


def carve_test(
    where: str,
    path: tuple[str, ...],
    label_N: np.ndarray,
    classes: LabelMap,
    fraction: float,
    seed: int,
) -> np.ndarray:
    """Split column, uint8, of a dataset that has no test of its own: a seeded part of each class.

    Args:
        where: what lacks it, for the message ("FOLDER has no test/").
        fraction: `dataset.test_fraction`; every class gets a test image, whatever its share.
        seed: `dataset.split_seed`.

    Raises:
        UserError: no fraction, or classes of a single image.
    """
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
    split_N = np.full(len(path), TRAIN, dtype=np.uint8)
    rows = np.arange(len(path))
    split_N[stratified(path, label_N, rows, fraction, f"test {seed}", at_least=1)] = TEST
    return split_N


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
        rows: those to draw from.
        salt: makes independent draws; holds the seed.
        at_least: rows drawn from every class, whatever its share; one always stays behind.

    Returns:
        Drawn rows, ascending int64.
    """
    labels, count_C = np.unique(label_N[rows], return_counts=True)
    quota_C = _quotas(count_C, labels, fraction, salt, at_least)
    ordered_N = rows[_digest_order(salt, path, rows)]
    by_class_N = ordered_N[np.argsort(label_N[ordered_N], kind="stable")]
    place_N = np.arange(len(rows)) - np.repeat(np.cumsum(count_C) - count_C, count_C)
    return np.sort(by_class_N[place_N < np.repeat(quota_C, count_C)]).astype(np.int64)


def _quotas(
    count_C: np.ndarray, labels: np.ndarray, fraction: float, salt: str, at_least: int
) -> np.ndarray:
    """Whole images per class by largest remainder; ties fall in the order of a digest."""
    target = round(fraction * int(count_C.sum()))
    # rounded, so that shares equal on paper are equal in floating point too
    share_C = np.round(fraction * count_C, 9)
    quota_C = np.maximum(np.floor(share_C).astype(np.int64), at_least)
    most_C = np.minimum(np.ceil(share_C), count_C - 1)
    remainder_C = np.round(share_C - np.floor(share_C), 9)
    tie = [_sort_key(salt, f"class {label}") for label in labels.tolist()]
    first = sorted(range(len(tie)), key=lambda place: (-remainder_C[place], tie[place]))
    for place in first:
        if quota_C.sum() < target and quota_C[place] < most_C[place]:
            quota_C[place] += 1
    return quota_C


def _digest_order(salt: str, path: tuple[str, ...], rows: np.ndarray) -> np.ndarray:
    """Places in `rows`, in the order of their digests as big-endian numbers."""
    digests = (_sort_key(salt, path[row]) for row in rows.tolist())
    digest_N = np.fromiter(digests, dtype="S32", count=len(rows))
    return np.lexsort(digest_N.view(">u8").reshape(-1, 4).T[::-1])


def _sort_key(salt: str, text: str) -> bytes:
    return hashlib.sha256(f"{salt}\0{unicodedata.normalize('NFC', text)}".encode()).digest()
