"""The origin of a dataset's test and validation images -> notes and the split text of its card."""

from __future__ import annotations

from fgvc.config import schema
from fgvc.data.index import Index
from fgvc.types import VAL

FROM_DATA = "from the data:"  # a split text of a card that begins so is replaced on reading


def source_notes(index: Index, conf: schema.Dataset) -> tuple[str, ...]:
    """Notes if test is not the dataset's own test split, or if it has its own validation split."""
    notes = []
    source = conf.table or index.root  # the images of a Parquet table lie in the cache
    if index.test_source == "val":
        notes.append(
            f"test = val: {source} has no test split, thus its validation split is the test; "
            "its numbers are too high if anything was chosen on it"
        )
    if index.test_source == "carved":
        notes.append(
            f"test carved: {source} has no test split, thus a seeded part of each class is the "
            f"test ({_carved(conf)})"
        )
    if val := int((index.split_N == VAL).sum()):
        notes.append(
            f"validation is the dataset's own split of {val} images; "
            f"dataset.val_fraction={conf.val_fraction:g} is not used"
        )
    return tuple(notes)


def describe(index: Index, conf: schema.Dataset) -> str:
    """The origin of test and validation, for the card of a dataset."""
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
