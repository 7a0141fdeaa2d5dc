"""Rows with labels -> a seeded, stratified part of them, the same on every machine and version.

Within a class the pictures are ordered by SHA256(seed, path) and the first ones are drawn: no
random stream that a library may change, no dependence on the order of index or file system.
N images, C classes.
"""

from __future__ import annotations

import hashlib
import unicodedata

import numpy as np

from fgvc.config import schema
from fgvc.data.index import Index, listed
from fgvc.types import TEST, TRAIN, VAL, LabelMap, Split, UserError

FROM_DATA = (
    "from the data:"  # begins the split text of a card that is written anew when data is read
)


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
        fraction: `dataset.val_fraction`; with 0 nothing is carved, and there is no note.
        own: whether the validation split is the dataset's own; `fraction` is not used then.
    """
    if fraction <= 0 and not own:
        return ()
    train_C, val_C = (
        np.bincount(label_N[row_N], minlength=len(labelmap))
        for row_N in (split.train_N, split.val_N)
    )
    if not (missing := np.flatnonzero(val_C == 0).tolist()):
        return ()
    names = listed(labelmap.names[label] for label in missing)
    if own:
        return (
            f"its own validation split holds no image of {len(missing)} of {len(labelmap)} classes "
            f"({names}), so validation says nothing about them; add validation images of these "
            "classes",
        )
    advice = "raise dataset.val_fraction"
    if (train_C[missing] == 1).all():  # the only image of a class is used for training
        advice = "add training images of these classes"
    return (
        f"dataset.val_fraction={fraction:g}: {len(missing)} of {len(labelmap)} classes have no "
        f"validation image ({names}), so validation says nothing about them; {advice}",
    )


def source_notes(index: Index, conf: schema.Dataset) -> tuple[str, ...]:
    """Notes on a test that is no test split of the dataset, and on an own validation split."""
    notes = []
    if index.test_source == "val":
        notes.append(
            f"test = val: {index.root} has no test split, thus its validation split is the test; "
            "its numbers are too high if anything was chosen on it"
        )
    if index.test_source == "carved":
        notes.append(
            f"test carved: {index.root} has no test split, thus a seeded part of each class is the "
            f"test ({_carved(conf)})"
        )
    if val := int((index.split_N == VAL).sum()):
        notes.append(
            f"validation is the dataset's own split of {val} images; "
            f"dataset.val_fraction={conf.val_fraction:g} is not used"
        )
    return tuple(notes)


def describe(index: Index, conf: schema.Dataset) -> str:
    """Where test and validation come from, for the card of a dataset."""
    test = {
        "test": "test is its own test split",
        "val": "test is its validation split, because it has no test split",
        "carved": f"test is a seeded part of each class ({_carved(conf)})",
    }[index.test_source]
    validation = f"is carved from train (dataset.val_fraction={conf.val_fraction:g})"
    if (index.split_N == VAL).any():
        validation = "is its own validation split"
    return f"{FROM_DATA} {test}; validation {validation}"


def _carved(conf: schema.Dataset) -> str:
    return f"dataset.test_fraction={conf.test_fraction:g}, dataset.split_seed={conf.split_seed}"


def carved_test(
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
        UserError: no fraction, or classes of a single picture.
    """
    if fraction <= 0:
        raise UserError(
            f"dataset.test_fraction={fraction}: {where}, so a test split has to be carved: "
            "set it above 0, for example 0.2"
        )
    if single := [classes.names[label] for label in np.flatnonzero(np.bincount(label_N) < 2)]:
        raise UserError(
            f"{where}, and {len(single)} classes hold a single picture that cannot be split into "
            f"train and test ({listed(single)}): add pictures or remove them"
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
    ordered_N = rows[_by_digest(salt, path, rows)]
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
    tie = [_order(salt, f"class {label}") for label in labels.tolist()]
    first = sorted(range(len(tie)), key=lambda place: (-remainder_C[place], tie[place]))
    for place in first:
        if quota_C.sum() < target and quota_C[place] < most_C[place]:
            quota_C[place] += 1
    return quota_C


def _by_digest(salt: str, path: tuple[str, ...], rows: np.ndarray) -> np.ndarray:
    """Places in `rows`, in the order of their digests as big-endian numbers."""
    digests = (_order(salt, path[row]) for row in rows.tolist())
    digest_N = np.fromiter(digests, dtype="S32", count=len(rows))
    return np.lexsort(digest_N.view(">u8").reshape(-1, 4).T[::-1])


def _order(salt: str, text: str) -> bytes:
    return hashlib.sha256(f"{salt}\0{unicodedata.normalize('NFC', text)}".encode()).digest()
