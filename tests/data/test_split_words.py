"""The words people use for splits, and names of classes that only look like them."""

import pytest

from fgvc.data.split_words import split_of
from fgvc.types import TEST, TRAIN, VAL

KNOWN = {
    TRAIN: ("train", "Training", "TRAIN", "train_set", "train2017", "training-images", "trainset"),
    VAL: ("val", "valid", "Validation", "validation_set", "dev", "val2017"),
    TEST: ("test", "Testing", "test_images", "TestSet", "test-data"),
}
OTHERS = (
    "trainer",
    "Testudo",
    "valley",
    "evergreen",
    "contest",
    "train station",
    "device",
    "fitness",
    "",
)


@pytest.mark.parametrize("split", KNOWN)
def test_the_usual_words_in_any_case(split: int) -> None:
    assert [split_of(name) for name in KNOWN[split]] == [split] * len(KNOWN[split])


@pytest.mark.parametrize("name", OTHERS)
def test_other_names_are_no_splits(name: str) -> None:
    assert split_of(name) is None
