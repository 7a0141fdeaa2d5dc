"""Usual names of splits, and class names that resemble them."""

import pytest

from fgvc.data.split_names import split_of, splits_among
from fgvc.types import TEST, TRAIN, VAL

KNOWN = {
    TRAIN: (
        *("train", "Training", "TRAIN", "train_set", "train2017", "training-images", "trainset"),
        *("train_mini", "Trainingsdaten", "entraînement", "Entrenamiento", "训练集", "学習データ"),
    ),
    VAL: (
        *("val", "valid", "Validation", "validation_set", "dev", "val2017", "PublicTest"),
        *("Validierung", "validación", "验证集", "検証"),
    ),
    TEST: (
        *("test", "Testing", "test_images", "TestSet", "test-data", "PrivateTest"),
        *("Testdaten", "prueba", "测试集", "テスト"),
    ),
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
    "public",
    "minitrain station",
    "テ",
    "",
)


@pytest.mark.parametrize("split", KNOWN)
def test_the_usual_words_in_any_case(split: int) -> None:
    assert [split_of(name) for name in KNOWN[split]] == [split] * len(KNOWN[split])


@pytest.mark.parametrize("name", OTHERS)
def test_other_names_are_no_splits(name: str) -> None:
    assert split_of(name) is None


@pytest.mark.parametrize(
    "names",
    [
        ("trainA", "testA"),
        ("birdsTrain", "birdsTest"),
        ("TrainImagesV2", "TestImagesV2"),
        ("train1_a", "test1_a"),
    ],
)
def test_names_that_agree_but_for_a_word_in_any_spelling(names: tuple[str, str]) -> None:
    assert splits_among(names) == {names[0]: TRAIN, names[1]: TEST}


def test_a_word_inside_another_is_ignored() -> None:
    assert splits_among(["BusStation", "TrainStation", "Trainer", "Tester"]) == {}
