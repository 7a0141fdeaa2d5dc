"""Lists of many classes: grouped by the top of the tree, bounded, with summaries of all classes."""

from __future__ import annotations

import pytest

from fgvc.html import class_lists
from fgvc.html.class_groups import top_groups
from fgvc.html.class_lists import ClassRow
from fgvc.types import Hierarchy


def tree(*chains: tuple[str, ...]) -> Hierarchy:
    """Ancestors of each class, from parent to root; a node is called after its id."""
    return Hierarchy(chains, {node: f"the {node}" for chain in chains for node in chain})


@pytest.mark.parametrize("root", [(), ("root",), ("trunk", "root")])
def test_groups_are_the_topmost_nodes_that_differ(root):
    chains = [("duck", "fowl"), ("gull",), ("goose", "fowl"), ("duck", "fowl"), ("gull",)]
    groups = top_groups(tree(*(chain + root for chain in chains)))
    assert groups is not None
    assert groups.names == ("the fowl", "the gull")
    assert groups.place_C.tolist() == [0, 1, 0, 0, 1]
    assert groups.name_of(2) == "the fowl"


def test_a_class_that_ends_above_its_group_is_among_the_others():
    groups = top_groups(tree(("root",), ("a", "root"), ("b", "root")))
    assert groups is not None
    assert groups.names == ("other", "the a", "the b")
    assert groups.place_C.tolist() == [0, 1, 2]


def test_without_several_nodes_there_are_no_groups():
    assert top_groups(None) is None
    assert top_groups(tree(("a", "root"), ("a", "root"))) is None
    assert top_groups(tree((), ())) is None


def summarize(rows) -> tuple[float, str]:
    total = sum(row.counts[0] for row in rows)
    return total, f"{total} in {len(rows)}"


def test_lists_are_in_the_order_of_their_summaries_and_rows_keep_theirs():
    rows = [ClassRow("ab"[k % 3 == 0], (k,), (f"class {k}",)) for k in range(7)]
    made = class_lists.class_lists(("class",), rows, summarize)
    assert [(of.name, of.summary) for of in made.lists] == [("b", "9 in 3"), ("a", "12 in 4")]
    assert [row.counts[0] for row in made.lists[1].rows] == [1, 2, 4, 5]
    assert (made.shown, made.total) == (7, 7)


def test_rows_and_characters_are_bounded_and_summaries_are_not(monkeypatch):
    rows = [ClassRow("", (1,), ("x" * 10, "y")) for _ in range(50)]
    monkeypatch.setattr(class_lists, "MAX_ROWS", 20)
    made = class_lists.class_lists(("class", ""), rows, summarize)
    assert (made.shown, made.total) == (20, 50)
    assert (len(made.lists[0].rows), made.lists[0].summary) == (20, "50 in 50")
    monkeypatch.setattr(class_lists, "MAX_CHARACTERS", 110)
    assert class_lists.class_lists(("class", ""), rows, summarize).shown == 10
