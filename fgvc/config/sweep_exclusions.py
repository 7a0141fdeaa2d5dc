"""Combinations that a named sweep leaves out -> lines that state the reasons.

Some combinations of a cross are invalid, and some mean the same job.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fgvc.config.sweep_expansion import SIZE, Combination, keep_stated_size, key_of, varying_keys


@dataclass(frozen=True)
class Exclusion:
    """A combination left out of a named sweep, with the reason in one line."""

    overrides: tuple[str, ...]
    reason: str


def keep_stated_sizes(
    combinations: Sequence[Combination],
) -> tuple[list[Combination], list[Exclusion]]:
    """Keep one combination per size where the backbone option names its size.

    Returns:
        The kept combinations, and one left-out combination per such backbone.
    """
    first = {keep_stated_size(combination): combination for combination in reversed(combinations)}
    exclusions: dict[str, Exclusion] = {}
    for combination in combinations:
        if first[keep_stated_size(combination)] is not combination:
            backbone = next(item for item in combination if key_of(item) == "backbone")
            reason = f"{backbone} names its size: {SIZE} is not swept there"
            exclusions.setdefault(backbone, Exclusion(combination, reason))
    sized = [(keep_stated_size(combination), combination) for combination in combinations]
    return [item for item, whole in sized if first[item] is whole], [*exclusions.values()]


def summarize(exclusions: Sequence[Exclusion]) -> list[str]:
    """One line per reason, with the number of its combinations and the first of them."""
    varying = varying_keys([exclusion.overrides for exclusion in exclusions]) if exclusions else ()
    by_reason: dict[str, list[tuple[str, ...]]] = {}
    for exclusion in exclusions:
        by_reason.setdefault(exclusion.reason, []).append(exclusion.overrides)
    lines = []
    for reason, combinations in by_reason.items():
        first = " ".join(item for item in combinations[0] if key_of(item) in varying)
        count = len(combinations)
        lines.append(
            reason if count == 1 else f"{count} combinations: {reason} (the first: {first})"
        )
    return lines
