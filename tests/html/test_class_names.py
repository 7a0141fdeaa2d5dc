"""Class names as people read them: no numbers, no underscores, never two equal names."""

from __future__ import annotations

import pytest

from fgvc.html.class_names import display_names


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (
            ["009.Brewer_Blackbird", "010.Red_winged_Blackbird"],
            ["Brewer Blackbird", "Red winged Blackbird"],
        ),
        (["n02085620-Chihuahua", "n02085782-Japanese_spaniel"], ["Chihuahua", "Japanese spaniel"]),
        (["AM General Hummer SUV 2000", "Acura RL Sedan 2012"],) * 2,
        # a number that not all names begin with belongs to the name
        (["3.Maj", "Vespa"], ["3.Maj", "Vespa"]),
        # NABirds: several leaves may share a name; without their numbers they would be one class
        (["1.Mallard", "2.Mallard"], ["1.Mallard", "2.Mallard"]),
        # underscores that distinguish two names stay
        (["a_b", "a b"], ["a_b", "a b"]),
        (["_", "__"], ["_", "__"]),
        (["b\udce9te", "cat"], ["b\\udce9te", "cat"]),
        ([], []),
    ],
)
def test_names_for_people(names, shown):
    assert display_names(names) == shown
