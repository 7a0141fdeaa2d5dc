"""Class names in the spelling of a person."""

import pytest

from fgvc.data.prompts import clean, prompts
from fgvc.types import LabelMap


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        ("001.Black_footed_Albatross", "Black footed Albatross"),
        ("n02085620-Chihuahua", "Chihuahua"),
        ("n02113799-standard_poodle", "standard poodle"),
        ("Ram C/V Cargo Van Minivan 2012", "Ram C/V Cargo Van Minivan 2012"),
        ("AM General Hummer SUV 2000", "AM General Hummer SUV 2000"),
        ("Wood Duck (Breeding male)", "Wood Duck (Breeding male)"),
        ("Zosterops  lateralis ", "Zosterops lateralis"),
        ("Möwe = große, weiße", "Möwe = große, weiße"),
        ("n0208-short", "n0208-short"),
        ("2012", "2012"),
    ],
)
def test_a_name_loses_what_only_an_index_needs(name, cleaned):
    assert clean(name) == cleaned


def test_every_class_gets_every_template_and_no_name_becomes_nothing():
    labelmap = LabelMap(("1", "2"), ("001.Crested_Auklet", "002."))
    assert prompts(labelmap, ["a {}.", "the {}, a bird."]) == [
        ["a Crested Auklet.", "the Crested Auklet, a bird."],
        ["a 002..", "the 002., a bird."],
    ]


def test_braces_in_a_name_are_letters():
    assert prompts(LabelMap(("1",), ("{0}",)), ["a {}"]) == [["a {0}"]]
