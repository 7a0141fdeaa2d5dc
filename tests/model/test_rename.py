"""Tensor names of another library are replaced by a table; no tensor is lost."""

import torch

from fgvc.model.backbone.rename import rename

RULES = (
    (r"layer\.(\d+)\.([qkv])\.(\w+)", r"blocks.\1.qkv.\3#\2"),
    (r"(?:old|older)\.(\w+)", r"new.\1"),
)


def test_the_first_rule_that_matches_the_whole_name_gives_the_new_name():
    state = {"old.bias": torch.ones(1), "an.old.bias": torch.zeros(1)}
    renamed = rename(state, (*RULES, (r"old\.bias", "never")))
    assert renamed == {"new.bias": state["old.bias"], "an.old.bias": state["an.old.bias"]}


def test_a_name_that_is_taken_keeps_the_second_tensor_under_its_own():
    state = {"old.bias": torch.ones(1), "older.bias": torch.zeros(1)}
    assert rename(state, RULES) == {
        "new.bias": state["old.bias"],
        "older.bias": state["older.bias"],
    }


def test_queries_keys_and_values_are_stacked_in_this_order():
    state = {f"layer.0.{letter}.bias": torch.full((2,), i) for i, letter in enumerate("vkq")}
    ((name, stacked),) = rename(state, RULES).items()
    assert (name, stacked.tolist()) == ("blocks.0.qkv.bias", [2, 2, 1, 1, 0, 0])


def test_a_missing_part_leaves_the_other_two_apart():
    state = {"layer.0.q.bias": torch.ones(1), "layer.0.v.bias": torch.zeros(1)}
    assert rename(state, RULES) == {
        "blocks.0.qkv.bias.q": state["layer.0.q.bias"],
        "blocks.0.qkv.bias.v": state["layer.0.v.bias"],
    }
