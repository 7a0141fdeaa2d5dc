"""Combinations that a named sweep leaves out -> lines that state the reasons.

A cross of many choices holds combinations that do not fit together, or that mean the same job.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fgvc.config.sweep_expansion import SIZE, Combination, keep_stated_size, key_of, varying_keys


@dataclass(frozen=True)
class Exclusion:
    """A combination left out of a named sweep.

    why: one line; the combination is invalid, or a duplicate of another job.
    """

    overrides: tuple[str, ...]
    why: str


def keep_stated_sizes(split: Sequence[Combination]) -> tuple[list[Combination], list[Exclusion]]:
    """Keep one combination per size where the option of the backbone names its size.

    Returns:
        The kept combinations, and one left-out combination per such backbone.
    """
    kept = {keep_stated_size(combination): combination for combination in reversed(split)}
    left_out: dict[str, Exclusion] = {}
    for combination in split:
        if kept[keep_stated_size(combination)] is not combination:
            backbone = next(item for item in combination if key_of(item) == "backbone")
            why = f"{backbone} names its size: {SIZE} is not swept there"
            left_out.setdefault(backbone, Exclusion(combination, why))
    sized = [keep_stated_size(item) for item in split if kept[keep_stated_size(item)] is item]
    return sized, [*left_out.values()]


def summarize(left_out: Sequence[Exclusion]) -> list[str]:
    """One line per reason, with the number of its combinations and the first of them."""
    apart = varying_keys([combination.overrides for combination in left_out]) if left_out else set()
    by_why: dict[str, list[Exclusion]] = {}
    for combination in left_out:
        by_why.setdefault(combination.why, []).append(combination)
    return [_with_example(why, combinations, apart) for why, combinations in by_why.items()]


def _with_example(why: str, combinations: Sequence[Exclusion], apart: set[str]) -> str:
    if len(combinations) == 1:
        return why
    first = " ".join(item for item in combinations[0].overrides if key_of(item) in apart)
    return f"{len(combinations)} combinations: {why} (the first: {first})"
