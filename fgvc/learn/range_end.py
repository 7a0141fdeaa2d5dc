"""A value chosen from several -> whether it lies at an end of their range.

A better value may then lie beyond the range.
"""

from __future__ import annotations

from collections.abc import Iterable


def range_end(chosen: float, tried: Iterable[float]) -> str | None:
    """Which end of the range of tried values was chosen, if any.

    Returns:
        "first": the smallest of at least two distinct values; "last": the largest; None otherwise.
    """
    values = sorted(set(tried))
    if len(values) < 2 or chosen not in (values[0], values[-1]):
        return None
    return "first" if chosen == values[0] else "last"
